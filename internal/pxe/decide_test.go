// SPDX-License-Identifier: Apache-2.0

package pxe

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

var (
	noon   = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	mac1   = net.HardwareAddr{0x52, 0x54, 0, 0, 0, 1}
	small  = Subnet{Interface: "br0", Server: ip("10.0.0.1"), Prefix: netip.MustParsePrefix("10.0.0.0/29"), First: ip("10.0.0.0"), Last: ip("10.0.0.7"), Router: ip("10.0.0.2"), LeaseTime: time.Hour, BootURL: "http://10.0.0.1", AgentURL: "https://10.0.0.1:8443"}
	digest = strings.Repeat("ab", 32)
)

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

func lease(mac, addr string, left time.Duration) Lease {
	return Lease{Interface: "br0", MAC: mac, IP: addr, Host: "h", Expires: noon.Add(left)}
}

func packet(t testing.TB, mt dhcpv4.MessageType, mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	t.Helper()
	p, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(mac1), dhcpv4.WithMessageType(mt)}, mods...)...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func requested(s string) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(ip(s).AsSlice()))
}

func chosen(s string) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptServerIdentifier(ip(s).AsSlice()))
}

func from(s string) dhcpv4.Modifier { return dhcpv4.WithClientIP(ip(s).AsSlice()) }

