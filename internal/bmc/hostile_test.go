// SPDX-License-Identifier: Apache-2.0

package bmc

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"metald.io/metald/internal/bmc/bmctest"
)

const (
	pathRootTest = "/redfish/v1"
	pathOne      = "/redfish/v1/Systems/1"
)

// TestDialRefuses: each way in which a BMC does not let us in, or should not be let in.
func TestDialRefuses(t *testing.T) {
	for _, tt := range []struct {
		name    string
		options bmctest.Options
		rules   []bmctest.Rule
		change  func(*rig, *testing.T)
		want    error
		logins  int
	}{
		{name: "wrong password", change: func(g *rig, _ *testing.T) { g.target.Password = "wrong" }, want: ErrCredentials, logins: 1},
		{name: "wrong user", change: func(g *rig, _ *testing.T) { g.target.Username = "eve" }, want: ErrCredentials, logins: 1},
		{name: "account without rights", rules: []bmctest.Rule{{Method: "POST", Path: pathSessions, Status: 403}}, want: ErrCredentials, logins: 1},
		{name: "session table full", options: bmctest.Options{MaxSessions: 2}, change: fillSessions, want: ErrBusy, logins: 3},
		{name: "session table always full", rules: []bmctest.Rule{{SessionsFull: true}}, want: ErrBusy, logins: 1},
		{name: "busy", rules: []bmctest.Rule{{Path: pathRootTest, Status: 503}}, want: ErrBusy},
		{name: "login hangs", rules: []bmctest.Rule{{Method: "POST", Path: pathSessions, Hang: true}}, want: ErrUnreachable, logins: 1},
		{name: "root hangs", rules: []bmctest.Rule{{Path: pathRootTest, Hang: true}}, want: ErrUnreachable},
		{name: "systems hang", rules: []bmctest.Rule{{Path: "/redfish/v1/Systems", Hang: true}}, want: ErrUnreachable, logins: 1},
		{name: "not Redfish", rules: []bmctest.Rule{{Path: pathRootTest, Status: 200, Body: []byte(`{"hello":"world"}`)}}, want: ErrNotSupported},
		{name: "no token", rules: []bmctest.Rule{{Method: "POST", Path: pathSessions, Status: 201, Body: []byte(`{}`)}}, want: ErrNotSupported, logins: 1},
		{name: "nobody there", change: func(g *rig, t *testing.T) { g.target.Address.Port = closedPort(t) }, want: ErrUnreachable},
		{name: "no pin", change: func(g *rig, _ *testing.T) { g.target.Pin = "" }, want: errNoPin},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newRig(t, tt.options)
			for _, r := range tt.rules {
				g.Fault(r)
			}
			if tt.change != nil {
				tt.change(g, t)
			}
			start := time.Now()
			c, err := Dial(soon(t), g.target)
			if err == nil {
				_ = c.Close(t.Context())
			}
			if !errors.Is(err, tt.want) {
				t.Errorf("Dial() = %v, want %v", err, tt.want)
			}
			if took := time.Since(start); took > 2*time.Second {
				t.Errorf("took %v", took)
			}
			if n := g.logins(); n != tt.logins {
				t.Errorf("%d logins, want %d", n, tt.logins)
			}
			if tt.name == "session table full" {
				g.DropSessions()
			}
		})
	}
}

func fillSessions(g *rig, t *testing.T) {
	t.Helper()
	for range 2 {
		if _, err := Dial(t.Context(), g.target); err != nil { // left open: others' sessions
			t.Fatal(err)
		}
	}
}

func closedPort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}

