// SPDX-License-Identifier: Apache-2.0

package network

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// class is what DHCP's option 60 says of this program.
const class = "metald-agent"

// Options of the range that RFC 3942 leaves to a site: what the agent needs to know beyond an address.
const (
	bootURLOption  = dhcpv4.GenericOptionCode(224)
	agentURLOption = dhcpv4.GenericOptionCode(225)
)

// Lease is what the daemon's DHCP server gave one device.
type Lease struct {
	Device  string
	MAC     net.HardwareAddr
	Address netip.Prefix
	// Router is the way to other networks, invalid where there is none.
	Router netip.Addr
	DNS    []netip.Addr
	// BootURL is where files are fetched, in plain HTTP and by digest; AgentURL the daemon's agents' endpoint. AgentURL
	// may be empty where a machine is booted with no daemon.
	BootURL, AgentURL string
	Hostname          string
	Server            netip.Addr
	// Renew and Expires are when it should be and when it must have been prolonged.
	Renew, Expires time.Time
}

// ours says whether an answer comes from a metald: other servers on the wire know nothing of option 224.
func ours(p *dhcpv4.DHCPv4) bool { return p.Options.Has(bootURLOption) }

// leaseOf reads an acknowledgement that came at the time now.
func leaseOf(device string, p *dhcpv4.DHCPv4, now time.Time) (Lease, error) {
	l := Lease{Device: device, MAC: p.ClientHWAddr, Hostname: p.HostName()}
	ip, ok := netip.AddrFromSlice(p.YourIPAddr.To4())
	if !ok || ip.IsUnspecified() {
		return l, errors.New("the answer holds no address")
	}
	mask := p.SubnetMask()
	bits, size := mask.Size()
	if size != 32 || bits == 0 {
		return l, fmt.Errorf("the answer's subnet mask %s is none", mask)
	}
	l.Address = netip.PrefixFrom(ip, bits)
	l.Server, _ = netip.AddrFromSlice(p.ServerIdentifier().To4())
	if routers := p.Router(); len(routers) > 0 {
		l.Router, _ = netip.AddrFromSlice(routers[0].To4())
	}
	for _, server := range p.DNS() {
		if addr, ok := netip.AddrFromSlice(server.To4()); ok {
			l.DNS = append(l.DNS, addr)
		}
	}
	var err error
	if l.BootURL, err = siteURL(p.Options.Get(bootURLOption), "http"); err != nil {
		return l, fmt.Errorf("reading option 224: %w", err)
	}
	if p.Options.Has(agentURLOption) {
		if l.AgentURL, err = siteURL(p.Options.Get(agentURLOption), "https"); err != nil {
			return l, fmt.Errorf("reading option 225: %w", err)
		}
	}
	time := p.IPAddressLeaseTime(0)
	if time < minLease {
		return l, fmt.Errorf("the answer's lease time of %s is too short", time)
	}
	renew := p.IPAddressRenewalTime(time / 2)
	if renew <= 0 || renew >= time {
		renew = time / 2
	}
	l.Renew, l.Expires = now.Add(renew), now.Add(time)
	return l, nil
}

// minLease is the shortest lease that can be kept alive with some tries to spare.
const minLease = 10 * time.Second

// siteURL reads a URL that came over the wire. Only the scheme that the protocol names is taken: an agent that is told to
// speak plain HTTP where TLS belongs does not.
func siteURL(option []byte, scheme string) (string, error) {
	text := strings.TrimRight(string(option), "\x00")
	u, err := url.Parse(text)
	if err != nil {
		return "", fmt.Errorf("%q is no URL", text)
	}
	if u.Scheme != scheme || u.Host == "" || u.User != nil {
		return "", fmt.Errorf("%q is no %s URL", text, scheme)
	}
	return strings.TrimSuffix(text, "/"), nil
}

// request is what every message of ours says of the machine.
func request(systemUUID string) []dhcpv4.Modifier {
	modifiers := []dhcpv4.Modifier{
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier(class)),
		dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer,
			dhcpv4.OptionHostName, dhcpv4.OptionIPAddressLeaseTime, dhcpv4.OptionRenewTimeValue, dhcpv4.OptionRebindingTimeValue,
			bootURLOption, agentURLOption),
	}
	if id := machineIdentifier(systemUUID); id != nil {
		modifiers = append(modifiers, dhcpv4.WithGeneric(dhcpv4.OptionClientMachineIdentifier, id))
	}
	return modifiers
}

// machineIdentifier is option 97 (RFC 4578, 2.3): type 0, then the system UUID in the order that SMBIOS and EDK2 have,
// the first three fields little-endian. It is nil for what is no UUID.
func machineIdentifier(systemUUID string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(systemUUID, "-", ""))
	if err != nil || len(b) != 16 {
		return nil
	}
	b[0], b[1], b[2], b[3] = b[3], b[2], b[1], b[0]
	b[4], b[5], b[6], b[7] = b[5], b[4], b[7], b[6]
	return append([]byte{0}, b...)
}
