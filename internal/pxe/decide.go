// SPDX-License-Identifier: Apache-2.0

package pxe

import (
	"bytes"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Decision is what is done about one packet: first Remove and Save become durable, then Reply goes To.
type Decision struct {
	// Reply is nil where the packet gets silence.
	Reply *dhcpv4.DHCPv4
	To    netip.AddrPort
	// Remove is a lease that gives way, Save one that is granted, prolonged or ended.
	Remove, Save *Lease
	// Offer is held in memory only.
	Offer *Lease
	// Decline is an address that rests.
	Decline netip.Addr
	// File is what the machine was told to boot: a URL, or the name of a loader.
	File string
	// Renewal is true when the machine had this lease already and only prolongs it.
	Renewal bool
	// Why says it in a few words, for logs.
	Why string
}

// noFreeAddress is what the log must not keep to itself.
const noFreeAddress = "no free address"

func silence(why string) Decision { return Decision{Why: why} }

// Decide is the DHCP server: what answers packet p of machine m at the time now. answer is nil for a machine that nobody
// knows. Nothing is changed by it; Leases.Apply takes the decision in. The rules are RFC 2131's section 4.3.
func Decide(p *dhcpv4.DHCPv4, leases *Leases, m Machine, answer *Answer, s Subnet, now time.Time) Decision {
	if p.OpCode != dhcpv4.OpcodeBootRequest || len(p.ClientHWAddr) != 6 {
		return silence("not a request from an Ethernet machine")
	}
	if relay := ip4(p.GatewayIPAddr); relay != netip.IPv4Unspecified() && !s.Prefix.Contains(relay) {
		return silence("relayed from another network")
	}
	t := turn{p: p, leases: leases, m: m, answer: answer, s: s, now: now, mac: p.ClientHWAddr.String()}
	switch p.MessageType() {
	case dhcpv4.MessageTypeRelease:
		return t.release()
	case dhcpv4.MessageTypeDecline:
		return t.decline()
	}
	if answer == nil {
		return silence("unknown machine")
	}
	switch p.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		return t.discover()
	case dhcpv4.MessageTypeRequest:
		return t.request()
	case dhcpv4.MessageTypeInform:
		return t.inform()
	}
	return silence("no message that a server answers")
}

// turn is one packet with all that is needed to answer it.
type turn struct {
	p      *dhcpv4.DHCPv4
	leases *Leases
	m      Machine
	answer *Answer
	s      Subnet
	now    time.Time
	mac    string
}

func (t turn) lease(ip netip.Addr, d time.Duration) *Lease {
	l := Lease{Interface: t.s.Interface, MAC: t.mac, IP: ip.String(), Expires: t.now.Add(d).UTC()}
	if t.answer != nil {
		l.Host = t.answer.Host
	}
	return &l
}

func (t turn) discover() Decision {
	ip, _, ok := t.leases.choose(t.mac, t.s, t.now)
	if !ok {
		return silence(noFreeAddress)
	}
	d := t.reply(dhcpv4.MessageTypeOffer, ip)
	d.Offer, d.Why = t.lease(ip, offerTime), "offered"
	return d
}

// request tells apart the four states of a client that RFC 2131 lists in table 4 by what they fill in.
func (t turn) request() Decision {
	want, current := ip4(t.p.RequestedIPAddress()), ip4(t.p.ClientIPAddr)
	if id := t.p.ServerIdentifier(); id != nil { // SELECTING
		if ip4(id) != t.s.Server {
			return silence("chose another server")
		}
	} else if current != netip.IPv4Unspecified() { // RENEWING or REBINDING
		want = current
	}
	if want == netip.IPv4Unspecified() {
		return silence("asked for no address")
	}
	ip, reclaimed, ok := t.leases.choose(t.mac, t.s, t.now)
	if ok && want != ip && t.leases.byMAC[t.mac].IP == "" && t.leases.free(want, t.mac, t.s, t.now) {
		// We lost the record, or the machine moved the packet on its own: the address is free, so it may keep it.
		ip, reclaimed = want, nil
	}
	if !ok || want != ip {
		return t.nak()
	}
	d := t.reply(dhcpv4.MessageTypeAck, ip)
	held, had := t.leases.byMAC[t.mac]
	d.Save, d.Remove, d.Why = t.lease(ip, t.s.LeaseTime), reclaimed, "leased"
	d.Renewal = had && held.IP == d.Save.IP && current == ip
	return d
}