// TestChangedCertificate: nothing is sent to a BMC that shows another certificate, also in the middle of a conversation.
func TestChangedCertificate(t *testing.T) {
	g := newRig(t, bmctest.Options{})
	other, err := bmctest.SelfSigned("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Dial(t.Context(), g.target)
	if err != nil {
		t.Fatal(err)
	}
	before := len(g.Requests())
	g.server.ChangeCertificate(other)
	c.(*redfish).wire.close() // the next request needs a new connection

	var changed *PinChangedError
	if _, err := c.Power(t.Context()); !errors.As(err, &changed) || changed.Shown != bmctest.Fingerprint(other) || changed.Pinned != g.target.Pin {
		t.Errorf("Power() = %v, want the change of the pin", err)
	}
	if _, err := Dial(t.Context(), g.target); !errors.As(err, &changed) || errors.Is(err, ErrUnreachable) {
		t.Errorf("Dial() = %v, want the change of the pin and nothing else", err)
	}
	if err := c.Close(t.Context()); !errors.As(err, &changed) {
		t.Errorf("Close() = %v, want the change of the pin", err)
	}
	if n := len(g.Requests()); n != before {
		t.Errorf("%d requests were sent to the stranger", n-before)
	}
	g.DropSessions() // the true BMC's session could not be closed
}

// TestForeignLinks: a BMC that sends us elsewhere is not followed, and the token goes nowhere else.
func TestForeignLinks(t *testing.T) {
	var visits atomic.Int32
	elsewhere := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { visits.Add(1) }))
	defer elsewhere.Close()
	host := strings.TrimPrefix(elsewhere.URL, "https://")
	members := func(link string) []byte {
		return []byte(`{"@odata.id":"/x","Members":[{"@odata.id":"` + link + `"}],"Members@odata.count":1}`)
	}
	for _, tt := range []struct {
		name string
		rule bmctest.Rule
	}{
		{"redirect of the root", bmctest.Rule{Path: pathRootTest, Status: 302, Header: http.Header{"Location": {elsewhere.URL + "/redfish/v1/"}}}},
		{"redirect of the login", bmctest.Rule{Method: "POST", Path: pathSessions, Status: 307, Header: http.Header{"Location": {elsewhere.URL}}}},
		{"sessions elsewhere", bmctest.Rule{Path: pathRootTest, Status: 200, Body: []byte(`{"RedfishVersion":"1.0.0","Links":{"Sessions":{"@odata.id":"` + elsewhere.URL + `/s"}}}`)}},
		{"sessions behind an at sign", bmctest.Rule{Path: pathRootTest, Status: 200, Body: []byte(`{"RedfishVersion":"1.0.0","Links":{"Sessions":{"@odata.id":"@` + host + `/s"}}}`)}},
		{"system elsewhere", bmctest.Rule{Path: "/redfish/v1/Systems", Status: 200, Body: members(elsewhere.URL + "/redfish/v1/Systems/1")}},
		{"system behind two slashes", bmctest.Rule{Path: "/redfish/v1/Systems", Status: 200, Body: members("//" + host + "/redfish/v1/Systems/1")}},
		{"system behind an at sign", bmctest.Rule{Path: "/redfish/v1/Systems", Status: 200, Body: members("@" + host + "/")}},
		{"system by plain HTTP", bmctest.Rule{Path: "/redfish/v1/Systems", Status: 200, Body: members("http://" + host + "/")}},
		{"system is a script", bmctest.Rule{Path: "/redfish/v1/Systems", Status: 200, Body: members("javascript:1")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newRig(t, bmctest.Options{})
			g.Fault(tt.rule)
			c, err := Dial(t.Context(), g.target)
			if err == nil {
				_, err = c.Power(t.Context())
				_ = c.Close(t.Context())
			}
			if tt.rule.Status/100 == 3 {
				if status(err) != tt.rule.Status {
					t.Errorf("got %v, want status %d: a redirect is not followed", err, tt.rule.Status)
				}
			} else if !errors.Is(err, errForeign) {
				t.Errorf("got %v, want errForeign", err)
			}
		})
	}
	// The library that collects the parts makes its URLs by concatenating: its transport must refuse as well.
	g := newRig(t, bmctest.Options{})
	c := g.dial(t)
	g.Fault(bmctest.Rule{Path: pathOne + "/Memory", Status: 200, Body: members("@" + host + "/dimm")})
	if _, err := c.(Inventorier).Inventory(t.Context()); !errors.Is(err, errForeign) {
		t.Errorf("Inventory() = %v, want errForeign", err)
	}
	if n := visits.Load(); n != 0 {
		t.Errorf("the other machine was visited %d times", n)
	}
}

