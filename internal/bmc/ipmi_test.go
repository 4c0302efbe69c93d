// SPDX-License-Identifier: Apache-2.0

package bmc

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	library "github.com/bougou/go-ipmi/pkg/bmc"
	"github.com/bougou/go-ipmi/pkg/hal"
	"github.com/bougou/go-ipmi/pkg/hal/mock"
	"github.com/bougou/go-ipmi/pkg/server"
	"github.com/bougou/go-ipmi/pkg/types"
	"github.com/google/go-cmp/cmp"
)

// guid is 6d6574a1-0001-4002-8003-0000000000a5 in SMBIOS byte order.
var guid = [16]byte{0xa1, 0x74, 0x65, 0x6d, 0x01, 0x00, 0x02, 0x40, 0x80, 0x03, 0, 0, 0, 0, 0, 0xa5}

// ipmiRig is go-ipmi's BMC behind a socket that counts, holds back and spoils what passes.
type ipmiRig struct {
	bmc     *library.BMC
	chassis *mock.Chassis
	target  Target

	mu      sync.Mutex
	packets map[byte]int // received, by payload type without flags
	hold    bool         // answers nothing
	spoil   func([]byte) []byte

	forgets atomic.Bool // boot flags that are set
}

// hardware is the library's, but for what the rig makes of it.
type hardware struct {
	*mock.HAL
	rig *ipmiRig
}

func (h hardware) Chassis() hal.ChassisHAL {
	return flagChassis{h.HAL.Chassis().(*mock.Chassis), h.rig}
}

type flagChassis struct {
	*mock.Chassis
	rig *ipmiRig
}

// SetBootFlags accepts all, and where the rig forgets keeps flags that are not valid.
func (c flagChassis) SetBootFlags(ctx context.Context, flags *types.BootOptionParam_BootFlags) error {
	if c.rig.forgets.Load() {
		flags = &types.BootOptionParam_BootFlags{BIOSBootType: types.BIOSBootTypeEFI, BootDeviceSelector: types.BootDeviceSelectorForcePXE}
	}
	return c.Chassis.SetBootFlags(ctx, flags)
}

// socket is the server's side of the wire.
type socket struct {
	net.PacketConn
	rig *ipmiRig
}

func (s socket) ReadFrom(p []byte) (int, net.Addr, error) {
	n, from, err := s.PacketConn.ReadFrom(p)
	if err == nil && n > 5 {
		s.rig.mu.Lock()
		s.rig.packets[p[5]&0x3f]++
		s.rig.mu.Unlock()
	}
	return n, from, err
}

func (s socket) WriteTo(p []byte, to net.Addr) (int, error) {
	s.rig.mu.Lock()
	hold, spoil := s.rig.hold, s.rig.spoil
	s.rig.mu.Unlock()
	if hold {
		return len(p), nil
	}
	if spoil != nil {
		p = spoil(append([]byte(nil), p...))
	}
	return s.PacketConn.WriteTo(p, to)
}

func (g *ipmiRig) set(f func(g *ipmiRig)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f(g)
}

func (g *ipmiRig) met(kind types.PayloadType) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.packets[byte(kind)]
}

