// SPDX-License-Identifier: Apache-2.0

package pxe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"
)

// Answer is what a known machine is told.
type Answer struct {
	// Host names the host, for leases and logs.
	Host string
	// Hostname goes out as option 12 where it is a legal host name.
	Hostname string
	// Digest is the sha256 of the file to boot, in lower-case hex. Empty: an address and no boot file.
	Digest string
	// File is the name that the file gets in its URL.
	File string
}

// BootPolicy says what a machine gets; false means that the machine is unknown and gets silence. It is asked for each
// packet, so it answers from memory.
type BootPolicy interface {
	Boot(m Machine) (Answer, bool)
}

// Lease is an address that a machine holds until Expires, and keeps after that while nobody needs it.
type Lease struct {
	Interface string    `json:"interface"`
	MAC       string    `json:"mac"`
	IP        string    `json:"ip"`
	Host      string    `json:"host,omitempty"`
	Expires   time.Time `json:"expires"`
}

// Key is unlike for any two leases that may exist at once: a machine has one lease an interface.
func (l Lease) Key() string { return l.Interface + "/" + l.MAC }

// LeaseStore keeps leases over restarts, by Lease.Key. Save returns when the lease is durable: only then it is
// acknowledged to its machine.
type LeaseStore interface {
	Leases(ctx context.Context) ([]Lease, error)
	Save(ctx context.Context, l Lease) error
	Remove(ctx context.Context, l Lease) error
}

// Lookout hears of unknown machines, each at most once a minute. It may block: a slow one loses sightings, and delays
// nobody's boot.
type Lookout interface {
	Seen(m Machine, what string)
}

// Blobs opens a stored file by its sha256 in hex; a missing one is fs.ErrNotExist.
type Blobs interface {
	Open(sha256 string) (*os.File, error)
}

// Transfers hears how files travel to machines: Began before the first byte of a GET, Ended after its last one. whole is
// true where the end of the file went out.
type Transfers interface {
	Began(ip netip.Addr, digest string)
	Ended(ip netip.Addr, digest string, whole bool)
}

// Subnet is what one interface serves.
type Subnet struct {
	Interface string
	// Server is our own address there, and our DHCP server identifier.
	Server netip.Addr
	Prefix netip.Prefix
	// First and Last bound the addresses that are given out, both included.
	First, Last netip.Addr
	// Router is offered as the default route where it is valid.
	Router    netip.Addr
	DNS       []netip.Addr
	LeaseTime time.Duration
	// BootURL is the plain HTTP server, AgentURL the agents' TLS door, as machines on this subnet reach them.
	BootURL, AgentURL string
	// Loaders are the TFTP names of what PXE firmware loads first, by architecture ("amd64", "arm64"); none where TFTP is closed.
	Loaders map[string]string
}

// MinLeaseTime is the shortest lease that a subnet may ask for: below it renewals are most of the traffic.
const MinLeaseTime = time.Minute

// Validate says what is wrong with the subnet, all of it at once.
func (s Subnet) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if s.Interface == "" {
		bad("interface is missing")
	}
	if !s.Prefix.IsValid() || !s.Prefix.Addr().Is4() || s.Prefix.Bits() < 8 || s.Prefix.Bits() > 30 {
		bad("prefix %s is not an IPv4 network between /8 and /30", s.Prefix)
		return fmt.Errorf("checking subnet of interface %q: %w", s.Interface, errors.Join(errs...))
	}
	for _, a := range []struct {
		name string
		addr netip.Addr
	}{{"server", s.Server}, {"first", s.First}, {"last", s.Last}} {
		if !s.Prefix.Contains(a.addr) {
			bad("%s %s is not in %s", a.name, a.addr, s.Prefix)
		}
	}
	if s.Last.Less(s.First) {
		bad("last %s is below first %s", s.Last, s.First)
	}
	if s.Router.IsValid() && !s.Prefix.Contains(s.Router) {
		bad("router %s is not in %s", s.Router, s.Prefix)
	}
	for _, a := range s.DNS {
		if !a.Is4() {
			bad("dns %s is not an IPv4 address", a)
		}
	}
	if s.LeaseTime < MinLeaseTime {
		bad("lease time %s is below %s", s.LeaseTime, MinLeaseTime)
	}
	for _, u := range []struct{ name, value string }{{"boot URL", s.BootURL}, {"agents' URL", s.AgentURL}} {
		if p, err := url.Parse(u.value); err != nil || p.Host == "" || p.RawQuery != "" || p.Fragment != "" || (p.Scheme != "http" && p.Scheme != "https") {
			bad("%s %q is not an http or https URL", u.name, u.value)
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("checking subnet of interface %q: %w", s.Interface, errors.Join(errs...))
	}
	return nil
}

// bootFile is the URL of the answer's file, and false where the answer has none or a name that must not go on the wire.
func (s Subnet) bootFile(a Answer) (string, bool) {
	if !isDigest(a.Digest) || !isFileName(a.File) {
		return "", false
	}
	return strings.TrimRight(s.BootURL, "/") + BootPath + a.Digest + "/" + a.File, true
}