// The subnet has six host addresses, of which the server and the router take two: 10.0.0.3 to 10.0.0.6 are given out.
func TestDecide(t *testing.T) {
	mine := lease(mac1.String(), "10.0.0.4", time.Minute)
	for _, c := range []struct {
		name   string
		packet *dhcpv4.DHCPv4
		leases []Lease
		offers []Lease
		want   string // type of reply, address, destination, lease saved, lease removed; or the silence
	}{
		{"discover, sticky", packet(t, dhcpv4.MessageTypeDiscover), []Lease{mine}, nil, "OFFER 10.0.0.4 to 255.255.255.255:68"},
		{"discover, sticky after its end", packet(t, dhcpv4.MessageTypeDiscover), []Lease{lease(mac1.String(), "10.0.0.4", -time.Hour)}, nil, "OFFER 10.0.0.4 to 255.255.255.255:68"},
		{"discover, address outside of the range now", packet(t, dhcpv4.MessageTypeDiscover), []Lease{lease(mac1.String(), "10.0.0.2", time.Hour), lease("b", "10.0.0.3", time.Hour), lease("c", "10.0.0.4", time.Hour), lease("d", "10.0.0.5", time.Hour)}, nil, "OFFER 10.0.0.6 to 255.255.255.255:68"},
		{"discover, all taken", packet(t, dhcpv4.MessageTypeDiscover), []Lease{lease("a", "10.0.0.3", time.Hour), lease("b", "10.0.0.4", time.Hour), lease("c", "10.0.0.5", time.Hour), lease("d", "10.0.0.6", time.Hour)}, nil, "silence: no free address"},
		{"discover, last one on offer", packet(t, dhcpv4.MessageTypeDiscover), []Lease{lease("a", "10.0.0.3", time.Hour), lease("b", "10.0.0.4", time.Hour), lease("c", "10.0.0.5", time.Hour)}, []Lease{lease("d", "10.0.0.6", time.Second)}, "silence: no free address"},
		{"discover, last one was on offer", packet(t, dhcpv4.MessageTypeDiscover), []Lease{lease("a", "10.0.0.3", time.Hour), lease("b", "10.0.0.4", time.Hour), lease("c", "10.0.0.5", time.Hour)}, []Lease{lease("d", "10.0.0.6", 0)}, "OFFER 10.0.0.6 to 255.255.255.255:68"},
		{"discover, oldest ended one", packet(t, dhcpv4.MessageTypeDiscover), []Lease{lease("a", "10.0.0.3", -time.Hour), lease("b", "10.0.0.4", -2*time.Hour), lease("c", "10.0.0.5", time.Hour), lease("d", "10.0.0.6", time.Hour)}, nil, "OFFER 10.0.0.4 to 255.255.255.255:68"},
		{"discover, oldest ended one is on offer", packet(t, dhcpv4.MessageTypeDiscover), []Lease{lease("a", "10.0.0.3", -time.Hour), lease("b", "10.0.0.4", -2*time.Hour), lease("c", "10.0.0.5", time.Hour), lease("d", "10.0.0.6", time.Hour)}, []Lease{lease("e", "10.0.0.4", time.Second)}, "OFFER 10.0.0.3 to 255.255.255.255:68"},
		{"discover by relay", packet(t, dhcpv4.MessageTypeDiscover, dhcpv4.WithRelay(ip("10.0.0.2").AsSlice())), []Lease{mine}, nil, "OFFER 10.0.0.4 to 10.0.0.2:67"},
		{"discover by another network's relay", packet(t, dhcpv4.MessageTypeDiscover, dhcpv4.WithRelay(ip("10.9.0.2").AsSlice())), []Lease{mine}, nil, "silence: relayed from another network"},
		{"request, selecting", packet(t, dhcpv4.MessageTypeRequest, chosen("10.0.0.1"), requested("10.0.0.4")), []Lease{mine}, nil, "ACK 10.0.0.4 to 255.255.255.255:68 saves 10.0.0.4"},
		{"request, selecting what ended for another", packet(t, dhcpv4.MessageTypeRequest, chosen("10.0.0.1"), requested("10.0.0.4")), []Lease{lease("a", "10.0.0.3", -time.Hour), lease("b", "10.0.0.4", -2*time.Hour), lease("c", "10.0.0.5", time.Hour), lease("d", "10.0.0.6", time.Hour)}, []Lease{lease(mac1.String(), "10.0.0.4", time.Second)}, "ACK 10.0.0.4 to 255.255.255.255:68 saves 10.0.0.4 removes 10.0.0.4 of b"},
		{"request, selecting another server", packet(t, dhcpv4.MessageTypeRequest, chosen("10.0.0.6"), requested("10.0.0.4")), []Lease{mine}, nil, "silence: chose another server"},
		{"request, selecting what another holds", packet(t, dhcpv4.MessageTypeRequest, chosen("10.0.0.1"), requested("10.0.0.5")), []Lease{lease("c", "10.0.0.5", time.Hour)}, nil, "NAK 0.0.0.0 to 255.255.255.255:68"},
		{"request, selecting the server's own address", packet(t, dhcpv4.MessageTypeRequest, chosen("10.0.0.1"), requested("10.0.0.1")), nil, nil, "NAK 0.0.0.0 to 255.255.255.255:68"},
		{"request, selecting the broadcast address", packet(t, dhcpv4.MessageTypeRequest, chosen("10.0.0.1"), requested("10.0.0.7")), nil, nil, "NAK 0.0.0.0 to 255.255.255.255:68"},
		{"request, after a restart that forgot the offer", packet(t, dhcpv4.MessageTypeRequest, chosen("10.0.0.1"), requested("10.0.0.5")), nil, nil, "ACK 10.0.0.5 to 255.255.255.255:68 saves 10.0.0.5"},
		{"request, reboot", packet(t, dhcpv4.MessageTypeRequest, requested("10.0.0.4")), []Lease{mine}, nil, "ACK 10.0.0.4 to 255.255.255.255:68 saves 10.0.0.4"},
		{"request, reboot from another network", packet(t, dhcpv4.MessageTypeRequest, requested("192.168.1.4")), []Lease{mine}, nil, "NAK 0.0.0.0 to 255.255.255.255:68"},
		{"request, renewing", packet(t, dhcpv4.MessageTypeRequest, from("10.0.0.4")), []Lease{mine}, nil, "ACK 10.0.0.4 to 10.0.0.4:68 saves 10.0.0.4 renewal"},
		{"request, renewing another's", packet(t, dhcpv4.MessageTypeRequest, from("10.0.0.5")), []Lease{mine, lease("c", "10.0.0.5", time.Hour)}, nil, "NAK 0.0.0.0 to 255.255.255.255:68"},
		{"request, renewing what we lost", packet(t, dhcpv4.MessageTypeRequest, from("10.0.0.5")), nil, nil, "ACK 10.0.0.5 to 10.0.0.5:68 saves 10.0.0.5"},
		{"request for nothing", packet(t, dhcpv4.MessageTypeRequest), []Lease{mine}, nil, "silence: asked for no address"},
		{"refusal by relay", packet(t, dhcpv4.MessageTypeRequest, requested("192.168.1.4"), dhcpv4.WithRelay(ip("10.0.0.2").AsSlice())), []Lease{mine}, nil, "NAK 0.0.0.0 to 10.0.0.2:67"},
		{"release", packet(t, dhcpv4.MessageTypeRelease, chosen("10.0.0.1"), from("10.0.0.4")), []Lease{mine}, nil, "no reply saves 10.0.0.4 ended"},
		{"release of another's", packet(t, dhcpv4.MessageTypeRelease, chosen("10.0.0.1"), from("10.0.0.5")), []Lease{mine, lease("c", "10.0.0.5", time.Hour)}, nil, "silence: released what it does not hold"},
		{"release to another server", packet(t, dhcpv4.MessageTypeRelease, chosen("10.0.0.6"), from("10.0.0.4")), []Lease{mine}, nil, "silence: released what it does not hold"},
		{"decline", packet(t, dhcpv4.MessageTypeDecline, chosen("10.0.0.1"), requested("10.0.0.4")), []Lease{mine}, nil, "no reply removes 10.0.0.4 of 52:54:00:00:00:01"},
		{"decline of another's", packet(t, dhcpv4.MessageTypeDecline, chosen("10.0.0.1"), requested("10.0.0.5")), []Lease{mine, lease("c", "10.0.0.5", time.Hour)}, nil, "silence: declined what it does not hold"},
		{"inform", packet(t, dhcpv4.MessageTypeInform, from("10.0.0.6")), nil, nil, "ACK 0.0.0.0 to 10.0.0.6:68"},
		{"inform from anywhere", packet(t, dhcpv4.MessageTypeInform, from("8.8.8.8")), nil, nil, "silence: informed from another network"},
		{"an answer", packet(t, dhcpv4.MessageTypeDiscover, func(p *dhcpv4.DHCPv4) { p.OpCode = dhcpv4.OpcodeBootReply }), []Lease{mine}, nil, "silence: not a request from an Ethernet machine"},
		{"a long hardware address", packet(t, dhcpv4.MessageTypeDiscover, dhcpv4.WithHwAddr(make(net.HardwareAddr, 8))), nil, nil, "silence: not a request from an Ethernet machine"},
		{"BOOTP", packet(t, dhcpv4.MessageTypeNone), []Lease{mine}, nil, "silence: no message that a server answers"},
	} {
		t.Run(c.name, func(t *testing.T) {
			leases := NewLeases(c.leases...)
			for _, o := range c.offers {
				leases.Apply(Decision{Offer: &o}, noon)
			}
			before := leases.All()
			d := Decide(c.packet, leases, machineOf(c.packet, "br0"), &Answer{Host: "h"}, small, noon)
			if got := summary(d); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if diff := cmp.Diff(before, leases.All()); diff != "" {
				t.Errorf("Decide changed the leases:\n%s", diff)
			}
		})
	}
}

