// SPDX-License-Identifier: Apache-2.0

package network

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/insomniacslk/dhcp/dhcpv4"
)

var mac = net.HardwareAddr{0x52, 0x54, 0, 0xaa, 0, 1}

// ack is a metald's acknowledgement, changed by modifiers.
func ack(t *testing.T, modifiers ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	t.Helper()
	p, err := dhcpv4.New(append([]dhcpv4.Modifier{
		dhcpv4.WithHwAddr(mac),
		dhcpv4.WithMessageType(dhcpv4.MessageTypeAck),
		dhcpv4.WithYourIP(net.IPv4(172, 22, 0, 100)),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(172, 22, 0, 1))),
		dhcpv4.WithOption(dhcpv4.OptSubnetMask(net.CIDRMask(24, 32))),
		dhcpv4.WithOption(dhcpv4.OptIPAddressLeaseTime(time.Hour)),
		dhcpv4.WithOption(dhcpv4.OptGeneric(bootURLOption, []byte("http://172.22.0.1:80/"))),
		dhcpv4.WithOption(dhcpv4.OptGeneric(agentURLOption, []byte("https://172.22.0.1:8443"))),
	}, modifiers...)...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestLease(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	plain := Lease{
		Device: "eth0", MAC: mac, Address: netip.MustParsePrefix("172.22.0.100/24"), Server: netip.MustParseAddr("172.22.0.1"),
		BootURL: "http://172.22.0.1:80", AgentURL: "https://172.22.0.1:8443", Renew: now.Add(30 * time.Minute), Expires: now.Add(time.Hour),
	}
	full := plain
	full.Router, full.DNS, full.Hostname = netip.MustParseAddr("172.22.0.254"), []netip.Addr{netip.MustParseAddr("172.22.0.2")}, "r1n01"
	full.Renew = now.Add(10 * time.Minute)
	alone := plain
	alone.AgentURL = ""
	for _, test := range []struct {
		name string
		p    *dhcpv4.DHCPv4
		want Lease
		err  string
	}{
		{"plain", ack(t), plain, ""},
		{"full", ack(t, dhcpv4.WithRouter(net.IPv4(172, 22, 0, 254)), dhcpv4.WithDNS(net.IPv4(172, 22, 0, 2)),
			dhcpv4.WithOption(dhcpv4.OptHostName("r1n01")), dhcpv4.WithOption(dhcpv4.OptRenewTimeValue(10*time.Minute))), full, ""},
		{"no daemon", ack(t, dhcpv4.WithoutOption(agentURLOption)), alone, ""},
		{"renewal after the end", ack(t, dhcpv4.WithOption(dhcpv4.OptRenewTimeValue(2*time.Hour))), plain, ""},
		{"no address", ack(t, dhcpv4.WithYourIP(net.IPv4zero)), Lease{}, "no address"},
		{"no mask", ack(t, dhcpv4.WithoutOption(dhcpv4.OptionSubnetMask)), Lease{}, "mask"},
		{"no time", ack(t, dhcpv4.WithoutOption(dhcpv4.OptionIPAddressLeaseTime)), Lease{}, "lease time"},
		{"agents' endpoint without TLS", ack(t, dhcpv4.WithOption(dhcpv4.OptGeneric(agentURLOption, []byte("http://172.22.0.1:8443")))),
			Lease{}, "no https URL"},
		{"boot URL that is none", ack(t, dhcpv4.WithOption(dhcpv4.OptGeneric(bootURLOption, []byte("172.22.0.1")))), Lease{}, "no http URL"},
		{"boot URL with a user", ack(t, dhcpv4.WithOption(dhcpv4.OptGeneric(bootURLOption, []byte("http://me@172.22.0.1")))), Lease{}, "no http URL"},
	} {
		got, err := leaseOf("eth0", test.p, now)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%s: got error %v, want %q", test.name, err, test.err)
			}
			continue
		}
		if diff := cmp.Diff(test.want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", test.name, err, diff)
		}
	}
}

func TestOthersOffersAreNotOurs(t *testing.T) {
	if !ours(ack(t)) {
		t.Error("a metald's answer is not taken for one")
	}
	if ours(ack(t, dhcpv4.WithoutOption(bootURLOption))) {
		t.Error("an answer without option 224 is taken for a metald's")
	}
}

func TestMachineIdentifier(t *testing.T) {
	want := []byte{0, 0x4f, 0x3e, 0x2d, 0x1c, 0xbb, 0xaa, 0xdd, 0xcc, 0xee, 0xff, 0, 1, 2, 3, 4, 5}
	if diff := cmp.Diff(want, machineIdentifier("1c2d3e4f-aabb-ccdd-eeff-000102030405")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, text := range []string{"", "1c2d3e4f", "not-a-uuid"} {
		if got := machineIdentifier(text); got != nil {
			t.Errorf("%q gave %x", text, got)
		}
	}
	p, err := dhcpv4.NewDiscovery(mac, request("1c2d3e4f-aabb-ccdd-eeff-000102030405")...)
	if err != nil {
		t.Fatal(err)
	}
	if p.ClassIdentifier() != "metald-agent" || !p.IsOptionRequested(bootURLOption) || !p.IsOptionRequested(agentURLOption) {
		t.Errorf("the request says %s", p.Summary())
	}
}