func (t turn) inform() Decision {
	current := ip4(t.p.ClientIPAddr)
	if !t.s.Prefix.Contains(current) {
		return silence("informed from another network")
	}
	d := t.reply(dhcpv4.MessageTypeAck, netip.IPv4Unspecified())
	d.Why = "informed"
	return d
}

// release ends the lease and keeps its record: the machine gets the same address next time.
func (t turn) release() Decision {
	held, ok := t.leases.byMAC[t.mac]
	if !ok || address(held) != ip4(t.p.ClientIPAddr) || ip4(t.p.ServerIdentifier()) != t.s.Server {
		return silence("released what it does not hold")
	}
	held.Expires = t.now.UTC()
	return Decision{Save: &held, Why: "released"}
}

// decline is believed only of the address that the machine holds: it found another machine there (RFC 2131, 4.3.3).
func (t turn) decline() Decision {
	held, ok := t.leases.byMAC[t.mac]
	if !ok || address(held) != ip4(t.p.RequestedIPAddress()) || ip4(t.p.ServerIdentifier()) != t.s.Server {
		return silence("declined what it does not hold")
	}
	return Decision{Remove: &held, Decline: address(held), Why: "declined: another machine uses the address"}
}

// nak makes a machine start over. It goes by broadcast, since the machine's own address is what is wrong.
func (t turn) nak() Decision {
	r, err := dhcpv4.NewReplyFromRequest(t.p, dhcpv4.WithMessageType(dhcpv4.MessageTypeNak),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(t.s.Server.AsSlice())), dhcpv4.WithBroadcast(true))
	if err != nil {
		return silence("no transaction id")
	}
	to := netip.AddrPortFrom(broadcast, dhcpv4.ClientPort)
	if relay := ip4(t.p.GatewayIPAddr); relay != netip.IPv4Unspecified() {
		to = netip.AddrPortFrom(relay, dhcpv4.ServerPort)
	}
	return Decision{Reply: r, To: to, Why: "refused: not its address"}
}

func (t turn) reply(mt dhcpv4.MessageType, ip netip.Addr) Decision {
	mods := []dhcpv4.Modifier{
		dhcpv4.WithMessageType(mt),
		dhcpv4.WithYourIP(ip.AsSlice()),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(t.s.Server.AsSlice())),
		dhcpv4.WithOption(dhcpv4.OptSubnetMask(net.CIDRMask(t.s.Prefix.Bits(), 32))),
	}
	if ip != netip.IPv4Unspecified() { // an INFORM gets no times (RFC 2131, 4.3.5)
		mods = append(mods,
			dhcpv4.WithOption(dhcpv4.OptIPAddressLeaseTime(t.s.LeaseTime)),
			dhcpv4.WithOption(dhcpv4.OptRenewTimeValue(t.s.LeaseTime/2)),
			dhcpv4.WithOption(dhcpv4.OptRebindingTimeValue(t.s.LeaseTime*7/8)))
	}
	if t.p.MessageType() == dhcpv4.MessageTypeRequest || ip == netip.IPv4Unspecified() {
		mods = append(mods, dhcpv4.WithClientIP(t.p.ClientIPAddr))
	}
	if t.s.Router.IsValid() {
		mods = append(mods, dhcpv4.WithRouter(t.s.Router.AsSlice()))
	}
	if len(t.s.DNS) > 0 {
		dns := make([]net.IP, len(t.s.DNS))
		for i, a := range t.s.DNS {
			dns[i] = a.AsSlice()
		}
		mods = append(mods, dhcpv4.WithDNS(dns...))
	}
	if isHostname(t.answer.Hostname) {
		mods = append(mods, dhcpv4.WithOption(dhcpv4.OptHostName(t.answer.Hostname)))
	}
	file, boot := t.bootOptions()
	boot = append(boot, t.doors()...)
	r, err := dhcpv4.NewReplyFromRequest(t.p, append(mods, boot...)...)
	if err != nil {
		return silence("no transaction id")
	}
	return Decision{Reply: r, To: t.destination(ip), File: file}
}