func summary(d Decision) string {
	var b strings.Builder
	switch {
	case d.Reply != nil:
		fmt.Fprintf(&b, "%s %s to %s", d.Reply.MessageType(), d.Reply.YourIPAddr, d.To)
	case d.Save != nil || d.Remove != nil:
		b.WriteString("no reply")
	default:
		return "silence: " + d.Why
	}
	if d.Save != nil {
		fmt.Fprintf(&b, " saves %s", d.Save.IP)
		if !d.Save.Expires.After(noon) {
			b.WriteString(" ended")
		}
	}
	if d.Remove != nil {
		fmt.Fprintf(&b, " removes %s of %s", d.Remove.IP, d.Remove.MAC)
	}
	if d.Renewal {
		b.WriteString(" renewal")
	}
	return b.String()
}

// The whole reply to firmware that boots over HTTP, option by option.
func TestHTTPBootReply(t *testing.T) {
	p := packet(t, dhcpv4.MessageTypeRequest, chosen("10.0.0.1"), requested("10.0.0.4"), dhcpv4.WithBroadcast(true),
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("HTTPClient:Arch:00016:UNDI:003001")), dhcpv4.WithOption(dhcpv4.OptClientArch(iana.EFI_X86_64_HTTP)),
		dhcpv4.WithGeneric(dhcpv4.OptionClientIdentifier, []byte{1, 2}), dhcpv4.WithGeneric(dhcpv4.OptionRelayAgentInformation, []byte{1, 1, 9}))
	s := small
	s.DNS = []netip.Addr{ip("10.0.0.1")}
	d := Decide(p, NewLeases(), machineOf(p, "br0"), &Answer{Host: "h1", Hostname: "h1.example", Digest: digest, File: "ramdisk.efi"}, s, noon)
	if d.Reply == nil {
		t.Fatalf("got silence: %s", d.Why)
	}
	r, err := dhcpv4.FromBytes(d.Reply.ToBytes())
	if err != nil {
		t.Fatal(err)
	}
	url := "http://10.0.0.1/boot/" + digest + "/ramdisk.efi"
	want := map[uint8]string{
		1: "\xff\xff\xff\xf8", 3: "\n\x00\x00\x02", 6: "\n\x00\x00\x01", 12: "h1.example", 51: "\x00\x00\x0e\x10", 53: "\x05", 54: "\n\x00\x00\x01",
		58: "\x00\x00\x07\x08", 59: "\x00\x00\x0c\x4e", 60: "HTTPClient", 61: "\x01\x02", 67: url, 82: "\x01\x01\x09",
	}
	got := map[uint8]string{}
	for code, v := range r.Options {
		got[code] = string(v)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("options (-want +got):\n%s", diff)
	}
	if r.BootFileName != url || r.ServerIPAddr.String() != "10.0.0.1" || r.TransactionID != p.TransactionID || !r.IsBroadcast() {
		t.Errorf("got file %q, server %s, id %s, flags %s; want file %q, server 10.0.0.1, id %s, broadcast", r.BootFileName, r.ServerIPAddr, r.TransactionID, r.FlagsToString(), url, p.TransactionID)
	}
	if d.File != url {
		t.Errorf("got file %q, want %q", d.File, url)
	}
}

