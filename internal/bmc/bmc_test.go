// SPDX-License-Identifier: Apache-2.0

package bmc

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"metald.io/metald/internal/bmc/bmctest"
)

const password = "correct horse"

var described = bmctest.Description{
	Manufacturer: "Acme", Model: "R1", SerialNumber: "S1", UUID: "6D6574A1-0000-4000-8000-000000000001", BIOSVersion: "2.7",
	MACs: []string{"52:54:00:00:00:01", "52:54:00:00:00:02"}, Processors: 2, MemoryMiB: 4096,
}

// rig is a BMC on loopback and what to dial it with.
type rig struct {
	*bmctest.BMC
	machine *bmctest.MemoryMachine
	server  *bmctest.Server
	target  Target
}

// newRig starts a BMC. When the test ends, no session may be open on it.
func newRig(t *testing.T, o bmctest.Options) *rig {
	t.Helper()
	o.Username, o.Password = "root", password
	g := &rig{machine: bmctest.NewMemoryMachine(described)}
	g.BMC = bmctest.New(g.machine, o)
	cert, err := bmctest.SelfSigned("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	g.server = bmctest.NewServer(g.BMC, cert)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.server.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve() = %v", err)
		}
		if n := g.Sessions(); n != 0 {
			t.Errorf("%d sessions are left open", n)
		}
	})
	address, err := ParseAddress("redfish://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	g.target = Target{Address: address, Username: "root", Password: password, Pin: bmctest.Fingerprint(cert)}
	return g
}

// dial opens a controller that is closed when the test ends.
func (g *rig) dial(t *testing.T) Controller {
	t.Helper()
	c, err := Dial(t.Context(), g.target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(context.Background()); err != nil {
			t.Errorf("Close() = %v", err)
		}
	})
	return c
}

// logins counts the logins that the BMC has met.
func (g *rig) logins() int {
	n := 0
	for _, r := range g.Requests() {
		if r.Credentials == "login" {
			n++
		}
	}
	return n
}

