// SPDX-License-Identifier: Apache-2.0

package pxetest

import (
	"context"
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Foreign puts another DHCP server on the segment, or takes it away. It offers its own address plus 100 to everybody.
func (s *Segment) Foreign(server netip.Addr, here bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.foreign, server)
	if here {
		s.foreign[server] = true
	}
}

// foreignMAC is the MAC of the foreign server at an address.
func foreignMAC(server netip.Addr) net.HardwareAddr {
	b := server.As4()
	return net.HardwareAddr{2, 0xf0, b[0], b[1], b[2], b[3]}
}

// askForeign lets the other servers answer; their offers are broadcast, so our own server's wire hears them too.
func (s *Segment) askForeign(packet []byte) {
	p, err := dhcpv4.FromBytes(packet)
	if err != nil || p.MessageType() != dhcpv4.MessageTypeDiscover {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for server := range s.foreign {
		b := server.As4()
		offer, err := dhcpv4.NewReplyFromRequest(p, dhcpv4.WithMessageType(dhcpv4.MessageTypeOffer), dhcpv4.WithServerIP(server.AsSlice()),
			dhcpv4.WithOption(dhcpv4.OptServerIdentifier(server.AsSlice())), dhcpv4.WithYourIP(net.IPv4(b[0], b[1], b[2], b[3]+100)))
		if err != nil {
			continue
		}
		if port, ok := s.ports[p.ClientHWAddr.String()]; ok {
			select {
			case port.in <- offer.ToBytes():
			default:
			}
		}
		select {
		case s.wire.in <- heard{offer.ToBytes(), server}:
		default:
		}
	}
}

type heard struct {
	packet []byte
	from   netip.Addr
}

// Wire is the interface of our own server as a client sees it.
type Wire struct {
	segment *Segment
	in      chan heard
}

// Wire is what pxe.DHCP.Guard is given.
func (s *Segment) Wire() *Wire { return s.wire }

// Broadcast asks the other servers.
func (w *Wire) Broadcast(packet []byte) error {
	w.segment.askForeign(packet)
	return nil
}

// Hear waits for the next answer of another server.
func (w *Wire) Hear(ctx context.Context, b []byte) (n int, mac net.HardwareAddr, ip netip.Addr, err error) {
	select {
	case h := <-w.in:
		return copy(b, h.packet), foreignMAC(h.from), h.from, nil
	case <-ctx.Done():
		return 0, nil, netip.Addr{}, ctx.Err()
	}
}