// TestGarbage: answers that no BMC gives must end in an error soon, and in little memory.
func TestGarbage(t *testing.T) {
	many := `{"Members":[` + strings.Repeat(`{"@odata.id":"/redfish/v1/x"},`, 5000) + `{"@odata.id":"/redfish/v1/x"}]}`
	for _, tt := range []struct {
		name string
		rule bmctest.Rule
		want error // nil means any
	}{
		{"not JSON", bmctest.Rule{Status: 200, Body: []byte("<html>")}, nil},
		{"empty", bmctest.Rule{Status: 200}, nil},
		{"half", bmctest.Rule{Status: 200, Body: []byte(`{"Members":[{"@odata.id":`)}, nil},
		{"another type", bmctest.Rule{Status: 200, Body: []byte(`{"Members":{"a":1}}`)}, nil},
		{"list", bmctest.Rule{Status: 200, Body: []byte(`[1,2,3]`)}, nil},
		{"no members", bmctest.Rule{Status: 200, Body: []byte(`{"Members":[]}`)}, ErrNotSupported},
		{"member without a link", bmctest.Rule{Status: 200, Body: []byte(`{"Members":[null]}`)}, nil},
		{"huge", bmctest.Rule{Status: 200, Body: []byte(`{"Members":"`), Fill: 1 << 30}, errExcess},
		{"deep", bmctest.Rule{Status: 200, Body: []byte(strings.Repeat("[", 100_000))}, errExcess},
		{"many", bmctest.Rule{Status: 200, Body: []byte(many)}, errExcess},
		{"binary", bmctest.Rule{Status: 200, Body: []byte{0, 1, 2, 0xff, 0xfe}}, nil},
		{"wrong length", bmctest.Rule{Status: 200, Header: http.Header{"Content-Length": {"1000"}}, Body: []byte(`{}`)}, ErrUnreachable},
		{"strange status", bmctest.Rule{Status: 299, Body: []byte(`{}`)}, nil},
		{"endless error text", bmctest.Rule{Status: 500, Body: []byte(`{"error":{"message":"`), Fill: 1 << 28}, errExcess},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newRig(t, bmctest.Options{})
			tt.rule.Path = "/redfish/v1/Systems"
			g.Fault(tt.rule)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			c, err := Dial(t.Context(), g.target)
			runtime.ReadMemStats(&after)
			if err == nil {
				_ = c.Close(t.Context())
				t.Fatal("no error")
			}
			if tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("Dial() = %v, want %v", err, tt.want)
			}
			if len(err.Error()) > 1000 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
			if took := (after.TotalAlloc - before.TotalAlloc) >> 20; took > 16 {
				t.Errorf("%d MiB were allocated", took)
			}
		})
	}
}

// TestCycle: a collection whose last page is followed by its first ends at the bound.
func TestCycle(t *testing.T) {
	g := newRig(t, bmctest.Options{})
	c := g.dial(t)
	self := `{"@odata.id":"` + pathOne + `/Memory","Name":"Memory","Members":[{"@odata.id":"` + pathOne + `/Memory"}],"Members@odata.nextLink":"` + pathOne + `/Memory"}`
	g.Fault(bmctest.Rule{Path: pathOne + "/Memory", Status: 200, Body: []byte(self)})
	if _, err := c.(Inventorier).Inventory(t.Context()); !errors.Is(err, errExcess) {
		t.Errorf("Inventory() = %v, want errExcess", err)
	}
	if n := len(g.Requests()); n > maxElements+100 {
		t.Errorf("%d requests", n)
	}
}

// TestPages: a collection in pages is read as one, and a page that fails does not pass for the end.
func TestPages(t *testing.T) {
	const ports = pathOne + "/EthernetInterfaces"
	first := `{"@odata.id":"` + ports + `","Name":"Ports","Members":[{"@odata.id":"` + ports + `/NIC2"}],"Members@odata.nextLink":"` + ports + `?$skip=1"}`
	second := `{"@odata.id":"` + ports + `","Name":"Ports","Members":[{"@odata.id":"` + ports + `/NIC1"}]}`
	g := newRig(t, bmctest.Options{})
	c := g.dial(t)
	g.Fault(bmctest.Rule{Path: ports, Status: 200, Body: []byte(first), Times: 1})
	remove := g.Fault(bmctest.Rule{Path: ports, Status: 200, Body: []byte(second)})
	id, err := c.Identity(t.Context())
	if err != nil || len(id.MACs) != 2 {
		t.Errorf("Identity() = %+v, %v; want two MACs", id, err)
	}
	remove()
	g.Fault(bmctest.Rule{Path: ports, Status: 200, Body: []byte(first), Times: 1})
	g.Fault(bmctest.Rule{Path: ports, Status: 500})
	if id, err := c.Identity(t.Context()); err == nil {
		t.Errorf("Identity() = %+v, although the second page failed", id)
	}
}

// TestNull: gofish would call a method of a nil object, in a goroutine where nobody can recover.
func TestNull(t *testing.T) {
	for _, path := range []string{"/redfish/v1", pathOne, pathOne + "/EthernetInterfaces/*", "/redfish/v1/Managers/1", pathOne + "/Memory/*", pathOne + "/Processors*", "/redfish/v1/Chassis/*"} {
		g := newRig(t, bmctest.Options{})
		c := g.dial(t)
		g.Fault(bmctest.Rule{Method: "GET", Path: path, Status: 200, Header: http.Header{"Etag": {"x"}}, Body: []byte(" null")})
		_, err := c.Identity(t.Context())
		_, err2 := c.(Inventorier).Inventory(t.Context())
		if err := errors.Join(err, err2); !errors.Is(err, errNoObject) {
			t.Errorf("%s is null: %v, want errNoObject", path, err)
		}
	}
}

