// SPDX-License-Identifier: Apache-2.0

package pxetest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

// ErrSilence is what a client says whom nobody answered.
var ErrSilence = errors.New("no answer")

// ErrRefused is a DHCPNAK.
var ErrRefused = errors.New("refused")

// Client is a machine's DHCP client.
type Client struct {
	Segment *Segment
	MAC     net.HardwareAddr
	// Class is option 60, Arch option 93 where HasArch, UUID option 97 as the bytes on the wire, Hostname option 12.
	Class    string
	HasArch  bool
	Arch     iana.Arch
	UUID     []byte
	Hostname string
	// User is option 77.
	User string
	// Retries is how long each attempt waits; nil is UEFI's 4, 8, 16 and 32 seconds.
	Retries []time.Duration

	// Last is the last acknowledgement, nil without a lease.
	Last *dhcpv4.DHCPv4
}

// Firmware is a UEFI machine of architecture arch (16 or 19) that boots over HTTP.
func Firmware(s *Segment, mac net.HardwareAddr, arch iana.Arch) *Client {
	return &Client{Segment: s, MAC: mac, HasArch: true, Arch: arch, Class: fmt.Sprintf("HTTPClient:Arch:%05d:UNDI:003001", arch)}
}

// PXE is a machine of architecture arch (7 or 11; 0 is BIOS) that boots over TFTP.
func PXE(s *Segment, mac net.HardwareAddr, arch iana.Arch) *Client {
	return &Client{Segment: s, MAC: mac, HasArch: true, Arch: arch, Class: fmt.Sprintf("PXEClient:Arch:%05d:UNDI:003001", arch)}
}

// IPXE is what the machine becomes when it has loaded iPXE.
func IPXE(s *Segment, mac net.HardwareAddr, arch iana.Arch) *Client {
	c := PXE(s, mac, arch)
	c.User = "iPXE"
	return c
}

// Agent is metald's agent in a ramdisk.
func Agent(s *Segment, mac net.HardwareAddr) *Client {
	return &Client{Segment: s, MAC: mac, Class: "metald-agent"}
}

// System is a running operating system.
func System(s *Segment, mac net.HardwareAddr, hostname string) *Client {
	return &Client{Segment: s, MAC: mac, Hostname: hostname}
}

// Lease goes from nothing to an acknowledged address: DISCOVER, OFFER, REQUEST, ACK.
func (c *Client) Lease(ctx context.Context) (*dhcpv4.DHCPv4, error) {
	offer, err := c.Discover(ctx)
	if err != nil {
		return nil, err
	}
	return c.Request(ctx, offer)
}

// Discover asks for an offer.
func (c *Client) Discover(ctx context.Context) (*dhcpv4.DHCPv4, error) {
	return c.ask(ctx, c.packet(dhcpv4.MessageTypeDiscover, dhcpv4.WithBroadcast(true)), dhcpv4.MessageTypeOffer)
}

// Request takes an offer.
func (c *Client) Request(ctx context.Context, offer *dhcpv4.DHCPv4) (*dhcpv4.DHCPv4, error) {
	return c.take(ctx, c.packet(dhcpv4.MessageTypeRequest, dhcpv4.WithBroadcast(true),
		dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(offer.YourIPAddr)), dhcpv4.WithOptionCopied(offer, dhcpv4.OptionServerIdentifier)))
}

// Reboot asks for an address that the machine remembers (INIT-REBOOT).
func (c *Client) Reboot(ctx context.Context, ip netip.Addr) (*dhcpv4.DHCPv4, error) {
	return c.take(ctx, c.packet(dhcpv4.MessageTypeRequest, dhcpv4.WithBroadcast(true), dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(ip.AsSlice()))))
}

// Renew prolongs the lease.
func (c *Client) Renew(ctx context.Context) (*dhcpv4.DHCPv4, error) {
	if c.Last == nil {
		return nil, errors.New("no lease to renew")
	}
	return c.take(ctx, c.packet(dhcpv4.MessageTypeRequest, dhcpv4.WithClientIP(c.Last.YourIPAddr)))
}