func newIPMIRig(t *testing.T, suites ...types.CipherSuiteID) *ipmiRig {
	t.Helper()
	h := mock.New()
	g := &ipmiRig{chassis: h.Chassis().(*mock.Chassis), packets: map[byte]int{}}
	g.bmc = library.New(library.DeviceInfo{FirmwareMajor: 2, FirmwareMinor: 0x05, IPMIVersion: 0x20}, guid, hardware{h, g}, library.WithCipherSuites(suites))
	if _, err := g.bmc.Users.Add(2, "root"); err != nil {
		t.Fatal(err)
	}
	if err := g.bmc.Users.Update(2, func(u *library.User) error {
		u.SetPassword([]byte(password))
		u.Enabled = true
		u.ChannelAccess = map[uint8]library.UserChannelAccess{1: {MaxPrivilege: library.PrivilegeLevelAdministrator, Enabled: true}}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := server.NewServer(g.bmc, socket{conn, g})
	done := make(chan error, 1)
	go func() { done <- s.Serve(context.Background()) }()
	t.Cleanup(func() {
		_ = s.Close()
		<-done
	})
	if g.target.Address, err = ParseAddress("ipmi://" + conn.LocalAddr().String()); err != nil {
		t.Fatal(err)
	}
	g.target.Username, g.target.Password = "root", password
	return g
}

func (g *ipmiRig) dial(t *testing.T) *ipmi {
	t.Helper()
	c, err := Dial(t.Context(), g.target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(context.Background()); err != nil {
			t.Errorf("Close() = %v", err)
		}
		// One that was abandoned ends when its datagram arrives. One that was asked for twice, as a slow machine does, stays half
		// open until the BMC tires of it.
		half := g.met(types.PayloadTypeRmcpOpenSessionRequest) - g.met(types.PayloadTypeRAKPMessage1)
		left := g.bmc.Sessions.Count()
		for range 100 {
			if left <= half {
				return
			}
			time.Sleep(10 * time.Millisecond)
			left = g.bmc.Sessions.Count()
		}
		t.Errorf("%d sessions are left open", left)
	})
	return c.(*ipmi)
}

func TestIPMI(t *testing.T) {
	for _, suite := range []types.CipherSuiteID{types.CipherSuiteID17, types.CipherSuiteID3} {
		g := newIPMIRig(t, suite)
		c := g.dial(t)
		if got := c.session.Suite(); got != int(suite) {
			t.Errorf("suite %d is spoken, want %d", got, suite)
		}
		id, err := c.Identity(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(Identity{BMCVersion: "2.05"}, id); diff != "" { // this server knows no GUID and has no FRU; ipmi_sim has both
			t.Errorf("identity (-want +got):\n%s", diff)
		}
		for i, s := range []struct {
			action PowerAction
			want   PowerState
		}{{ForceOff, Off}, {PowerOn, On}, {PowerOn, On}, {ForceRestart, On}, {ForceOff, Off}, {ForceRestart, On}} {
			if err := c.Switch(t.Context(), s.action); err != nil {
				t.Fatalf("step %d: Switch(%s) = %v", i, s.action, err)
			}
			if got, err := c.Power(t.Context()); err != nil || got != s.want {
				t.Errorf("step %d, %s: power %s, %v; want %s", i, s.action, got, err, s.want)
			}
		}
		if n := g.chassis.ColdResets + g.chassis.WarmResets; n != 1 {
			t.Errorf("%d resets, want 1: a machine that is off is switched on", n)
		}
		for _, want := range []BootTarget{BootPXE, BootDisk, BootNone} {
			if err := c.SetOneTimeBoot(t.Context(), want); err != nil {
				t.Fatalf("SetOneTimeBoot(%s) = %v", want, err)
			}
			if got, err := c.OneTimeBoot(t.Context()); err != nil || got != want {
				t.Errorf("OneTimeBoot() = %s, %v; want %s", got, err, want)
			}
			if f := g.chassis.BootFlags; want != BootNone && (!bool(f.BIOSBootType) || f.Persist || !f.BootFlagsValid) {
				t.Errorf("%s: the flags are %+v, want valid, EFI, once", want, f)
			}
		}
		for _, bad := range []BootTarget{BootHTTP, BootOther, ""} {
			if err := c.SetOneTimeBoot(t.Context(), bad); !errors.Is(err, ErrNotSupported) {
				t.Errorf("SetOneTimeBoot(%q) = %v, want ErrNotSupported", bad, err)
			}
		}
		if got, err := c.NetworkBoot(t.Context()); err != nil || got != BootPXE {
			t.Errorf("NetworkBoot() = %s, %v; want PXE", got, err)
		}
	}
}

// TestIPMIRefused: a wrong password is proved wrong by the BMC's own message, before ours; it is one attempt, and stays one.
func TestIPMIRefused(t *testing.T) {
	for _, suite := range []types.CipherSuiteID{types.CipherSuiteID17, types.CipherSuiteID3} {
		g := newIPMIRig(t, suite)
		g.target.Password = "wrong"
		if _, err := Dial(t.Context(), g.target); !errors.Is(err, ErrCredentials) {
			t.Errorf("suite %d, wrong password: %v, want ErrCredentials", suite, err)
		}
		if n := g.met(types.PayloadTypeRAKPMessage1); n != 1 {
			t.Errorf("suite %d: %d attempts, want 1", suite, n)
		}
		g.target.Username, g.target.Password = "nobody", password
		if _, err := Dial(t.Context(), g.target); !errors.Is(err, ErrCredentials) {
			t.Errorf("suite %d, unknown user: %v, want ErrCredentials", suite, err)
		}
		g.target.Username, g.target.Password = "root", "a password that IPMI cannot hold"
		if _, err := Dial(t.Context(), g.target); !errors.Is(err, ErrCredentials) {
			t.Errorf("suite %d, long password: %v, want ErrCredentials", suite, err)
		}
		if n := g.met(types.PayloadTypeRAKPMessage1); n != 2 {
			t.Errorf("suite %d: %d attempts in all, want 2", suite, n)
		}
	}
}

func TestIPMIWeakSuites(t *testing.T) {
	g := newIPMIRig(t, types.CipherSuiteID17)
	for _, answer := range []struct {
		name                     string
		auth, integrity, secrecy byte
	}{{"cipher 0", 0, 0, 0}, {"cipher 1", 1, 0, 0}, {"cipher 2", 1, 1, 0}, {"cipher 6", 2, 0, 0}, {"suite 17 without encryption", 3, 4, 0}, {"suite 3 for 17", 1, 1, 1}} {
		g.set(func(g *ipmiRig) {
			g.spoil = func(p []byte) []byte {
				if p[5] == byte(types.PayloadTypeRmcpOpenSessionResponse) && len(p) == 16+36 {
					p[16+16], p[16+24], p[16+32] = answer.auth, answer.integrity, answer.secrecy
				}
				return p
			}
		})
		if _, err := Dial(t.Context(), g.target); !errors.Is(err, ErrNotSupported) {
			t.Errorf("%s: Dial() = %v, want ErrNotSupported", answer.name, err)
		}
	}
	if n := g.met(types.PayloadTypeRAKPMessage1); n != 0 {
		t.Errorf("%d attempts with the password, want none", n)
	}
	g.set(func(g *ipmiRig) {
		g.spoil = func(p []byte) []byte { // no suite at all is known
			if p[5] == byte(types.PayloadTypeRmcpOpenSessionResponse) {
				p = p[:16+8]
				p[14], p[15], p[17] = 8, 0, 0x11
			}
			return p
		}
	})
	if _, err := Dial(t.Context(), g.target); !errors.Is(err, ErrNotSupported) {
		t.Errorf("no suite in common: Dial() = %v, want ErrNotSupported", err)
	}
}

// TestIPMISpoilt: whatever is wrong with an answer, it is an error in time, and never a panic.
func TestIPMISpoilt(t *testing.T) {
	for name, spoil := range map[string]func([]byte) []byte{
		"nothing":      func([]byte) []byte { return nil },
		"one byte":     func(p []byte) []byte { return p[:1] },
		"header only":  func(p []byte) []byte { return p[:16] },
		"cut":          func(p []byte) []byte { return p[:len(p)-1] },
		"long":         func(p []byte) []byte { return append(p, make([]byte, 3000)...) },
		"bit":          func(p []byte) []byte { p[len(p)-1] ^= 1; return p },
		"length":       func(p []byte) []byte { p[14], p[15] = 0xff, 0xff; return p },
		"short length": func(p []byte) []byte { p[14], p[15] = 1, 0; return p },
		"no flags":     func(p []byte) []byte { p[5] &= 0x3f; return p },
		"garbage": func(p []byte) []byte {
			for i := 4; i < len(p); i++ {
				p[i] = byte(i * 37)
			}
			return p
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newIPMIRig(t, types.CipherSuiteID17)
			c, err := Dial(t.Context(), g.target)
			if err != nil {
				t.Fatal(err)
			}
			g.set(func(g *ipmiRig) { g.spoil = spoil })
			if got, err := c.Power(soon(t)); err == nil {
				t.Errorf("Power() = %s, want an error", got)
			}
			if _, err := Dial(soon(t), g.target); err == nil && name != "no flags" && name != "long" {
				t.Error("Dial() = nil, want an error") // a handshake has no flags, and its answers may be longer than they need be
			}
			g.set(func(g *ipmiRig) { g.spoil = nil })
			if got, err := c.Power(t.Context()); err != nil || got != Off {
				t.Errorf("afterwards: Power() = %s, %v; want Off", got, err)
			}
		})
	}
}

// TestIPMIReplay: an answer of yesterday is no answer.
func TestIPMIReplay(t *testing.T) {
	g := newIPMIRig(t, types.CipherSuiteID17)
	c := g.dial(t)
	var first []byte
	g.set(func(g *ipmiRig) {
		g.spoil = func(p []byte) []byte {
			if first == nil {
				first = p
			}
			return p
		}
	})
	if _, err := c.Power(t.Context()); err != nil {
		t.Fatal(err)
	}
	// 63 requests later the request number is the same again, so only the session's sequence number tells.
	for range 62 {
		if _, err := c.Power(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	replay := first
	g.set(func(g *ipmiRig) { g.spoil = func([]byte) []byte { return replay } })
	if got, err := c.Power(soon(t)); err == nil {
		t.Errorf("an old answer was accepted: %s", got)
	}
	g.set(func(g *ipmiRig) { g.spoil = nil })
}

// TestIPMIHangs: a BMC that says nothing holds nobody longer than the context and a moment.
func TestIPMIHangs(t *testing.T) {
	g := newIPMIRig(t, types.CipherSuiteID17)
	c, err := Dial(t.Context(), g.target)
	if err != nil {
		t.Fatal(err)
	}
	g.set(func(g *ipmiRig) { g.hold = true })
	began := time.Now()
	var waiting sync.WaitGroup
	for range 3 { // the second and third wait for the first
		waiting.Go(func() {
			if _, err := c.Power(soon(t)); !errors.Is(err, ErrUnreachable) {
				t.Errorf("Power() = %v, want ErrUnreachable", err)
			}
		})
	}
	waiting.Wait()
	if n := g.met(types.PayloadTypeIPMI); n > 4 { // one to rise, and one a call
		t.Errorf("%d commands were sent within a second, want no storm", n)
	}
	if _, err := Dial(soon(t), g.target); !errors.Is(err, ErrUnreachable) {
		t.Errorf("Dial() = %v, want ErrUnreachable", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := c.Power(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnreachable) {
		t.Errorf("cancelled: Power() = %v, want context.Canceled and nothing said of the BMC", err)
	}
	if err := c.Close(soon(t)); !errors.Is(err, ErrUnreachable) {
		t.Errorf("Close() = %v, want ErrUnreachable", err)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %s", took)
	}
	if _, err := c.Power(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v, want ErrClosed", err)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Errorf("closing twice: %v", err)
	}
}

// TestIPMIForgotten: a BMC that restarted knows the session no more. A new one is opened, by itself.
func TestIPMIForgotten(t *testing.T) {
	g := newIPMIRig(t, types.CipherSuiteID17)
	c := g.dial(t)
	c.used = time.Now().Add(-time.Hour)
	if got, err := c.Power(t.Context()); err != nil || got != Off {
		t.Errorf("after an hour: Power() = %s, %v; want Off", got, err)
	}
	if n := g.met(types.PayloadTypeRAKPMessage1); n != 2 {
		t.Errorf("%d logins, want 2", n)
	}
	// The password was changed meanwhile: one attempt, and no other on this connection.
	if err := g.bmc.Users.Update(2, func(u *library.User) error { u.SetPassword([]byte("other")); return nil }); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		c.used = time.Now().Add(-time.Hour)
		if _, err := c.Power(t.Context()); !errors.Is(err, ErrCredentials) {
			t.Errorf("Power() = %v, want ErrCredentials", err)
		}
	}
	if n := g.met(types.PayloadTypeRAKPMessage1); n != 3 {
		t.Errorf("%d logins, want 3", n)
	}
}

func TestBootFlags(t *testing.T) {
	pxe, disk, none := types.BootDeviceSelectorForcePXE, types.BootDeviceSelectorForceHardDrive, types.BootDeviceSelectorNoOverride
	for _, tt := range []struct {
		name  string
		flags bootFlags
		mute  bool
		want  BootTarget
	}{
		{"valid", bootFlags{valid: true, device: pxe}, false, BootPXE},
		{"disk", bootFlags{valid: true, device: disk}, false, BootDisk},
		{"consumed", bootFlags{device: pxe}, false, BootNone},
		{"dropped, with its EFI bit left", bootFlags{device: pxe}, true, BootNone},
		{"bare", bootFlags{device: pxe, bare: true}, false, BootNone},
		{"bare, of a BMC that shows no more", bootFlags{device: pxe, bare: true}, true, BootPXE},
		{"none", bootFlags{valid: true, device: none}, false, BootNone},
		{"for ever", bootFlags{valid: true, persist: true, device: pxe}, false, BootOther},
		{"setup", bootFlags{valid: true, device: types.BootDeviceSelectorForceBIOSSetup}, false, BootOther},
	} {
		if got := tt.flags.target(tt.mute); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}

// TestIPMINotKept: flags that come back without their valid bit, or not at all, were not kept.
func TestIPMINotKept(t *testing.T) {
	g := newIPMIRig(t, types.CipherSuiteID17)
	c := g.dial(t)
	g.forgets.Store(true)
	if err := c.SetOneTimeBoot(t.Context(), BootDisk); !errors.Is(err, ErrNotKept) {
		t.Errorf("SetOneTimeBoot() = %v, want ErrNotKept", err)
	}
}

func TestSystemUUID(t *testing.T) {
	const printed = "6d6574a1-0001-4002-8003-0000000000a5"
	for i, order := range uuidOrders {
		var raw [16]byte
		text := [16]byte{0x6d, 0x65, 0x74, 0xa1, 0x00, 0x01, 0x40, 0x02, 0x80, 0x03, 0, 0, 0, 0, 0, 0xa5}
		for at, from := range order {
			raw[from] = text[at]
		}
		if got := systemUUID(raw); got != printed {
			t.Errorf("order %d: got %s, want %s", i, got, printed)
		}
	}
	var zero, ones [16]byte
	for i := range ones {
		ones[i] = 0xff
	}
	for _, raw := range [][16]byte{zero, ones} {
		if got := systemUUID(raw); got != "" {
			t.Errorf("%x: got %q, want none", raw, got)
		}
	}
	if !SameUUID("a174656d-0100-0240-8003-0000000000a5", printed) || !SameUUID("a5000000-0000-0380-0240-0100a174656d", printed) || !SameUUID(printed, printed) {
		t.Error("a UUID in another byte order is taken for another")
	}
	if SameUUID(printed, "6d6574a1-0001-4002-8003-0000000000a6") || SameUUID("", "") || SameUUID(printed, "") {
		t.Error("different UUIDs are taken for the same")
	}
}