// TestBMCTextIsTamed: what a BMC says ends up in logs and conditions, and may hold the password it was just sent.
func TestBMCTextIsTamed(t *testing.T) {
	g := newRig(t, bmctest.Options{})
	text := `{"error":{"code":"x","message":"bad password ` + password + ` \u001b[31m\nline` + strings.Repeat("x", 5000) + `"}}`
	g.Fault(bmctest.Rule{Method: "POST", Path: pathSessions, Status: 401, Body: []byte(text)})
	_, err := Dial(t.Context(), g.target)
	if !errors.Is(err, ErrCredentials) {
		t.Fatalf("Dial() = %v, want ErrCredentials", err)
	}
	for _, bad := range []string{password, "\x1b", "\n"} {
		if strings.Contains(err.Error(), bad) {
			t.Errorf("the error holds %q: %q", bad, err)
		}
	}
	if len(err.Error()) > 500 {
		t.Errorf("the error has %d bytes", len(err.Error()))
	}
}

// TestLostSession: a BMC that restarted is logged in to once more; one whose password changed is asked once and no more.
func TestLostSession(t *testing.T) {
	g := newRig(t, bmctest.Options{})
	c := g.dial(t)
	g.DropSessions()
	if _, err := c.Power(t.Context()); err != nil {
		t.Errorf("after the session was lost: Power() = %v", err)
	}
	g.DropSessions()
	if _, err := c.(Inventorier).Inventory(t.Context()); err != nil {
		t.Errorf("after the session was lost: Inventory() = %v", err)
	}
	if n := g.logins(); n != 3 {
		t.Errorf("%d logins, want 3", n)
	}
	g.DropSessions()
	g.Fault(bmctest.Rule{Method: "POST", Path: pathSessions, Status: 401})
	for range 3 {
		if _, err := c.Power(t.Context()); !errors.Is(err, ErrCredentials) {
			t.Errorf("after the password was changed: Power() = %v, want ErrCredentials", err)
		}
	}
	if n := g.logins(); n != 4 {
		t.Errorf("%d logins, want 4: a refused one must not be repeated", n)
	}
}

// TestLateLogin: a session that the BMC opens after its caller has gone is closed all the same.
func TestLateLogin(t *testing.T) {
	g := newRig(t, bmctest.Options{})
	g.Fault(bmctest.Rule{Method: "POST", Path: pathSessions, Delay: 400 * time.Millisecond, Times: 1})
	if _, err := Dial(soon(t), g.target); !errors.Is(err, ErrUnreachable) {
		t.Errorf("Dial() = %v, want ErrUnreachable", err)
	}
	for until := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		deleted := 0
		for _, r := range g.Requests() {
			if r.Method == "DELETE" && r.Status == 204 {
				deleted++
			}
		}
		if deleted == 1 {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("the late session was not closed: %d are open", g.Sessions())
		}
	}
}

// TestClose: it works after the context has ended, twice, and nothing works afterwards.
func TestClose(t *testing.T) {
	g := newRig(t, bmctest.Options{})
	c, err := Dial(t.Context(), g.target)
	if err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Power(over); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnreachable) {
		t.Errorf("Power() with a cancelled context = %v, want context.Canceled alone", err)
	}
	for range 2 {
		if err := c.Close(over); err != nil {
			t.Errorf("Close() = %v", err)
		}
	}
	if n := g.Sessions(); n != 0 {
		t.Errorf("%d sessions are open", n)
	}
	if _, err := c.Power(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("Power() after Close = %v, want ErrClosed", err)
	}
}

// TestHang: each call ends with its context.
func TestHang(t *testing.T) {
	g := newRig(t, bmctest.Options{})
	c := g.dial(t)
	remove := g.Fault(bmctest.Rule{Hang: true})
	for name, f := range map[string]func(context.Context) error{
		"Power":          func(ctx context.Context) error { _, err := c.Power(ctx); return err },
		"Switch":         func(ctx context.Context) error { return c.Switch(ctx, PowerOn) },
		"Identity":       func(ctx context.Context) error { _, err := c.Identity(ctx); return err },
		"SetOneTimeBoot": func(ctx context.Context) error { return c.SetOneTimeBoot(ctx, BootHTTP) },
		"OneTimeBoot":    func(ctx context.Context) error { _, err := c.OneTimeBoot(ctx); return err },
		"Inventory":      func(ctx context.Context) error { _, err := c.(Inventorier).Inventory(ctx); return err },
	} {
		start := time.Now()
		if err := f(soon(t)); !errors.Is(err, ErrUnreachable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s = %v, want ErrUnreachable by the deadline", name, err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("%s took %v", name, took)
		}
	}
	remove()
	if _, err := c.Power(t.Context()); err != nil {
		t.Errorf("when the BMC is back: Power() = %v", err)
	}
}