func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func TestIdentity(t *testing.T) {
	g := newRig(t, bmctest.Options{FirmwareVersion: "7.1"})
	got, err := g.dial(t).Identity(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := Identity{
		Manufacturer: "Acme", Model: "R1", SerialNumber: "S1", SystemUUID: "6d6574a1-0000-4000-8000-000000000001",
		BIOSVersion: "2.7", BMCVersion: "7.1", MACs: []string{"52:54:00:00:00:01", "52:54:00:00:00:02"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, r := range g.Requests() {
		if r.Credentials == "basic" {
			t.Errorf("%s %s carried the password", r.Method, r.Path)
		}
	}
	if n := g.logins(); n != 1 {
		t.Errorf("%d logins, want 1", n)
	}
}

func TestInventory(t *testing.T) {
	g := newRig(t, bmctest.Options{FirmwareVersion: "7.1"})
	c := g.dial(t)
	got, err := c.(Inventorier).Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cpu := func(id string) Part {
		return Part{ID: id, Vendor: "Acme", Model: "Virtual CPU", Kind: "x86", Cores: 1, Threads: 1, Health: "OK"}
	}
	port := func(id, mac string) Part {
		return Part{ID: id, Vendor: "Acme", Model: "Virtual Ethernet", MAC: mac, Health: "OK"}
	}
	want := Inventory{
		Processors: []Part{cpu("CPU1"), cpu("CPU2")},
		Memory:     []Part{{ID: "DIMM1", Vendor: "Acme", Kind: "DRAM", Bytes: 4 << 30, Health: "OK"}},
		Ports:      []Part{port("NIC1", "52:54:00:00:00:01"), port("NIC2", "52:54:00:00:00:02")},
		Firmware:   map[string]string{"BIOS": "2.7", "BMC": "7.1"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// The library's own habits would be a login with every driver, and the password with each request.
	if n := g.logins(); n != 1 {
		t.Errorf("%d logins, want 1", n)
	}
}

// TestInventoryIsWholeOrAnError: bmclib goes on without what it could not read.
func TestInventoryIsWholeOrAnError(t *testing.T) {
	g := newRig(t, bmctest.Options{})
	c := g.dial(t)
	g.Fault(bmctest.Rule{Path: "/redfish/v1/Systems/1/Memory*", Hang: true})
	got, err := c.(Inventorier).Inventory(soon(t))
	if !errors.Is(err, ErrUnreachable) {
		t.Errorf("got %+v, %v; want ErrUnreachable", got, err)
	}
}

func TestPower(t *testing.T) {
	type step struct {
		action PowerAction
		want   PowerState
		boots  int // in all
	}
	g := newRig(t, bmctest.Options{})
	c := g.dial(t)
	for i, s := range []step{
		{ForceOff, Off, 0},
		{GracefulOff, Off, 0},
		{PowerOn, On, 1},
		{PowerOn, On, 1}, // the BMC would refuse it with 409: it must not be asked
		{ForceRestart, On, 2},
		{GracefulOff, Off, 2},
		{ForceRestart, On, 3}, // off: so it is switched on
		{ForceOff, Off, 3},
		{ForceOff, Off, 3},
	} {
		if err := c.Switch(t.Context(), s.action); err != nil {
			t.Fatalf("step %d: Switch(%s) = %v", i, s.action, err)
		}
		got, err := c.Power(t.Context())
		if err != nil || got != s.want || len(g.machine.Boots()) != s.boots {
			t.Errorf("step %d, %s: power %s, %v, boots %v; want %s, %d boots", i, s.action, got, err, g.machine.Boots(), s.want, s.boots)
		}
	}
	sent := 0
	for _, r := range g.Requests() {
		if r.Method == "POST" && strings.HasSuffix(r.Path, ".Reset") {
			sent++
		}
	}
	if sent != 5 {
		t.Errorf("%d resets were sent, want 5: none where the machine is already there", sent)
	}
	if err := c.Switch(t.Context(), "Explode"); !errors.Is(err, ErrNotSupported) {
		t.Errorf("Switch(Explode) = %v, want ErrNotSupported", err)
	}
}

func TestPowerStates(t *testing.T) {
	for says, want := range map[string]PowerState{"PoweringOn": PoweringOn, "PoweringOff": PoweringOff, "Paused": PowerUnknown, "Reset": PowerUnknown} {
		t.Run(says, func(t *testing.T) {
			g := newRig(t, bmctest.Options{})
			c := g.dial(t)
			g.Fault(bmctest.Rule{PowerState: says})
			if got, err := c.Power(t.Context()); err != nil || got != want {
				t.Errorf("Power() = %s, %v; want %s", got, err, want)
			}
		})
	}
}

// TestPowerRace: the machine gets where it is wanted between the look and the reset, which the BMC then refuses.
func TestPowerRace(t *testing.T) {
	g := newRig(t, bmctest.Options{})
	c := g.dial(t)
	if err := g.machine.PowerOn(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.Fault(bmctest.Rule{Method: "GET", Path: "/redfish/v1/Systems/1", PowerState: "Off", Times: 1})
	if err := c.Switch(t.Context(), PowerOn); err != nil {
		t.Errorf("Switch(PowerOn) = %v", err)
	}
	g.Fault(bmctest.Rule{Method: "GET", Path: "/redfish/v1/Systems/1", PowerState: "Off"})
	if err := c.Switch(t.Context(), PowerOn); err == nil {
		t.Error("Switch(PowerOn) = nil, although the BMC refused and shows Off")
	}
}

func TestOneTimeBoot(t *testing.T) {
	for _, mode := range []bmctest.IfMatch{bmctest.IfMatchOptional, bmctest.IfMatchRequired, bmctest.IfMatchRefused} {
		g := newRig(t, bmctest.Options{IfMatch: mode})
		c := g.dial(t)
		for _, want := range []BootTarget{BootHTTP, BootPXE, BootDisk, BootHTTP, BootNone, BootNone} {
			if err := c.SetOneTimeBoot(t.Context(), want); err != nil {
				t.Fatalf("mode %d: SetOneTimeBoot(%s) = %v", mode, want, err)
			}
			if got, err := c.OneTimeBoot(t.Context()); err != nil || got != want {
				t.Errorf("mode %d: OneTimeBoot() = %s, %v; want %s", mode, got, err, want)
			}
		}
		if err := c.SetOneTimeBoot(t.Context(), BootHTTP); err != nil {
			t.Fatal(err)
		}
		if err := c.Switch(t.Context(), PowerOn); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"UefiHttp"}, g.machine.Boots()); diff != "" {
			t.Errorf("mode %d: boots (-want +got):\n%s", mode, diff)
		}
		if got, err := c.OneTimeBoot(t.Context()); err != nil || got != BootNone {
			t.Errorf("mode %d: after the boot: %s, %v; want None", mode, got, err)
		}
	}
}

func TestNetworkBoot(t *testing.T) {
	short := []string{"None", "Pxe", "Hdd"}
	for _, tt := range []struct {
		name    string
		options bmctest.Options
		driver  string
		want    BootTarget
		refused bool // the BMC then refuses to take it
		then    BootTarget
	}{
		{name: "lists HTTP", want: BootHTTP},
		{name: "lists only PXE", options: bmctest.Options{BootTargets: short}, want: BootPXE},
		{name: "lists only PXE, and the address insists on HTTP", options: bmctest.Options{BootTargets: short}, driver: "redfish-uefihttp", want: BootHTTP, refused: true, then: BootHTTP},
		{name: "lists nothing and takes HTTP", options: bmctest.Options{UnlistedBootTargets: true}, want: BootHTTP},
		{name: "lists nothing and refuses HTTP", options: bmctest.Options{UnlistedBootTargets: true, BootTargets: short}, want: BootHTTP, refused: true, then: BootPXE},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newRig(t, tt.options)
			if tt.driver != "" {
				g.target.Address.Driver = tt.driver
			}
			c := g.dial(t)
			got, err := c.NetworkBoot(t.Context())
			if err != nil || got != tt.want {
				t.Fatalf("NetworkBoot() = %s, %v; want %s", got, err, tt.want)
			}
			if err := c.SetOneTimeBoot(t.Context(), got); (err != nil) != tt.refused {
				t.Fatalf("SetOneTimeBoot(%s) = %v, want refused %v", got, err, tt.refused)
			}
			if tt.then == "" {
				return
			}
			if got, err = c.NetworkBoot(t.Context()); err != nil || got != tt.then {
				t.Errorf("after it was refused: %s, %v; want %s", got, err, tt.then)
			}
		})
	}
	g := newRig(t, bmctest.Options{BootTargets: []string{"None", "Hdd"}})
	if got, err := g.dial(t).NetworkBoot(t.Context()); !errors.Is(err, ErrNotSupported) {
		t.Errorf("a BMC that lists neither: %s, %v; want ErrNotSupported", got, err)
	}
}

func TestOneTimeBootOther(t *testing.T) {
	g := newRig(t, bmctest.Options{})
	c := g.dial(t)
	if err := g.machine.SetBootOnce(t.Context(), "BiosSetup"); err != nil {
		t.Fatal(err)
	}
	if got, err := c.OneTimeBoot(t.Context()); err != nil || got != BootOther {
		t.Errorf("OneTimeBoot() = %s, %v; want Other", got, err)
	}
	for _, bad := range []BootTarget{BootOther, "Tape", ""} {
		if err := c.SetOneTimeBoot(t.Context(), bad); !errors.Is(err, ErrNotSupported) {
			t.Errorf("SetOneTimeBoot(%q) = %v, want ErrNotSupported", bad, err)
		}
	}
}

// TestBootFaults: a write that did not stick must not pass for one that did.
func TestBootFaults(t *testing.T) {
	const system = "/redfish/v1/Systems/1"
	untagged := `{"@odata.id":"` + system + `","Id":"1","Name":"System","Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"UefiHttp"}}`
	without := `{"@odata.id":"` + system + `","Id":"1","Name":"System","Boot":{"BootSourceOverrideEnabled":"Disabled","BootSourceOverrideTarget@Redfish.AllowableValues":["None","Pxe"]}}`
	for _, tt := range []struct {
		name    string
		rules   []bmctest.Rule
		want    error // nil means that it works all the same
		options bmctest.Options
	}{
		{name: "forgotten", rules: []bmctest.Rule{{Method: "PATCH", ForgetBoot: true}}, want: ErrNotKept},
		{name: "target not offered", rules: []bmctest.Rule{{Method: "GET", Path: system, Status: 200, Body: []byte(without)}}, want: ErrNotSupported},
		{name: "method not allowed", rules: []bmctest.Rule{{Method: "PATCH", Status: 405}}, want: ErrNotSupported},
		{name: "busy", rules: []bmctest.Rule{{Method: "PATCH", Status: 503}}, want: ErrBusy},
		{name: "mode refused once", rules: []bmctest.Rule{{Method: "PATCH", Status: 400, Times: 1}}, want: nil},
		{name: "tag out of date once", rules: []bmctest.Rule{{Method: "PATCH", Status: 412, Times: 1}}, want: nil},
		{name: "tag needed and none shown", rules: []bmctest.Rule{{Method: "GET", Path: system, Status: 200, Body: []byte(untagged)}}, options: bmctest.Options{IfMatch: bmctest.IfMatchRequired}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newRig(t, tt.options)
			c := g.dial(t)
			for _, r := range tt.rules {
				g.Fault(r)
			}
			if err := c.SetOneTimeBoot(t.Context(), BootHTTP); !errors.Is(err, tt.want) {
				t.Errorf("SetOneTimeBoot() = %v, want %v", err, tt.want)
			}
		})
	}
}

func TestCertificate(t *testing.T) {
	g := newRig(t, bmctest.Options{})
	got, leaf, err := Certificate(t.Context(), g.target.Address)
	if err != nil || got != g.target.Pin || leaf == nil {
		t.Errorf("Certificate() = %s, %v, %v; want %s", got, leaf, err, g.target.Pin)
	}
	if n := len(g.Requests()); n != 0 {
		t.Errorf("%d requests were sent to read a certificate", n)
	}
	plain := g.target.Address
	plain.Plain = true
	if _, _, err := Certificate(t.Context(), plain); !errors.Is(err, ErrNotSupported) {
		t.Errorf("of plain HTTP: %v, want ErrNotSupported", err)
	}
}

func TestSystemIsChosen(t *testing.T) {
	two := `{"@odata.id":"/redfish/v1/Systems","Members":[{"@odata.id":"/redfish/v1/Systems/1"},{"@odata.id":"/redfish/v1/Systems/2"}],"Members@odata.count":2}`
	for _, tt := range []struct {
		name, system string
		two          bool
		want         string // part of the error; empty means none
	}{
		{"the only one", "", false, ""},
		{"named", "/redfish/v1/Systems/1", true, ""},
		{"named wrongly", "/redfish/v1/Systems/7", false, "has no /redfish/v1/Systems/7"},
		{"two and none named", "", true, "/redfish/v1/Systems/2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newRig(t, bmctest.Options{})
			if tt.two {
				g.Fault(bmctest.Rule{Path: "/redfish/v1/Systems", Status: 200, Body: []byte(two)})
			}
			g.target.Address.System = tt.system
			if tt.want == "" {
				if _, err := g.dial(t).Power(t.Context()); err != nil {
					t.Errorf("Power() = %v", err)
				}
				return
			}
			if _, err := Dial(t.Context(), g.target); !errors.Is(err, ErrNotSupported) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Dial() = %v, want ErrNotSupported with %q", err, tt.want)
			}
		})
	}
}
