// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Apply gives the device its address, the machine its route, its resolver and its name.
func Apply(l Lease) error {
	link, err := netlink.LinkByName(l.Device)
	if err != nil {
		return fmt.Errorf("finding %s: %w", l.Device, err)
	}
	address := &netlink.Addr{IPNet: ipNet(l.Address)}
	if err := netlink.AddrReplace(link, address); err != nil {
		return fmt.Errorf("setting the address %s: %w", l.Address, err)
	}
	if l.Router.IsValid() {
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: l.Router.AsSlice(), Protocol: unix.RTPROT_DHCP}
		if err := netlink.RouteReplace(route); err != nil {
			return fmt.Errorf("setting the route over %s: %w", l.Router, err)
		}
	}
	if l.Hostname != "" {
		if err := unix.Sethostname([]byte(l.Hostname)); err != nil {
			return fmt.Errorf("setting the host name: %w", err)
		}
	}
	if len(l.DNS) == 0 {
		return nil
	}
	var resolver strings.Builder
	for _, server := range l.DNS {
		fmt.Fprintf(&resolver, "nameserver %s\n", server)
	}
	if err := os.MkdirAll("/etc", 0o755); err != nil {
		return fmt.Errorf("setting the resolver: %w", err)
	}
	if err := os.WriteFile("/etc/resolv.conf", []byte(resolver.String()), 0o644); err != nil {
		return fmt.Errorf("setting the resolver: %w", err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}

// Remove takes the address away, and with it the routes.
func Remove(l Lease) error {
	link, err := netlink.LinkByName(l.Device)
	if err != nil {
		return fmt.Errorf("finding %s: %w", l.Device, err)
	}
	if err := netlink.AddrDel(link, &netlink.Addr{IPNet: ipNet(l.Address)}); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("taking the address %s away: %w", l.Address, err)
	}
	return nil
}

// DownAll takes every physical device down and its addresses away, for an operating system that wants to start from
// nothing: systemd-networkd does not configure a device that it finds up.
func DownAll() error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("listing network devices: %w", err)
	}
	var errs []error
	for _, link := range links {
		if !physical(link.Attrs().Name) {
			continue
		}
		addresses, err := netlink.AddrList(link, netlink.FAMILY_V4)
		errs = append(errs, err)
		for _, address := range addresses {
			errs = append(errs, netlink.AddrDel(link, &address))
		}
		errs = append(errs, netlink.LinkSetDown(link))
	}
	return errors.Join(errs...)
}

// Keep prolongs a lease until ctx ends or the lease is lost: it has expired, the server took it back, or it gave another
// one. Whoever called then starts over with Acquire.
func Keep(ctx context.Context, l Lease, systemUUID string, say Say) error {
	for {
		wait := time.Until(l.Renew)
		if left := time.Until(l.Expires); wait <= 0 { // overdue: RFC 2131, 4.4.5 asks for half of what is left, in steps of a minute
			wait = min(max(left/2, 2*time.Second), time.Minute)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		if time.Now().After(l.Expires) {
			return errors.New("the lease has expired: no DHCP server answers")
		}
		next, err := renew(ctx, l, systemUUID)
		var nak *nclient4.ErrNak
		switch {
		case errors.As(err, &nak):
			return errors.New("the DHCP server took the address back")
		case err != nil:
			say("prolonging the lease of %s: %v", l.Address.Addr(), err)
		case next.Address != l.Address || next.BootURL != l.BootURL || next.AgentURL != l.AgentURL:
			return fmt.Errorf("the DHCP server gave %s and %s in place of %s and %s", next.Address, next.AgentURL, l.Address, l.AgentURL)
		default:
			l = next
		}
	}
}

func renew(ctx context.Context, l Lease, systemUUID string) (Lease, error) {
	client, err := nclient4.New(l.Device, nclient4.WithTimeout(3*time.Second), nclient4.WithRetry(2))
	if err != nil {
		return Lease{}, err
	}
	defer client.Close()
	message, err := dhcpv4.New(dhcpv4.PrependModifiers(request(systemUUID),
		dhcpv4.WithHwAddr(l.MAC),
		dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest),
		dhcpv4.WithClientIP(l.Address.Addr().AsSlice()),
	)...)
	if err != nil {
		return Lease{}, err
	}
	// By broadcast, as a rebinding client: the answer may come from a daemon at another address.
	answer, err := client.SendAndRead(ctx, client.RemoteAddr(), message, func(p *dhcpv4.DHCPv4) bool {
		switch p.MessageType() {
		case dhcpv4.MessageTypeAck:
			return ours(p)
		case dhcpv4.MessageTypeNak:
			return p.ServerIdentifier().Equal(l.Server.AsSlice())
		default:
			return false
		}
	})
	if err != nil {
		return Lease{}, err
	}
	if answer.MessageType() == dhcpv4.MessageTypeNak {
		return Lease{}, &nclient4.ErrNak{Offer: message, Nak: answer}
	}
	return leaseOf(l.Device, answer, time.Now())
}
