// SPDX-License-Identifier: Apache-2.0

package pxetest

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// Segment is one Ethernet broadcast domain in memory, with one DHCP server's socket on it.
type Segment struct {
	server *socket

	mu      sync.Mutex
	ports   map[string]*port // by MAC
	foreign map[netip.Addr]bool
	wire    *Wire
}

// port is a machine's place on the segment.
type port struct {
	in chan []byte
	ip netip.Addr
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// NewSegment makes a segment whose server has the address server.
func NewSegment(server netip.Addr) *Segment {
	s := &Segment{ports: map[string]*port{}, foreign: map[netip.Addr]bool{}, wire: &Wire{in: make(chan heard, 64)}}
	s.wire.segment = s
	s.server = &socket{segment: s, addr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(server, 67)), in: make(chan []byte, 4096), closed: make(chan struct{}), deadline: make(chan struct{})}
	return s
}

// Server is the server's socket: what pxe.DHCP.Serve is given.
func (s *Segment) Server() net.PacketConn { return s.server }

func (s *Segment) port(mac string) *port {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.ports[mac]
	if !ok {
		p = &port{in: make(chan []byte, 64)}
		s.ports[mac] = p
	}
	return p
}

// configure gives a machine its address, so that a unicast answer finds it.
func (s *Segment) configure(mac string, ip netip.Addr) {
	p := s.port(mac)
	s.mu.Lock()
	defer s.mu.Unlock()
	p.ip = ip
}

// send is a machine's packet to the servers. Like a wire, it loses what nobody reads.
func (s *Segment) send(packet []byte) {
	s.askForeign(packet)
	select {
	case s.server.in <- packet:
	default:
	}
}

// deliver is the server's packet to a machine: a unicast to the one that has the address, a broadcast to the one whose
// MAC it names. All others would look at it and throw it away, and in a rack of thousands that is most of the work.
func (s *Segment) deliver(packet []byte, to netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	give := func(p *port) {
		select {
		case p.in <- packet:
		default:
		}
	}
	if to == broadcast {
		if p, ok := s.ports[net.HardwareAddr(packet[28:34]).String()]; ok {
			give(p)
		}
		return
	}
	for _, p := range s.ports {
		if p.ip == to {
			give(p)
		}
	}
}

// socket is the server's end as a net.PacketConn.
type socket struct {
	segment *Segment
	addr    net.Addr
	in      chan []byte
	once    sync.Once
	closed  chan struct{}

	mu       sync.Mutex
	deadline chan struct{} // closed when reads are over
}

func (c *socket) ReadFrom(b []byte) (int, net.Addr, error) {
	c.mu.Lock()
	deadline := c.deadline
	c.mu.Unlock()
	select {
	case packet := <-c.in:
		return copy(b, packet), &net.UDPAddr{IP: net.IPv4zero, Port: 68}, nil
	case <-c.closed:
		return 0, nil, net.ErrClosed
	case <-deadline:
		return 0, nil, os.ErrDeadlineExceeded
	}
}

func (c *socket) WriteTo(b []byte, to net.Addr) (int, error) {
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	default:
	}
	if a, ok := to.(*net.UDPAddr); ok && a.Port == 68 && len(b) > 34 {
		c.segment.deliver(append([]byte(nil), b...), a.AddrPort().Addr().Unmap())
	}
	return len(b), nil
}

func (c *socket) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

func (c *socket) LocalAddr() net.Addr { return c.addr }

// SetReadDeadline ends reads at once for a time in the past; the zero time lets them go on. A later one is not needed by
// any server here.
func (c *socket) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	over := !t.IsZero() && !t.After(time.Now())
	select {
	case <-c.deadline:
		if !over {
			c.deadline = make(chan struct{})
		}
	default:
		if over {
			close(c.deadline)
		}
	}
	return nil
}

func (c *socket) SetWriteDeadline(time.Time) error { return nil }
func (c *socket) SetDeadline(t time.Time) error    { return c.SetReadDeadline(t) }