// with is an option as it lies on the wire.
func with(code uint8, value string) dhcpv4.Modifier {
	return dhcpv4.WithGeneric(dhcpv4.GenericOptionCode(code), []byte(value))
}

// Only a client of the right class and architecture hears of boot files and doors: what each kind gets beyond an address, where
// a boot is ordered and where none is.
func TestBootOptionsByClient(t *testing.T) {
	url := "http://10.0.0.1/boot/" + digest + "/x.efi"
	script := url + ScriptSuffix
	const doors = "224=http://10.0.0.1 225=https://10.0.0.1:8443"
	const tftp = "file amd64/snponly.efi from 10.0.0.1 66=10.0.0.1 67=amd64/snponly.efi"
	const noTFTP = "file none from 10.0.0.1 66=10.0.0.1 67=none"
	const pxe7 = "PXEClient:Arch:00007:UNDI:003001"
	const noProxy = `175="\xb0\x01\x01"`
	for _, c := range []struct {
		name, class   string
		mods          []dhcpv4.Modifier
		ordered, none string
	}{
		{"HTTP firmware", "HTTPClient:Arch:00019:UNDI:003001", nil, "file " + url + " from 10.0.0.1 60=HTTPClient 67=" + url,
			"file http://10.0.0.1/boot/none from 10.0.0.1 60=HTTPClient 67=http://10.0.0.1/boot/none"},
		{"PXE firmware", pxe7, nil, tftp, noTFTP},
		{"PXE firmware, number in option 93 only", "PXEClient", []dhcpv4.Modifier{with(93, "\x00\x09")}, tftp, noTFTP},
		{"PXE firmware on arm64", "PXEClient:Arch:00011:UNDI:003001", nil, "", ""},
		{"PXE firmware of 32 bits", "PXEClient:Arch:00006:UNDI:003001", nil, "", ""},
		{"BIOS", "PXEClient:Arch:00000:UNDI:002001", nil, "", ""},
		{"iPXE", pxe7, []dhcpv4.Modifier{with(77, "iPXE")}, "file " + script + " from 10.0.0.1 67=" + script + " " + noProxy, noProxy},
		{"iPXE by RFC 3004", pxe7, []dhcpv4.Modifier{with(77, "\x04iPXE")}, "file " + script + " from 10.0.0.1 67=" + script + " " + noProxy, noProxy},
		{"iPXE by its own option", pxe7, []dhcpv4.Modifier{with(175, "\x13\x01\x01")}, "file " + script + " from 10.0.0.1 67=" + script + " " + noProxy, noProxy},
		{"iPXE on arm64", "PXEClient:Arch:00011:UNDI:003010", []dhcpv4.Modifier{with(77, "iPXE")}, "file " + script + " from 10.0.0.1 67=" + script + " " + noProxy, noProxy},
		{"iPXE of a BIOS machine", "PXEClient:Arch:00000:UNDI:002001", []dhcpv4.Modifier{with(77, "iPXE")}, noProxy, noProxy},
		{"nearly iPXE", pxe7, []dhcpv4.Modifier{with(77, "iPXE2")}, tftp, noTFTP},
		{"agent", "metald-agent", nil, doors, doors},
		{"nearly an agent", "metald-agent2", nil, "", ""},
		{"operating system", "systemd-networkd", nil, "", ""},
		{"no class", "", nil, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := packet(t, dhcpv4.MessageTypeDiscover, c.mods...)
			if c.class != "" {
				p.UpdateOption(dhcpv4.OptClassIdentifier(c.class))
			}
			s := small
			s.BootURL += "/"
			s.Loaders = map[string]string{"amd64": "amd64/snponly.efi"}
			for answer, want := range map[Answer]string{{Host: "h", Digest: digest, File: "x.efi"}: c.ordered, {Host: "h"}: c.none, {Host: "h", Digest: digest, File: "../x"}: c.none} {
				d := Decide(p, NewLeases(), machineOf(p, "br0"), &answer, s, noon)
				if got := beyondAddress(t, d.Reply); got != want {
					t.Errorf("boot %q:\ngot  %q\nwant %q", answer.File, got, want)
				}
				if told := answer.File == "x.efi" && strings.Contains(c.ordered, "67="); (d.File != "") != told {
					t.Errorf("boot %q: the decision names file %q, want one: %v", answer.File, d.File, told)
				}
			}
		})
	}
}

