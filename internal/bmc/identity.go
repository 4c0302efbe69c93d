// SPDX-License-Identifier: Apache-2.0

package bmc

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"

	schema "github.com/stmcginnis/gofish/redfish"
)

// Identity reads who the machine is: its system, its manager's version and its Ethernet addresses.
func (r *redfish) Identity(ctx context.Context) (Identity, error) {
	var id Identity
	err := r.with(ctx, func(c *call) error {
		s, err := r.computer(c)
		if err != nil {
			return err
		}
		id = Identity{
			Manufacturer: told(s.Manufacturer),
			Model:        told(s.Model),
			SerialNumber: told(s.SerialNumber),
			SystemUUID:   uuid(s.UUID),
			BIOSVersion:  told(s.BIOSVersion),
		}
		if id.BMCVersion, err = managerVersion(c, s); err != nil {
			return err
		}
		id.MACs, err = macs(c, s)
		return err
	})
	if err != nil {
		return Identity{}, fmt.Errorf("reading identity: %w", err)
	}
	return id, nil
}

// managerVersion is the firmware version of the BMC that manages the system. A BMC that does not tell is no error; a
// network that fails is.
func managerVersion(c *call, s *computer) (string, error) {
	managers, err := s.ManagedBy()
	if err != nil && c.failure() != nil {
		return "", fmt.Errorf("reading manager: %w", c.failure())
	}
	for _, m := range managers {
		if m.ManagerType == schema.BMCManagerType || len(managers) == 1 {
			return told(m.FirmwareVersion), nil
		}
	}
	return "", nil
}

func macs(c *call, s *computer) ([]string, error) {
	ports, err := s.EthernetInterfaces()
	if err != nil && c.failure() != nil {
		return nil, fmt.Errorf("reading Ethernet interfaces: %w", c.failure())
	}
	// gofish reads the members side by side and returns them in the order in which they came.
	slices.SortStableFunc(ports, func(a, b *schema.EthernetInterface) int { return natural(a.ODataID, b.ODataID) })
	var all []string
	for _, p := range ports {
		for _, m := range []string{p.PermanentMACAddress, p.MACAddress} {
			if m = mac(m); m != "" {
				if !slices.Contains(all, m) {
					all = append(all, m)
				}
				break
			}
		}
	}
	return all, nil
}

// natural orders NIC2 before NIC10: shorter ids first, then by letter.
func natural(a, b string) int {
	if d := len(a) - len(b); d != 0 {
		return d
	}
	return strings.Compare(a, b)
}

// mac is an Ethernet address in lower case with colons; empty for anything else, and for all zeros.
func mac(s string) string {
	hw, err := net.ParseMAC(strings.TrimSpace(s))
	if err != nil || len(hw) != 6 || !slices.ContainsFunc(hw, func(b byte) bool { return b != 0 }) {
		return ""
	}
	return hw.String()
}

// placeholders are what factories leave in fields that they should have filled. Two hosts must not look like one for it.
var placeholders = []string{
	"", "-", "n/a", "na", "none", "null", "unknown", "empty", "default string", "default", "not specified", "not available",
	"to be filled by o.e.m.", "to be filled by oem", "o.e.m.", "oem", "system serial number", "system manufacturer",
	"system product name", "system version", "0", "00000000", "0000000000", "0123456789", "123456789", "1234567890", "xxxxxxxxxx",
}

// told is a value of the BMC, or empty where it is a placeholder.
func told(s string) string {
	s = printable(s)
	if slices.Contains(placeholders, strings.ToLower(s)) {
		return ""
	}
	return s
}

// uuid is a UUID in lower case; empty where it is none, or made of one repeated digit.
func uuid(s string) string {
	s = strings.ToLower(strings.TrimSpace(s))
	digits := strings.ReplaceAll(s, "-", "")
	if len(s) != 36 || len(digits) != 32 || strings.Trim(digits, "0123456789abcdef") != "" || strings.Trim(digits, digits[:1]) == "" {
		return ""
	}
	return s
}
