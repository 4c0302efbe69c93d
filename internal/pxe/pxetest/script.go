// SPDX-License-Identifier: Apache-2.0

package pxetest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

// Player runs machines from a script, one step a line:
//
//	machine NAME MAC KIND     KIND is http-x64, http-arm64, pxe-x64, pxe-arm64, pxe-bios, ipxe-x64, ipxe-bios, agent or
//	                          system; a name that is there changes its kind
//	NAME lease                from nothing to an address
//	NAME boot                 lease, then fetch what it was told to boot; PXE fetches by TFTP and goes on as iPXE
//	NAME renew | release | decline
//	NAME reboot IP            ask for a remembered address
//	NAME inform IP
//	wait DURATION
//	foreign IP here | gone    another DHCP server, which offers to everybody
//
// Empty lines and lines that begin with # are passed over.
type Player struct {
	Segment *Segment
	// Web fetches boot files; nil is http.DefaultClient.
	Web *http.Client
	// TFTP fetches loaders; nil is a network without one.
	TFTP TFTP

	machines map[string]*Client
}

// Play writes each step and what came of it to out. It stops at a line that is no step.
func (p *Player) Play(ctx context.Context, script string, out io.Writer) error {
	if p.machines == nil {
		p.machines = map[string]*Client{}
	}
	for n, line := range strings.Split(script, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		result, err := p.step(ctx, strings.Fields(line))
		if err != nil {
			return fmt.Errorf("line %d: %q: %w", n+1, line, err)
		}
		fmt.Fprintf(out, "%s%s\n", line, result)
	}
	return nil
}

func (p *Player) step(ctx context.Context, f []string) (string, error) {
	switch {
	case f[0] == "wait" && len(f) == 2:
		d, err := time.ParseDuration(f[1])
		if err != nil {
			return "", err
		}
		select {
		case <-time.After(d):
			return "", nil
		case <-ctx.Done():
			return "", ctx.Err()
		}
	case f[0] == "foreign" && len(f) == 3 && (f[2] == "here" || f[2] == "gone"):
		ip, err := netip.ParseAddr(f[1])
		p.Segment.Foreign(ip, f[2] == "here")
		return "", err
	case f[0] == "machine" && len(f) == 4:
		mac, err := net.ParseMAC(f[2])
		if err != nil {
			return "", err
		}
		c, err := p.machine(mac, f[3])
		p.machines[f[1]] = c
		return "", err
	}
	c := p.machines[f[0]]
	if c == nil || len(f) < 2 {
		return "", fmt.Errorf("no such step")
	}
	return p.act(ctx, c, f[1], f[2:])
}

func (p *Player) machine(mac net.HardwareAddr, kind string) (*Client, error) {
	switch kind {
	case "http-x64":
		return Firmware(p.Segment, mac, iana.EFI_X86_64_HTTP), nil
	case "http-arm64":
		return Firmware(p.Segment, mac, iana.EFI_ARM64_HTTP), nil
	case "pxe-x64":
		return PXE(p.Segment, mac, iana.EFI_X86_64), nil
	case "pxe-arm64":
		return PXE(p.Segment, mac, iana.EFI_ARM64), nil
	case "pxe-bios":
		return PXE(p.Segment, mac, iana.INTEL_X86PC), nil
	case "ipxe-x64":
		return IPXE(p.Segment, mac, iana.EFI_X86_64), nil
	case "ipxe-bios":
		return IPXE(p.Segment, mac, iana.INTEL_X86PC), nil
	case "agent":
		return Agent(p.Segment, mac), nil
	case "system":
		return System(p.Segment, mac, ""), nil
	}
	return nil, fmt.Errorf("no machine of kind %q", kind)
}

func (p *Player) act(ctx context.Context, c *Client, verb string, args []string) (string, error) {
	var ip netip.Addr
	if verb == "reboot" || verb == "inform" {
		var err error
		if len(args) != 1 {
			return "", fmt.Errorf("%s needs an address", verb)
		} else if ip, err = netip.ParseAddr(args[0]); err != nil {
			return "", err
		}
	}
	switch verb {
	case "lease":
		a, err := c.Lease(ctx)
		return c.told(a, err)
	case "renew":
		a, err := c.Renew(ctx)
		return c.told(a, err)
	case "reboot":
		a, err := c.Reboot(ctx, ip)
		return c.told(a, err)
	case "inform":
		a, err := c.Inform(ctx, ip)
		return c.told(a, err)
	case "release":
		c.Release()
		return "", nil
	case "decline":
		c.Decline()
		return "", nil
	case "boot":
		return p.boot(ctx, c)
	}
	return "", fmt.Errorf("no such step")
}

// told is an answer in words. Silence and refusal are results, not errors: the script expects them.
func (c *Client) told(a *dhcpv4.DHCPv4, err error) (string, error) {
	if err != nil {
		return " -> " + err.Error(), nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, " -> %s", a.YourIPAddr)
	if d := a.IPAddressLeaseTime(0); d > 0 {
		fmt.Fprintf(&b, " for %s", d)
	}
	if h := a.HostName(); h != "" {
		fmt.Fprintf(&b, " as %s", h)
	}
	if f := c.BootFile(a); f != "" {
		fmt.Fprintf(&b, " boot %s", f)
	}
	for _, o := range []uint8{224, 225} {
		if v := a.Options.Get(dhcpv4.GenericOptionCode(o)); v != nil {
			fmt.Fprintf(&b, " %d=%s", o, v)
		}
	}
	return b.String(), nil
}

func (p *Player) boot(ctx context.Context, c *Client) (string, error) {
	web := p.Web
	if web == nil {
		web = http.DefaultClient
	}
	url, steps, body, err := c.Boot(ctx, web, p.TFTP)
	way := " -> "
	for _, s := range steps {
		way += s + ", then "
	}
	if err != nil {
		return way + err.Error(), nil
	}
	defer body.Close()
	h := sha256.New()
	n, err := io.Copy(h, body)
	if err != nil {
		return way + err.Error(), nil
	}
	verdict := "is not what its URL says"
	if strings.Contains(url, fmt.Sprintf("/%x/", h.Sum(nil))) {
		verdict = "has the digest of its URL"
	}
	return fmt.Sprintf("%s%s: %d bytes, %s", way, c.Last.YourIPAddr, n, verdict), nil
}
