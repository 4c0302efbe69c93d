// SPDX-License-Identifier: Apache-2.0

package rack

import (
	"context"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

const advertiser = "advertiser"

// startAdvertiser has the bridge say that there is an IPv6 router with nothing to give. Debian's iPXE asks for one and waits
// 15 s and more where nobody answers, as its IPv4 address does not do for it; a real network has a router that answers.
func (r *Rack) startAdvertiser(context.Context) error {
	return r.start(process{name: advertiser, argv: r.labCommand("advertise", Bridge)})
}

// Advertise sends router advertisements (RFC 4861, 4.2) to all nodes of a link until ctx ends: no prefix, no default route, no
// DHCPv6. They come every second, so that a machine that asks need not be heard.
func (r *Rack) Advertise(ctx context.Context, device string) error {
	link, err := net.InterfaceByName(device)
	if err != nil {
		return fmt.Errorf("advertising on %s: %w", device, err)
	}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
	if err != nil {
		return fmt.Errorf("advertising on %s: %w", device, err)
	}
	defer unix.Close(fd)
	// A receiver drops what may have crossed a router: the hop limit must still be whole.
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255); err != nil {
		return fmt.Errorf("advertising on %s: %w", device, err)
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, link.Index); err != nil {
		return fmt.Errorf("advertising on %s: %w", device, err)
	}
	to := &unix.SockaddrInet6{ZoneId: uint32(link.Index)}
	copy(to.Addr[:], net.IPv6linklocalallnodes)
	for tick := time.NewTicker(time.Second); ; {
		// While no machine has a cable in, the bridge is down and has no address to send from: that passes.
		_ = unix.Sendto(fd, advertisement, 0, to)
		select {
		case <-ctx.Done():
			tick.Stop()
			return nil
		case <-tick.C:
		}
	}
}

// advertisement: type, code, checksum (the kernel's to fill in), hop limit 64, no flags, router lifetime 0, no timers.
var advertisement = []byte{134, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