// NoBoot is a file that never exists. Firmware that is to boot nothing is told its name: an offer without a file it does not
// take, and asks for another minute (EDK2) before it goes on to the disk; a file that is not there is over in no time.
const NoBoot = "none"

// bootOptions is what a machine gets beyond its address, by the kind of client, and the file that it names.
func (t turn) bootOptions() (file string, mods []dhcpv4.Modifier) {
	url, ordered := t.s.bootFile(*t.answer)
	switch t.m.Client {
	case HTTPClient:
		if ordered {
			file = url
		} else {
			url = strings.TrimRight(t.s.BootURL, "/") + BootPath + NoBoot
		}
		// UEFI takes an offer for HTTP boot only where it says the class (UEFI 2.11, 24.7.2).
		return file, append(t.named(url), dhcpv4.WithOption(dhcpv4.OptClassIdentifier("HTTPClient")))
	case PXEClient:
		loader := t.s.Loaders[t.m.cpu()]
		if loader == "" {
			return "", nil
		}
		if ordered {
			file = loader
		} else {
			loader = NoBoot
		}
		// No class in the answer: EDK2 would take it for a boot server's and go on to ask that on port 4011.
		return file, append(t.named(loader), dhcpv4.WithOption(dhcpv4.OptTFTPServerName(t.s.Server.String())))
	case IPXEClient:
		mods = append(mods, dhcpv4.WithOption(dhcpv4.OptGeneric(ipxeOptions, noProxyDHCP)))
		if ordered && t.m.Boots() {
			return url + ScriptSuffix, append(mods, t.named(url+ScriptSuffix)...)
		}
	}
	return "", mods
}

// noProxyDHCP is iPXE's setting no-pxedhcp inside of option 175: without it iPXE waits for a proxyDHCP server after each answer.
var noProxyDHCP = []byte{176, 1, 1}

// named says a boot file and its server in all the places that firmware reads: the options, and the fixed fields of BOOTP.
func (t turn) named(file string) []dhcpv4.Modifier {
	return []dhcpv4.Modifier{
		dhcpv4.WithOption(dhcpv4.OptBootFileName(file)),
		dhcpv4.WithServerIP(t.s.Server.AsSlice()),
		func(d *dhcpv4.DHCPv4) {
			if len(file) < 128 {
				d.BootFileName = file
			}
		},
	}
}

// doors are the daemon's URLs: for the agent in a ramdisk, and for the DHCP client of an image that asks for them by their
// numbers on the agent's behalf.
func (t turn) doors() (mods []dhcpv4.Modifier) {
	asked := t.p.ParameterRequestList()
	for _, door := range []struct {
		option dhcpv4.OptionCode
		url    string
	}{{BootURLOption, t.s.BootURL}, {AgentURLOption, t.s.AgentURL}} {
		if t.m.Client == Agent || slices.ContainsFunc(asked, func(c dhcpv4.OptionCode) bool { return c.Code() == door.option.Code() }) {
			mods = append(mods, dhcpv4.WithOption(dhcpv4.OptGeneric(door.option, []byte(strings.TrimRight(door.url, "/")))))
		}
	}
	return mods
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// destination follows RFC 2131, section 4.1. A machine without an address cannot answer ARP, and a UDP socket cannot
// send without ARP, so what the RFC would unicast to a new address goes by broadcast, as the RFC allows.
func (t turn) destination(ip netip.Addr) netip.AddrPort {
	if relay := ip4(t.p.GatewayIPAddr); relay != netip.IPv4Unspecified() {
		return netip.AddrPortFrom(relay, dhcpv4.ServerPort)
	}
	if current := ip4(t.p.ClientIPAddr); current != netip.IPv4Unspecified() && (current == ip || ip == netip.IPv4Unspecified()) {
		return netip.AddrPortFrom(current, dhcpv4.ClientPort)
	}
	return netip.AddrPortFrom(broadcast, dhcpv4.ClientPort)
}

// ip4 is 0.0.0.0 for whatever is not an IPv4 address.
func ip4(ip net.IP) netip.Addr {
	a, ok := netip.AddrFromSlice(bytes.Clone(ip.To4()))
	if !ok {
		return netip.IPv4Unspecified()
	}
	return a
}
