// SPDX-License-Identifier: Apache-2.0

package pxe_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"metald.io/metald/internal/pxe"
	"metald.io/metald/internal/pxe/pxetest"
)

var (
	host1    = net.HardwareAddr{0x52, 0x54, 0, 0, 0, 1}
	stranger = netip.MustParseAddr("172.22.0.7")
)

// once is an agent that asks a single time.
func once(h *bench) *pxetest.Client {
	c := pxetest.Agent(h.segment, host1)
	c.Retries = []time.Duration{time.Second}
	return c
}

func oneHost() policy { return policy{host1.String(): {Host: "h1"}} }

// leased is a book with one lease of host1 that was saved so long ago.
func leased(ago time.Duration, iface string) *book {
	l := pxe.Lease{Interface: iface, MAC: host1.String(), IP: "172.22.0.150", Host: "h1", Expires: time.Now().Add(subnet().LeaseTime - ago)}
	return &book{leases: map[string]pxe.Lease{l.Key(): l}}
}

// A start waits until three probes are unanswered; a restart within the hour does not, but for the same interface only, and the
// probe behind it still closes the interface.
func TestGuardedStart(t *testing.T) {
	for _, c := range []struct {
		name            string
		book            func() *book
		foreign, beside bool
		at0, at7        bool // answered at once, answered after the probes
	}{
		{"first start", func() *book { return leased(0, "br1") }, false, false, false, true},
		{"first start beside another", func() *book { return leased(0, "br1") }, true, false, false, false},
		{"restart", func() *book { return leased(59*time.Minute, "br0") }, false, false, true, true},
		{"restart after an hour", func() *book { return leased(61*time.Minute, "br0") }, false, false, false, true},
		{"restart, and another came meanwhile", func() *book { return leased(time.Minute, "br0") }, true, false, false, false},
		{"a lease from a clock that was ahead", func() *book { return leased(-time.Hour, "br0") }, false, false, false, true},
		{"beside another by a person's word", func() *book { return leased(0, "br1") }, true, true, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newBench(t, subnet(), oneHost(), c.book(), guarded(c.beside), func(h *bench) { h.segment.Foreign(stranger, c.foreign) })
				synctest.Wait()
				answered := func() bool {
					h.segment.Foreign(stranger, false) // it must not answer this machine: silence or not is ours alone
					_, err := once(h).Reboot(t.Context(), netip.MustParseAddr("172.22.0.150"))
					h.segment.Foreign(stranger, c.foreign)
					return err == nil
				}
				if got := answered(); got != c.at0 {
					t.Errorf("answered at once: got %v, want %v", got, c.at0)
				}
				time.Sleep(7 * time.Second)
				if got := answered(); got != c.at7 {
					t.Errorf("answered after the probes: got %v, want %v", got, c.at7)
				}
				if got := len(h.lookout.all()) > 0; got != c.foreign {
					t.Errorf("the other server is a sighting: got %v, want %v", got, c.foreign)
				}
			})
		})
	}
}

// Another server that only answers its own machines is found by the answers that it broadcasts, at once; it is told once.
func TestGuardHears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBench(t, subnet(), oneHost(), leased(0, "br0"), guarded(false))
		time.Sleep(10 * time.Second)
		if _, err := once(h).Lease(t.Context()); err != nil {
			t.Fatalf("alone: %v", err)
		}
		h.segment.Foreign(stranger, true)
		other := pxetest.System(h.segment, net.HardwareAddr{2, 0, 0, 0, 0, 9}, "")
		other.Retries = []time.Duration{time.Second}
		for range 3 { // its request goes to a server that only offers: silence is what the segment gives it
			if _, err := other.Lease(t.Context()); !errors.Is(err, pxetest.ErrSilence) {
				t.Fatalf("other machine: got %v, want %v", err, pxetest.ErrSilence)
			}
		}
		if _, err := once(h).Lease(t.Context()); !errors.Is(err, pxetest.ErrSilence) {
			t.Errorf("beside another: got %v, want %v", err, pxetest.ErrSilence)
		}
		if err := h.stop(); err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(h.log.String(), "another DHCP server answers here"); got != 1 {
			t.Errorf("got %d lines about it, want 1:\n%s", got, h.log)
		}
	})
}

// brokenWire is an interface that is down.
type brokenWire struct{ *pxetest.Wire }

func (brokenWire) Broadcast([]byte) error { return errors.New("network is down") }

func (brokenWire) Hear(context.Context, []byte) (int, net.HardwareAddr, netip.Addr, error) {
	return 0, nil, netip.Addr{}, errors.New("network is down")
}

// Who cannot look does not open, and ends with its context all the same.
func TestGuardThatCannotLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBench(t, subnet(), oneHost(), leased(0, "br1"), func(h *bench) { h.Guard(brokenWire{h.segment.Wire()}, false) })
		time.Sleep(time.Minute)
		if _, err := once(h).Lease(t.Context()); !errors.Is(err, pxetest.ErrSilence) {
			t.Errorf("got %v, want %v", err, pxetest.ErrSilence)
		}
		if err := h.stop(); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(h.log.String(), "cannot look for other DHCP servers") {
			t.Errorf("the log does not say why:\n%s", h.log)
		}
	})
}
