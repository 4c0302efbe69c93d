// SPDX-License-Identifier: Apache-2.0

package pxe

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// ListenDHCP opens port 67 on one interface; it works on one that is down and on a bridge without ports. The port is not
// shared: a second DHCP server on the interface is an error here and not a race for each packet later. It needs
// CAP_NET_RAW and CAP_NET_BIND_SERVICE.
func ListenDHCP(iface string) (net.PacketConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if cerr := c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), iface) }); cerr != nil {
			return cerr
		}
		return err
	}}
	conn, err := lc.ListenPacket(context.Background(), "udp4", fmt.Sprintf(":%d", dhcpv4.ServerPort))
	if err != nil {
		return nil, fmt.Errorf("listening for DHCP on interface %s: %w", iface, err)
	}
	return conn, nil
}

// replier sends from the server's own address: on an interface with several, the kernel's choice may be another than the
// server identifier says, and firmware drops such an answer.
func replier(conn net.PacketConn, server netip.Addr) writer {
	udp, ok := conn.(*net.UDPConn)
	if !ok {
		return func(packet []byte, to netip.AddrPort) error {
			_, err := conn.WriteTo(packet, net.UDPAddrFromAddrPort(to))
			return err
		}
	}
	p := ipv4.NewPacketConn(udp)
	cm := &ipv4.ControlMessage{Src: server.AsSlice()}
	return func(packet []byte, to netip.AddrPort) error {
		_, err := p.WriteTo(packet, cm, net.UDPAddrFromAddrPort(to))
		return err
	}
}

// hasAddress refuses an interface that lacks the server's address: each answer would fail with "invalid argument".
func hasAddress(s Subnet) error {
	iface, err := net.InterfaceByName(s.Interface)
	if err != nil {
		return fmt.Errorf("looking at interface %s: %w", s.Interface, err)
	}
	addrs, err := iface.Addrs()
	if err != nil {
		return fmt.Errorf("looking at interface %s: %w", s.Interface, err)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr() == s.Server {
			return nil
		}
	}
	return fmt.Errorf("interface %s does not have the server's address %s: give it one (ip address add %s/%d dev %s) or mend the configuration",
		s.Interface, s.Server, s.Server, s.Prefix.Bits(), s.Interface)
}
