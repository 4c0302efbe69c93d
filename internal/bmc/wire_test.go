// SPDX-License-Identifier: Apache-2.0

package bmc

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stmcginnis/gofish"
	"github.com/stmcginnis/gofish/common"
	schema "github.com/stmcginnis/gofish/redfish"
)

// TestWireLeadsNowhereElse: each of the three fences holds by itself: links, requests and connections.
func TestWireLeadsNowhereElse(t *testing.T) {
	dialed := ""
	w, err := newWire(Target{
		Address: Address{Driver: "redfish", Host: "fd00::5", Port: 443},
		Pin:     "0000000000000000000000000000000000000000000000000000000000000000",
		Dialer: func(_ context.Context, _, address string) (net.Conn, error) {
			dialed = address
			return nil, errors.New("dialed")
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	c := &call{ctx: t.Context(), wire: w}
	for _, tt := range []struct {
		link string
		ok   bool
	}{
		{"/redfish/v1/Systems/1", true},
		{"https://[fd00::5]:443/redfish/v1/Systems/1", true},
		{"https://[fd00::6]:443/redfish/v1/Systems/1", false},
		{"https://[fd00::5]:444/redfish/v1/Systems/1", false},
		{"http://[fd00::5]:443/redfish/v1/Systems/1", false},
		{"https://u:p@[fd00::5]:443/x", false},
		{"//elsewhere/x", false},
		{"@elsewhere/x", true}, // a path like any other, below ours
		{"", false},
		{"mailto:x", false},
		{"https://[", false},
	} {
		to, err := c.resolve(tt.link)
		if tt.ok && (err != nil || to.Host != "[fd00::5]:443" || to.Scheme != "https" || to.User != nil) || !tt.ok && err == nil {
			t.Errorf("resolve(%q) = %v, %v; want ok: %v", tt.link, to, err, tt.ok)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, tt.link, nil)
		if err != nil || req.URL.Host == "" {
			continue
		}
		dialed = ""
		_, err = w.send(req)
		if errors.Is(err, errForeign) == tt.ok || (dialed != "") != tt.ok {
			t.Errorf("send(%q) = %v, dialed %q; want ok: %v", tt.link, err, dialed, tt.ok)
		}
	}
	dialed = ""
	_, err = w.client.Transport.(*http.Transport).DialContext(t.Context(), "tcp", "elsewhere:443")
	if !errors.Is(err, errForeign) || dialed != "" {
		t.Errorf("dialing elsewhere = %v, dialed %q", err, dialed)
	}
}

// FuzzAnswer feeds the decoders that run in goroutines of gofish, where a panic would end the daemon, with all that the
// wire lets through.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		`{"@odata.id":"/x","Id":"1","Name":"n","Links":{"ManagedBy":[{"@odata.id":"/m"}]},"Boot":{"BootSourceOverrideEnabled":"Once"},"Actions":{"#ComputerSystem.Reset":{"target":"/t"}}}`,
		`{"Members":[{"@odata.id":"/x"},null,"y"],"Members@odata.count":2,"Links":{"Members":[]},"Status":{"Health":"OK"}}`,
		`{"MACAddress":null,"PowerSupplies":[{"Status":null}],"Drives":[{}],"StorageControllers":[{"Links":[]}],"Controllers":[{"Links":{}}]}`,
		`{"error":{"code":"x","message":"m","@Message.ExtendedInfo":[{"MessageId":"Base.1.18.SessionLimitExceeded"}]}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if bounded(data) != nil {
			return
		}
		for _, v := range []any{
			&gofish.Service{}, &common.Collection{}, &schema.ComputerSystem{}, &schema.Manager{}, &schema.EthernetInterface{}, &schema.Chassis{},
			&schema.Power{}, &schema.Processor{}, &schema.Memory{}, &schema.Storage{}, &schema.Drive{}, &schema.NetworkInterface{},
			&schema.NetworkAdapter{}, &schema.NetworkPort{}, &schema.Bios{}, &schema.UpdateService{}, &schema.SoftwareInventory{}, &page{},
		} {
			_ = json.Unmarshal(data, v)
		}
		if s := printable(string(data)); len([]rune(s)) > 203 {
			t.Errorf("printable returned %d runes", len([]rune(s)))
		}
	})
}

// late answers every request at the moment when the client has given up, as net/http does where the two race.
type late struct{}

func (late) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: r}, nil
}

func TestAnswerAfterTheDeadline(t *testing.T) {
	w, err := newWire(Target{Address: Address{Driver: "redfish", Host: "192.0.2.1", Port: 443, Plain: true}})
	if err != nil {
		t.Fatal(err)
	}
	w.client.Transport = late{}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.address.scheme()+"://"+w.address.Authority()+"/redfish/v1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := w.send(req); !errors.Is(err, ErrUnreachable) {
		t.Errorf("send() = %v, %v; want ErrUnreachable", resp, err)
	}
}