// beyondAddress is what a reply says to a booting machine, as it goes over the wire.
func beyondAddress(t *testing.T, reply *dhcpv4.DHCPv4) string {
	t.Helper()
	r, err := dhcpv4.FromBytes(reply.ToBytes())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	if r.BootFileName != "" {
		got = append(got, "file "+r.BootFileName+" from "+r.ServerIPAddr.String())
	}
	for _, code := range []uint8{43, 60, 66, 67, 175, 224, 225} {
		v := string(r.Options.Get(dhcpv4.GenericOptionCode(code)))
		switch {
		case code == 175 && v != "":
			got = append(got, fmt.Sprintf("175=%q", v))
		case v != "":
			got = append(got, fmt.Sprintf("%d=%s", code, v))
		}
	}
	return strings.Join(got, " ")
}

// A machine boots where it looks for something to boot, and can be given it.
func TestMachineBoots(t *testing.T) {
	for _, c := range []struct {
		m    Machine
		want bool
	}{
		{Machine{Client: HTTPClient, Arch: iana.EFI_X86_64_HTTP}, true},
		{Machine{Client: HTTPClient}, true},
		{Machine{Client: PXEClient, Arch: iana.EFI_X86_64}, true},
		{Machine{Client: PXEClient, Arch: iana.INTEL_X86PC}, false},
		{Machine{Client: IPXEClient, Arch: iana.EFI_ARM64}, true},
		{Machine{Client: IPXEClient, Arch: iana.INTEL_X86PC}, false},
		{Machine{Client: Agent, Arch: NoArch}, false},
		{Machine{Client: Other, Arch: NoArch}, false},
	} {
		if got := c.m.Boots(); got != c.want {
			t.Errorf("%s of architecture %s boots: got %v, want %v", c.m.Client, c.m.Arch, got, c.want)
		}
	}
}

// The DHCP client of a running system gets the daemon's URLs where it asks for them, each for itself, also by INFORM.
func TestDoorsOnRequest(t *testing.T) {
	for _, c := range []struct {
		asked []dhcpv4.OptionCode
		want  string
	}{
		{nil, ""},
		{[]dhcpv4.OptionCode{dhcpv4.OptionRouter}, ""},
		{[]dhcpv4.OptionCode{dhcpv4.OptionRouter, AgentURLOption}, "225=https://10.0.0.1:8443"},
		{[]dhcpv4.OptionCode{BootURLOption, AgentURLOption}, "224=http://10.0.0.1 225=https://10.0.0.1:8443"},
	} {
		for _, p := range []*dhcpv4.DHCPv4{
			packet(t, dhcpv4.MessageTypeDiscover, dhcpv4.WithOption(dhcpv4.OptClassIdentifier("systemd"))),
			packet(t, dhcpv4.MessageTypeInform, from("10.0.0.6")),
		} {
			p.DeleteOption(dhcpv4.OptionParameterRequestList)
			if c.asked != nil {
				p.UpdateOption(dhcpv4.OptParameterRequestList(c.asked...))
			}
			p, err := dhcpv4.FromBytes(p.ToBytes()) // as the server meets it
			if err != nil {
				t.Fatal(err)
			}
			d := Decide(p, NewLeases(), machineOf(p, "br0"), &Answer{Host: "h"}, small, noon)
			var got []string
			for _, o := range []dhcpv4.GenericOptionCode{BootURLOption, AgentURLOption} {
				if v := d.Reply.Options.Get(o); v != nil {
					got = append(got, fmt.Sprintf("%d=%s", o, v))
				}
			}
			if got := strings.Join(got, " "); got != c.want {
				t.Errorf("%s that asks for %v: got %q, want %q", p.MessageType(), c.asked, got, c.want)
			}
		}
	}
}

