// SPDX-License-Identifier: Apache-2.0

package pxe

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// PacketWire is a Wire by a packet socket.
type PacketWire struct {
	f     *os.File
	index int
}

// headers are those of IPv4 without options and UDP.
const headers = 20 + 8

// ListenWire opens a packet socket on an interface. It needs CAP_NET_RAW.
func ListenWire(iface string) (*PacketWire, error) {
	i, err := net.InterfaceByName(iface)
	if err != nil {
		return nil, fmt.Errorf("looking at interface %s: %w", iface, err)
	}
	// No protocol yet: nothing may be queued before the filter stands.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening a packet socket on interface %s: %w", iface, err)
	}
	if err := errors.Join(toDHCPClients(fd), unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: swap(unix.ETH_P_IP), Ifindex: i.Index})); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("opening a packet socket on interface %s: %w", iface, err)
	}
	return &PacketWire{os.NewFile(uintptr(fd), "wire "+iface), i.Index}, nil
}

// toDHCPClients lets only UDP packets to port 68 through. The same interface carries the images of a rack: to look at each
// packet here would cost a core.
func toDHCPClients(fd int) error {
	code, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 9, Size: 1}, // protocol
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_UDP, SkipTrue: 6},
		bpf.LoadAbsolute{Off: 6, Size: 2}, // fragment offset
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x1fff, SkipTrue: 4},
		bpf.LoadMemShift{Off: 0}, // length of the IP header
		bpf.LoadIndirect{Off: 2, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: dhcpv4.ClientPort, SkipTrue: 1},
		bpf.RetConstant{Val: 0xffff},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return err
	}
	filter := make([]unix.SockFilter, len(code))
	for i, c := range code {
		filter[i] = unix.SockFilter{Code: c.Op, Jt: c.Jt, Jf: c.Jf, K: c.K}
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
}

// Broadcast sends packet to each DHCP server on the wire.
func (w *PacketWire) Broadcast(packet []byte) error {
	raw, err := w.f.SyscallConn()
	if err != nil {
		return err
	}
	to := &unix.SockaddrLinklayer{Protocol: swap(unix.ETH_P_IP), Ifindex: w.index, Halen: 6, Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}
	datagram := fromNowhere(packet)
	var sent error
	err = raw.Write(func(fd uintptr) bool {
		sent = unix.Sendto(int(fd), datagram, 0, to)
		return sent != unix.EAGAIN
	})
	return errors.Join(err, sent)
}

// Hear waits for the next packet to a DHCP client.
func (w *PacketWire) Hear(ctx context.Context, b []byte) (n int, mac net.HardwareAddr, ip netip.Addr, err error) {
	raw, err := w.f.SyscallConn()
	if err != nil {
		return 0, nil, netip.Addr{}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = w.f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	datagram := make([]byte, 1<<16)
	var from unix.Sockaddr
	var got error
	err = raw.Read(func(fd uintptr) bool {
		n, from, got = unix.Recvfrom(int(fd), datagram, 0)
		return got != unix.EAGAIN
	})
	if err = errors.Join(err, got); err != nil {
		return 0, nil, netip.Addr{}, fmt.Errorf("reading from the wire: %w", err)
	}
	payload, ip, err := payloadOf(datagram[:n])
	if err != nil {
		return 0, nil, netip.Addr{}, err
	}
	if l, ok := from.(*unix.SockaddrLinklayer); ok {
		mac = net.HardwareAddr(l.Addr[:min(int(l.Halen), len(l.Addr))])
	}
	return copy(b, payload), mac, ip, nil
}

// Close gives the socket back.
func (w *PacketWire) Close() error { return w.f.Close() }

// fromNowhere puts a DHCP packet into UDP and IPv4, from 0.0.0.0:68 to 255.255.255.255:67. A UDP checksum of zero says that
// there is none (RFC 768).
func fromNowhere(packet []byte) []byte {
	d := make([]byte, headers, headers+len(packet))
	be := binary.BigEndian
	d[0] = 0x45
	be.PutUint16(d[2:], uint16(headers+len(packet)))
	d[8], d[9] = 64, unix.IPPROTO_UDP
	be.PutUint32(d[16:], 0xffffffff)
	be.PutUint16(d[10:], checksum(d[:20]))
	be.PutUint16(d[20:], dhcpv4.ClientPort)
	be.PutUint16(d[22:], dhcpv4.ServerPort)
	be.PutUint16(d[24:], uint16(8+len(packet)))
	return append(d, packet...)
}

// payloadOf takes a DHCP packet out of IPv4 and UDP.
func payloadOf(d []byte) ([]byte, netip.Addr, error) {
	if len(d) < headers || d[0]>>4 != 4 {
		return nil, netip.Addr{}, errors.New("reading from the wire: no IPv4 packet")
	}
	length := int(d[0]&0xf) * 4
	if length < 20 || len(d) < length+8 {
		return nil, netip.Addr{}, errors.New("reading from the wire: cut off")
	}
	ip := netip.AddrFrom4([4]byte(d[12:16]))
	udp := int(binary.BigEndian.Uint16(d[length+4:])) // Ethernet pads short packets
	if udp < 8 || length+udp > len(d) {
		return nil, netip.Addr{}, errors.New("reading from the wire: cut off")
	}
	return d[length+8 : length+udp], ip, nil
}

// checksum is RFC 1071's.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// swap is a number in network byte order, as the kernel wants a protocol.
func swap(n uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], n)
	return binary.NativeEndian.Uint16(b[:])
}
