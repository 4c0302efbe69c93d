// SPDX-License-Identifier: Apache-2.0

package pxe

import (
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

// Client is the kind of program that asks.
type Client int

const (
	// Other is anything else, for instance the DHCP client of a running operating system.
	Other Client = iota
	// HTTPClient is UEFI firmware that boots over HTTP (UEFI 2.11, section 24.7).
	HTTPClient
	// PXEClient is firmware that boots over TFTP (PXE 2.1).
	PXEClient
	// IPXEClient is iPXE, which PXE firmware has loaded and which boots over HTTP.
	IPXEClient
	// Agent is metald's own, in the ramdisk or in an image's initramfs.
	Agent
)

// String names the client as its vendor class does.
func (c Client) String() string {
	return [...]string{Other: "Other", HTTPClient: "HTTPClient", PXEClient: "PXEClient", IPXEClient: "iPXE", Agent: "Agent"}[c]
}

// AgentClass is option 60 of metald's own DHCP client.
const AgentClass = "metald-agent"

// Options of RFC 3942's private range: what the agent needs beyond an address, each a URL as a string.
const (
	BootURLOption  = dhcpv4.GenericOptionCode(224)
	AgentURLOption = dhcpv4.GenericOptionCode(225)
)

// NoArch is the architecture of a client that does not say one; 0 is taken, it is a BIOS machine.
const NoArch iana.Arch = 0xffff

// Machine is what a packet says of its sender. Nothing of it is proved.
type Machine struct {
	MAC net.HardwareAddr
	// UUID is option 97 in SMBIOS's byte order, lower case; empty where the machine sends none or a blank one. Compare with
	// UUIDs or HasUUID.
	UUID string
	// Arch is option 93, or the number in the vendor class; NoArch where neither is sent.
	Arch   iana.Arch
	Client Client
	// Interface is ours, the one that heard the machine.
	Interface string
	// Hostname and Class are options 12 and 60, cut to 64 printable characters.
	Hostname, Class string
}

// Boots says whether the machine asks because it looks for something to boot, and is of a kind that can be given it. A BIOS
// machine is not: what is served are UEFI programs.
func (m Machine) Boots() bool {
	switch m.Client {
	case HTTPClient:
		return true
	case PXEClient, IPXEClient:
		return m.Arch != iana.INTEL_X86PC
	}
	return false
}

// cpu is the machine's architecture as loaders are configured by it, empty where none can be.
func (m Machine) cpu() string {
	switch m.Arch {
	case iana.EFI_X86_64, iana.EFI_BC: // 7 is what firmware sends, 9 what RFC 4578 meant; EDK2 has always sent 7
		return "amd64"
	case iana.EFI_ARM64:
		return "arm64"
	}
	return ""
}

// UUIDs are the names that the machine's UUID may go by, none where it sent none: EDK2 sends SMBIOS's bytes as they lie
// (the first three fields little-endian), iPXE sends them as they are printed, and a packet does not say which.
func (m Machine) UUIDs() []string {
	if m.UUID == "" {
		return nil
	}
	return []string{m.UUID, swapUUID(m.UUID)}
}

// HasUUID says whether the machine's UUID is u, in either byte order.
func (m Machine) HasUUID(u string) bool { return slices.Contains(m.UUIDs(), strings.ToLower(u)) }

func machineOf(p *dhcpv4.DHCPv4, iface string) Machine {
	m := Machine{
		MAC:       p.ClientHWAddr,
		UUID:      uuidOf(p.GetOneOption(dhcpv4.OptionClientMachineIdentifier)),
		Arch:      NoArch,
		Interface: iface,
		Hostname:  printable(p.HostName()),
		Class:     printable(p.ClassIdentifier()),
	}
	switch {
	case strings.HasPrefix(m.Class, "HTTPClient"):
		m.Client = HTTPClient
	case isIPXE(p): // before its class, which is that of firmware
		m.Client = IPXEClient
	case strings.HasPrefix(m.Class, "PXEClient"):
		m.Client = PXEClient
	case m.Class == AgentClass:
		m.Client = Agent
	}
	if archs := p.ClientArch(); len(archs) > 0 {
		m.Arch = archs[0]
	} else if f := strings.Split(m.Class, ":"); len(f) >= 3 && f[1] == "Arch" {
		if n, err := strconv.ParseUint(f[2], 10, 16); err == nil {
			m.Arch = iana.Arch(n)
		}
	}
	return m
}

// ipxeOptions is option 175, in which iPXE tells of itself and is told of what is its own.
const ipxeOptions = dhcpv4.GenericOptionCode(175)

// isIPXE knows iPXE by its user class, which it sends without RFC 3004's length, or by its own option.
func isIPXE(p *dhcpv4.DHCPv4) bool {
	user := string(p.GetOneOption(dhcpv4.OptionUserClassInformation))
	return user == "iPXE" || user == "\x04iPXE" || p.Options.Has(ipxeOptions)
}

// uuidOf reads RFC 4578's option 97: type 0, then 16 bytes.
func uuidOf(b []byte) string {
	if len(b) != 17 || b[0] != 0 {
		return ""
	}
	b = b[1:]
	blank := true
	for _, c := range b {
		blank = blank && (c == 0 || c == 0xff)
	}
	if blank {
		return ""
	}
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", binary.LittleEndian.Uint32(b[0:4]), binary.LittleEndian.Uint16(b[4:6]),
		binary.LittleEndian.Uint16(b[6:8]), b[8:10], b[10:16])
}

// swapUUID turns the bytes of a UUID's first three fields round.
func swapUUID(u string) string {
	if len(u) != 36 {
		return u
	}
	return u[6:8] + u[4:6] + u[2:4] + u[0:2] + "-" + u[11:13] + u[9:11] + "-" + u[16:18] + u[14:16] + u[18:]
}

// printable makes a foreign string fit for logs and objects.
func printable(s string) string {
	s = strings.TrimRight(s, "\x00")
	if len(s) > 64 {
		s = s[:64]
	}
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e {
			return '?'
		}
		return r
	}, s)
}

// isHostname is RFC 1123's rule; only such a name goes out as option 12, where it may end up in a script.
func isHostname(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if !alphanumeric(c) && c != '-' {
				return false
			}
		}
	}
	return true
}

func alphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}
