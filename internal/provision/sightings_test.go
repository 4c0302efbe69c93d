// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/pxe"
)

func TestStrangersBecomeSightings(t *testing.T) {
	inWorld(t, func(w *world) {
		time.Sleep(time.Second)
		mac, _ := net.ParseMAC("52:54:00:99:00:01")
		stranger := pxe.Machine{MAC: mac, Client: pxe.HTTPClient, Interface: "br0"}
		if _, known := w.mind.Load().Boot(stranger); known {
			t.Error("a stranger was answered")
		}
		w.mind.Load().Seen(stranger, "asked for an address by DHCP as HTTPClient (EFI x86-64) on br0")
		w.mind.Load().Stranger(v1alpha1.Hello{BootMAC: "52:54:00:99:00:02", AgentVersion: "v1"}, netip.MustParseAddr("172.22.0.7"))
		time.Sleep(time.Minute)
		w.mind.Load().Seen(stranger, "asked again")
		time.Sleep(time.Second)
		for name, want := range map[string]string{
			"boot-52-54-00-99-00-01":  "br0 52:54:00:99:00:01 asked again 2",
			"agent-52-54-00-99-00-02": "172.22.0.7 52:54:00:99:00:02 agent v1 1",
		} {
			s, err := w.store.Sightings().Get(context.Background(), "", name)
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(s.Status.Address, " ", s.Status.MAC, " ", s.Status.Said, " ", s.Status.Count); got != want {
				t.Errorf("%s: got %q, want %q", name, got, want)
			}
		}
	})
}

func TestFloodOfStrangersIsBounded(t *testing.T) {
	inWorld(t, func(w *world) {
		time.Sleep(time.Second)
		for n := range 3 * keptSightings {
			mac := net.HardwareAddr{0x02, 0, 0, 0, byte(n >> 8), byte(n)}
			w.mind.Load().Seen(pxe.Machine{MAC: mac}, "flood")
			time.Sleep(60 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		list, err := w.store.Sightings().List(context.Background(), "")
		if err != nil {
			t.Fatal(err)
		}
		if len(list) > keptSightings || len(list) < keptSightings/2 {
			t.Errorf("%d strangers are kept, want at most %d and not none", len(list), keptSightings)
		}
		time.Sleep(sightingLife + 2*time.Hour)
		if list, err = w.store.Sightings().List(context.Background(), ""); err != nil || len(list) != 0 {
			t.Errorf("%d strangers are remembered for ever: %v", len(list), err)
		}
	})
}