// Inform asks for options only, from an address that was set by hand.
func (c *Client) Inform(ctx context.Context, ip netip.Addr) (*dhcpv4.DHCPv4, error) {
	c.Segment.configure(c.MAC.String(), ip)
	return c.ask(ctx, c.packet(dhcpv4.MessageTypeInform, dhcpv4.WithClientIP(ip.AsSlice())), dhcpv4.MessageTypeAck)
}

// Release gives the lease back; nobody answers that.
func (c *Client) Release() { c.part(dhcpv4.MessageTypeRelease, dhcpv4.WithClientIP) }

// Decline says that another machine has the address.
func (c *Client) Decline() {
	c.part(dhcpv4.MessageTypeDecline, func(ip net.IP) dhcpv4.Modifier {
		return dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(ip))
	})
}

func (c *Client) part(mt dhcpv4.MessageType, with func(net.IP) dhcpv4.Modifier) {
	if c.Last == nil {
		return
	}
	c.Segment.send(c.packet(mt, with(c.Last.YourIPAddr), dhcpv4.WithOptionCopied(c.Last, dhcpv4.OptionServerIdentifier)).ToBytes())
	c.Segment.configure(c.MAC.String(), netip.Addr{})
	c.Last = nil
}

func (c *Client) take(ctx context.Context, p *dhcpv4.DHCPv4) (*dhcpv4.DHCPv4, error) {
	c.Last = nil
	ack, err := c.ask(ctx, p, dhcpv4.MessageTypeAck)
	if err != nil {
		return nil, err
	}
	ip, _ := netip.AddrFromSlice(ack.YourIPAddr.To4())
	c.Segment.configure(c.MAC.String(), ip)
	c.Last = ack
	return ack, nil
}

// ask sends p until it is answered with want, refused, or nobody answers.
func (c *Client) ask(ctx context.Context, p *dhcpv4.DHCPv4, want dhcpv4.MessageType) (*dhcpv4.DHCPv4, error) {
	retries := c.Retries
	if retries == nil {
		retries = []time.Duration{4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second}
	}
	port := c.Segment.port(c.MAC.String())
	for _, wait := range retries {
		c.Segment.send(p.ToBytes())
		timer := time.NewTimer(wait)
		for waiting := true; waiting; {
			select {
			case packet := <-port.in:
				answer, err := dhcpv4.FromBytes(packet)
				if err != nil || answer.TransactionID != p.TransactionID || answer.ClientHWAddr.String() != c.MAC.String() {
					continue
				}
				if c.ignores(answer) {
					continue
				}
				switch answer.MessageType() {
				case want:
					timer.Stop()
					return answer, nil
				case dhcpv4.MessageTypeNak:
					timer.Stop()
					return nil, ErrRefused
				}
			case <-timer.C:
				waiting = false
			case <-ctx.Done():
				timer.Stop()
				return nil, ctx.Err()
			}
		}
	}
	return nil, ErrSilence
}

// ignores is what EDK2's boot clients do with an offer that has no boot file for them: they go on asking.
func (c *Client) ignores(answer *dhcpv4.DHCPv4) bool {
	firmware := strings.HasPrefix(c.Class, "HTTPClient") || strings.HasPrefix(c.Class, "PXEClient") && c.User == ""
	return firmware && answer.MessageType() == dhcpv4.MessageTypeOffer && c.BootFile(answer) == ""
}

func (c *Client) packet(mt dhcpv4.MessageType, mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	p, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(c.MAC), dhcpv4.WithMessageType(mt)}, mods...)...)
	if err != nil {
		panic(fmt.Sprintf("reading random bytes: %v", err)) // the machine has no entropy: no test can go on
	}
	if c.Class != "" {
		p.UpdateOption(dhcpv4.OptClassIdentifier(c.Class))
	}
	if c.HasArch {
		p.UpdateOption(dhcpv4.OptClientArch(c.Arch))
	}
	if len(c.UUID) == 16 {
		p.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionClientMachineIdentifier, append([]byte{0}, c.UUID...)))
	}
	if c.User != "" { // as iPXE does: without a length, and with an option of its own
		p.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionUserClassInformation, []byte(c.User)))
		p.UpdateOption(dhcpv4.OptGeneric(ipxeOptions, []byte{0x13, 1, 1}))
	}
	if c.Hostname != "" {
		p.UpdateOption(dhcpv4.OptHostName(c.Hostname))
	}
	return p
}
