// SPDX-License-Identifier: Apache-2.0

package bmctest

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// start serves b on loopback and returns its URL and a client that takes any certificate.
func start(t *testing.T, b *BMC) (string, *http.Client) {
	t.Helper()
	cert, err := SelfSigned("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- NewServer(b, cert).Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve() = %v", err)
		}
	})
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	t.Cleanup(transport.CloseIdleConnections)
	return "https://" + l.Addr().String(), &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

var lab = Description{
	Manufacturer: "Acme", Model: "R1", SerialNumber: "S1", UUID: "6d6574a1-0000-4000-8000-000000000001",
	BIOSVersion: "2.7", MACs: []string{"52:54:00:00:00:01", "52:54:00:00:00:02"}, Processors: 2, MemoryMiB: 4096,
}

// call sends one request with basic credentials (unless user is empty) and returns status, header and JSON.
func call(t *testing.T, c *http.Client, method, url, user, body string, header ...string) (int, http.Header, map[string]any) {
	t.Helper()
	req, err := http.NewRequest(method, url, bytes.NewBufferString(body))
	if err != nil {
		t.Fatal(err)
	}
	if user != "" {
		req.SetBasicAuth(user, "secret")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var o map[string]any
	if len(data) > 0 && json.Unmarshal(data, &o) != nil {
		o = nil
	}
	return resp.StatusCode, resp.Header, o
}

// TestLinks walks every link from the service root: each must lead to a resource that names itself.
func TestLinks(t *testing.T) {
	base, c := start(t, New(NewMemoryMachine(lab), Options{Username: "root", Password: "secret"}))
	seen := map[string]bool{}
	var walk func(path string)
	var links func(v any)
	links = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if to, ok := v["@odata.id"].(string); ok {
				walk(to)
			}
			for _, x := range v {
				links(x)
			}
		case []any:
			for _, x := range v {
				links(x)
			}
		}
	}
	walk = func(path string) {
		if seen[path] {
			return
		}
		seen[path] = true
		status, _, o := call(t, c, "GET", base+path, "root", "")
		if status != http.StatusOK {
			t.Errorf("GET %s: status %d", path, status)
			return
		}
		if o["@odata.id"] != path || o["@odata.type"] == "" || o["Name"] == nil {
			t.Errorf("GET %s: id %v, type %v, name %v", path, o["@odata.id"], o["@odata.type"], o["Name"])
		}
		links(o)
	}
	walk("/redfish/v1/")
	if len(seen) < 30 {
		t.Errorf("met only %d resources", len(seen))
	}
}

func TestDoor(t *testing.T) {
	b := New(NewMemoryMachine(lab), Options{Username: "root", Password: "secret"})
	base, c := start(t, b)
	for _, tt := range []struct {
		name, method, path, user, body string
		want                           int
	}{
		{"root is public", "GET", "/redfish/v1", "", "", 200},
		{"root with a slash", "GET", "/redfish/v1/", "", "", 200},
		{"versions are public", "GET", "/redfish", "", "", 200},
		{"metadata is public", "GET", "/redfish/v1/$metadata", "", "", 200},
		{"systems are not", "GET", "/redfish/v1/Systems", "", "", 401},
		{"nor is a reset", "POST", "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset", "", `{"ResetType":"On"}`, 401},
		{"what is missing is not told", "GET", "/redfish/v1/Nothing", "", "", 401},
		{"basic", "GET", "/redfish/v1/Systems", "root", "", 200},
		{"basic, wrong user", "GET", "/redfish/v1/Systems", "eve", "", 401},
		{"missing", "GET", "/redfish/v1/Nothing", "root", "", 404},
		{"wrong method", "DELETE", "/redfish/v1/Systems/1", "root", "", 405},
		{"login with garbage", "POST", "/redfish/v1/SessionService/Sessions", "", "{", 400},
		{"login, wrong password", "POST", "/redfish/v1/SessionService/Sessions", "", `{"UserName":"root","Password":"x"}`, 401},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, _, _ := call(t, c, tt.method, base+tt.path, tt.user, tt.body); got != tt.want {
				t.Errorf("status %d, want %d", got, tt.want)
			}
		})
	}
	if n := b.Sessions(); n != 0 {
		t.Errorf("%d sessions are open", n)
	}
}

func TestSessions(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	b := New(NewMemoryMachine(lab), Options{Username: "root", Password: "secret", MaxSessions: 2, SessionTimeout: time.Minute, Now: func() time.Time { return now }})
	base, c := start(t, b)
	const login = `{"UserName":"root","Password":"secret"}`
	open := func() (int, string, string) {
		status, h, _ := call(t, c, "POST", base+pathSessions, "", login)
		return status, h.Get("X-Auth-Token"), h.Get("Location")
	}
	status, token, where := open()
	if status != 201 || token == "" || where == "" {
		t.Fatalf("login: status %d, token %q, location %q", status, token, where)
	}
	if got, _, _ := call(t, c, "GET", base+"/redfish/v1/Systems/1", "", "", "X-Auth-Token", token); got != 200 {
		t.Errorf("with token: status %d", got)
	}
	if status, _, _ = open(); status != 201 {
		t.Fatalf("second login: status %d", status)
	}
	if status, _, _ = open(); status != 503 {
		t.Errorf("third login of two: status %d, want 503", status)
	}
	if got, _, _ := call(t, c, "DELETE", base+where, "", "", "X-Auth-Token", token); got != 204 {
		t.Errorf("logout: status %d", got)
	}
	if got, _, _ := call(t, c, "GET", base+"/redfish/v1/Systems/1", "", "", "X-Auth-Token", token); got != 401 {
		t.Errorf("with a token of a closed session: status %d, want 401", got)
	}
	now = now.Add(2 * time.Minute)
	if n := b.Sessions(); n != 0 {
		t.Errorf("%d sessions after the timeout, want 0", n)
	}
}