func TestMachine(t *testing.T) {
	raw := []byte{0, 0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}
	p := packet(t, dhcpv4.MessageTypeDiscover, dhcpv4.WithGeneric(dhcpv4.OptionClientMachineIdentifier, raw),
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("HTTPClient:Arch:00016:UNDI:003001\x00")), dhcpv4.WithOption(dhcpv4.OptHostName("a\nb"+strings.Repeat("c", 100))))
	got := machineOf(p, "br0")
	want := Machine{MAC: mac1, UUID: "00112233-4455-6677-8899-aabbccddeeff", Arch: iana.EFI_X86_64_HTTP, Client: HTTPClient, Interface: "br0",
		Hostname: "a?b" + strings.Repeat("c", 61), Class: "HTTPClient:Arch:00016:UNDI:003001"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("machine (-want +got):\n%s", diff)
	}
	for uuid, want := range map[string]bool{"00112233-4455-6677-8899-AABBCCDDEEFF": true, "33221100-5544-7766-8899-aabbccddeeff": true, "33221100-4455-6677-8899-aabbccddeeff": false, "": false} {
		if got.HasUUID(uuid) != want {
			t.Errorf("HasUUID(%q): got %v, want %v", uuid, !want, want)
		}
	}
	for name, raw := range map[string][]byte{"blank": make([]byte, 17), "short": {0, 1}, "of another type": append([]byte{1}, raw[1:]...)} {
		p := packet(t, dhcpv4.MessageTypeDiscover, dhcpv4.WithGeneric(dhcpv4.OptionClientMachineIdentifier, raw))
		if m := machineOf(p, "br0"); m.UUID != "" || m.HasUUID("") || m.Arch != NoArch || m.Client != Other {
			t.Errorf("identifier that is %s: got %+v", name, m)
		}
	}
}

func TestDeclinesAreBounded(t *testing.T) {
	wide := small
	wide.Prefix, wide.Last = netip.MustParsePrefix("10.0.0.0/24"), ip("10.0.0.254")
	leases := NewLeases()
	for range 1000 {
		a, _, ok := leases.choose(mac1.String(), wide, noon)
		if !ok {
			t.Fatal("one machine's declines have emptied the pool")
		}
		leases.Apply(Decision{Save: &Lease{MAC: mac1.String(), IP: a.String(), Expires: noon}}, noon)
		leases.Apply(Decision{Remove: &Lease{MAC: mac1.String(), IP: a.String()}, Decline: a}, noon)
	}
	if n := len(leases.declined); n > 16 {
		t.Errorf("%d addresses rest, want at most 16", n)
	}
}

func TestSubnetValidate(t *testing.T) {
	if err := small.Validate(); err != nil {
		t.Fatalf("good subnet: %v", err)
	}
	for _, c := range []struct {
		want   string
		change func(*Subnet)
	}{
		{"interface is missing", func(s *Subnet) { s.Interface = "" }},
		{"not an IPv4 network", func(s *Subnet) { s.Prefix = netip.MustParsePrefix("fd00::/64") }},
		{"not an IPv4 network", func(s *Subnet) { s.Prefix = netip.Prefix{} }},
		{"server 192.168.0.1 is not in", func(s *Subnet) { s.Server = ip("192.168.0.1") }},
		{"last 10.0.0.3 is below first 10.0.0.4", func(s *Subnet) { s.First, s.Last = ip("10.0.0.4"), ip("10.0.0.3") }},
		{"router 192.168.0.1 is not in", func(s *Subnet) { s.Router = ip("192.168.0.1") }},
		{"dns ::1 is not", func(s *Subnet) { s.DNS = []netip.Addr{ip("::1")} }},
		{"lease time 1s is below", func(s *Subnet) { s.LeaseTime = time.Second }},
		{`boot URL "ftp://x" is not`, func(s *Subnet) { s.BootURL = "ftp://x" }},
		{`agents' URL "" is not`, func(s *Subnet) { s.AgentURL = "" }},
	} {
		t.Run(c.want, func(t *testing.T) {
			s := small
			c.change(&s)
			if err := s.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}
