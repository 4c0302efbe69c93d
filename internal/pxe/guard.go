// SPDX-License-Identifier: Apache-2.0

package pxe

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

const (
	// A probe asks probes times, probeWait apart: some servers ping an address for up to three seconds before they offer it.
	probes, probeWait = 3, 2 * time.Second
	// probeAgain is how soon an interface with another server is probed again, probeSeldom one without; an answer of another
	// that is heard in between counts as much.
	probeAgain, probeSeldom = 30 * time.Second, 5 * time.Minute
	// fresh is how long a lease of ours vouches for the interface after a restart.
	fresh = time.Hour
)

// Wire is one interface as a DHCP client sees it. It takes no port, neither from our own server nor from a DHCP client of this
// machine.
type Wire interface {
	// Broadcast sends a DHCP packet from 0.0.0.0:68 to every server. Our own does not hear it.
	Broadcast(packet []byte) error
	// Hear waits for the next packet to port 68 that another sent, and says who.
	Hear(ctx context.Context, b []byte) (n int, mac net.HardwareAddr, ip netip.Addr, err error)
}

// rival is another DHCP server.
type rival struct {
	server netip.Addr
	mac    net.HardwareAddr
}

func (r rival) same(o rival) bool { return r.server == o.server && r.mac.String() == o.mac.String() }

// guard keeps an interface closed while another server answers there: two that do not know of each other give one address to
// two machines, and send a machine to the wrong boot file.
type guard struct {
	wire    Wire
	subnet  Subnet
	exempt  bool // a person says that others are wanted
	log     *slog.Logger
	sighted func(Machine, string)
	mac     net.HardwareAddr // what we ask as
	heard   chan rival
	open    atomic.Bool
	last    rival
	begun   bool
}

// newGuard asks as a locally administered random MAC: never as one that a host may have.
func newGuard(wire Wire, s Subnet, exempt bool, log *slog.Logger, sighted func(Machine, string)) *guard {
	mac := make(net.HardwareAddr, 6)
	_, _ = rand.Read(mac) // it never fails
	mac[0] = mac[0]&^1 | 2
	return &guard{wire: wire, subnet: s, exempt: exempt, log: log, sighted: sighted, mac: mac, heard: make(chan rival, 1)}
}

// vouches says whether one of the leases was saved lately: then nobody else served here shortly ago, and after a restart
// machines are answered at once.
func (g *guard) vouches(leases []Lease, now time.Time) bool {
	for _, l := range leases {
		if saved := l.Expires.Add(-g.subnet.LeaseTime); saved.After(now.Add(-fresh)) && !saved.After(now) {
			return true
		}
	}
	return false
}

// run opens and closes the interface until ctx ends.
func (g *guard) run(ctx context.Context) {
	done := make(chan struct{})
	go func() { defer close(done); g.listen(ctx) }()
	defer func() { <-done }()
	for ctx.Err() == nil {
		wait := probeSeldom
		switch r, err := g.probe(ctx); {
		case ctx.Err() != nil:
			return
		case err != nil: // for instance while the interface is down: it stays open or closed as it was
			g.log.Warn("cannot look for other DHCP servers", "err", err)
			wait = probeAgain
		case r != nil:
			g.found(*r)
			wait = probeAgain
		default:
			g.alone()
		}
		g.wait(ctx, wait)
	}
}

// wait passes the time to the next probe, with an ear on the wire.
func (g *guard) wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case r := <-g.heard:
			g.found(r)
			timer.Reset(probeAgain)
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// probe asks for an address and takes none. It returns the first other server that answers anybody meanwhile.
func (g *guard) probe(ctx context.Context) (*rival, error) {
	for i := range probes {
		mods := []dhcpv4.Modifier{dhcpv4.WithHwAddr(g.mac), dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover), dhcpv4.WithBroadcast(true)}
		if i == 1 { // a proxyDHCP server answers PXE clients only
			mods = append(mods, dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00007:UNDI:003001")),
				dhcpv4.WithOption(dhcpv4.OptClientArch(iana.EFI_X86_64)), dhcpv4.WithGeneric(dhcpv4.OptionClientNetworkInterfaceIdentifier, []byte{1, 3, 1}))
		}
		p, err := dhcpv4.New(mods...)
		if err != nil {
			return nil, fmt.Errorf("making a DHCP probe: %w", err)
		}
		if err := g.wire.Broadcast(p.ToBytes()); err != nil {
			return nil, fmt.Errorf("sending a DHCP probe on interface %s: %w", g.subnet.Interface, err)
		}
		timer := time.NewTimer(probeWait)
		select {
		case r := <-g.heard:
			timer.Stop()
			return &r, nil
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		}
	}
	return nil, nil
}

// listen passes on each answer of another server, whoever it is for.
func (g *guard) listen(ctx context.Context) {
	buf := make([]byte, 1500)
	for ctx.Err() == nil {
		n, mac, ip, err := g.wire.Hear(ctx, buf)
		if err != nil {
			if ctx.Err() == nil {
				g.log.Debug("cannot hear other DHCP servers", "err", err)
				select {
				case <-time.After(time.Second):
				case <-ctx.Done():
				}
			}
			continue
		}
		server, ok := g.answers(buf[:n], ip)
		if !ok {
			continue
		}
		select {
		case g.heard <- rival{server, append(net.HardwareAddr(nil), mac...)}:
		default:
		}
	}
}

// answers reads a packet that came from ip, and says which other server's it is.
func (g *guard) answers(packet []byte, ip netip.Addr) (server netip.Addr, ok bool) {
	p, err := dhcpv4.FromBytes(packet)
	if err != nil || p.OpCode != dhcpv4.OpcodeBootReply || ip == g.subnet.Server {
		return netip.Addr{}, false
	}
	switch p.MessageType() {
	case dhcpv4.MessageTypeOffer, dhcpv4.MessageTypeAck, dhcpv4.MessageTypeNak:
	default:
		return netip.Addr{}, false
	}
	if server = ip4(p.ServerIdentifier()); server == netip.IPv4Unspecified() {
		server = ip
	}
	return server, server != g.subnet.Server
}

// found closes the interface, and says so once for each server until it is gone.
func (g *guard) found(r rival) {
	was := g.open.Load()
	g.open.Store(g.exempt)
	what := fmt.Sprintf("answers DHCP on %s as server %s", g.subnet.Interface, r.server)
	attrs := []any{"ip", r.server.String(), "mac", r.mac.String()}
	if g.exempt {
		if !r.same(g.last) {
			g.log.Warn("another DHCP server answers here, and is allowed to (besideOthers)", attrs...)
		}
	} else {
		what += ": metald does not serve there"
		if was || !r.same(g.last) {
			g.log.Error("another DHCP server answers here: DHCP is not served on this interface until it is gone", attrs...)
		}
	}
	g.last = r
	g.sighted(Machine{MAC: r.mac, Interface: g.subnet.Interface, Arch: NoArch}, what)
}

// alone opens the interface.
func (g *guard) alone() {
	if !g.open.Swap(true) || !g.begun {
		g.log.Info("serving DHCP: no other server answered")
	}
	g.begun, g.last = true, rival{}
}
