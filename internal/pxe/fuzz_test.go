// SPDX-License-Identifier: Apache-2.0

package pxe

import (
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// FuzzDecide reads any packet as the server does, decides and applies. What goes out must parse again, go to the local
// network, and name an address that is given out; what is saved must be the sender's.
func FuzzDecide(f *testing.F) {
	f.Add(packet(f, dhcpv4.MessageTypeDiscover, dhcpv4.WithOption(dhcpv4.OptClassIdentifier("HTTPClient:Arch:00016"))).ToBytes())
	f.Add(packet(f, dhcpv4.MessageTypeRequest, chosen("10.0.0.1"), requested("10.0.0.4")).ToBytes())
	f.Add(packet(f, dhcpv4.MessageTypeInform, from("10.0.0.6")).ToBytes())
	f.Add(packet(f, dhcpv4.MessageTypeRequest, requested("10.0.0.4"), with(60, "PXEClient:Arch:00007:UNDI:003001"), with(77, "iPXE")).ToBytes())
	served := small
	served.Loaders = map[string]string{"amd64": "amd64/snponly.efi"}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := dhcpv4.FromBytes(b)
		if err != nil {
			return
		}
		leases := NewLeases(lease("02:00:00:00:00:02", "10.0.0.3", 1), lease("02:00:00:00:00:03", "10.0.0.4", -1))
		m := machineOf(p, "br0")
		d := Decide(p, leases, m, &Answer{Host: "h", Hostname: m.Hostname, Digest: digest, File: "a.efi"}, served, noon)
		leases.Apply(d, noon)
		if d.Save != nil && (d.Save.MAC != p.ClientHWAddr.String() || !small.gives(address(*d.Save))) {
			t.Errorf("saved %+v for %s", d.Save, p.ClientHWAddr)
		}
		if d.Reply == nil {
			return
		}
		if d.To.Addr() != broadcast && !small.Prefix.Contains(d.To.Addr()) {
			t.Errorf("answer goes to %s", d.To)
		}
		r, err := dhcpv4.FromBytes(d.Reply.ToBytes())
		if err != nil {
			t.Fatalf("answer does not parse: %v", err)
		}
		if your := ip4(r.YourIPAddr); !your.IsUnspecified() && !small.gives(your) {
			t.Errorf("answer gives %s", your)
		}
		if len(leases.byMAC) != len(leases.byIP) || len(leases.offers) != len(leases.offeredTo) {
			t.Errorf("leases by MAC and by address differ: %v, %v, %v, %v", leases.byMAC, leases.byIP, leases.offers, leases.offeredTo)
		}
	})
}
