// SPDX-License-Identifier: Apache-2.0

package bmc

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"strconv"
	"strings"
)

// Address is where a BMC is and how to talk to it. It is comparable, and its String parses to itself.
type Address struct {
	// Driver is Metal3's word without the transport: redfish, redfish-uefihttp, idrac-redfish, ..., or ipmi.
	Driver string
	// Host is the name or IP address, without brackets; Port is always set.
	Host string
	Port uint16
	// Plain is HTTP without TLS: only where "+http" was spelt out.
	Plain bool
	// System is the path of the computer system, as /redfish/v1/Systems/1; empty means the only one there is.
	System string
}

// drivers are the words that mean Redfish. The vendors' names are accepted because Metal3 users write them; quirks are
// found by asking the BMC and not by its name.
var drivers = map[string]bool{
	"redfish":              true,
	"redfish-uefihttp":     true,
	"redfish-virtualmedia": true,
	"idrac-redfish":        true,
	"idrac-virtualmedia":   true,
	"ilo5-redfish":         true,
	"ilo5-virtualmedia":    true,
}

// ParseAddress reads Metal3's forms of a BMC's address:
//
//	redfish://HOST[:PORT][/redfish/v1/Systems/ID]     also +https, and +http for HTTP without TLS
//	redfish-uefihttp://..., redfish-virtualmedia://..., idrac-redfish://..., ilo5-redfish://..., ...
//	https://HOST[:PORT][/redfish/v1/Systems/ID]       the same as redfish://
//	ipmi://HOST[:PORT]                                IPMI 2.0 over UDP (lanplus), port 623
//
// Other schemes that Metal3 knows, as libvirt, give an error that wraps ErrNotSupported.
func ParseAddress(s string) (Address, error) {
	a, err := parseAddress(s)
	if err != nil {
		return Address{}, fmt.Errorf("parsing BMC address: %w", err)
	}
	return a, nil
}

func parseAddress(s string) (Address, error) {
	u, err := url.Parse(strings.TrimSpace(s))
	if err != nil {
		// url.Error repeats its input, which may hold a password.
		return Address{}, fmt.Errorf("not a URL, expected redfish://HOST/redfish/v1/Systems/ID")
	}
	if u.User != nil {
		return Address{}, fmt.Errorf("it holds a user name; credentials belong in the Secret")
	}
	a := Address{Driver: u.Scheme}
	driver, transport, spelt := strings.Cut(u.Scheme, "+")
	switch {
	case u.Scheme == "https":
		a.Driver = "redfish"
	case u.Scheme == "http":
		return Address{}, fmt.Errorf("plain HTTP shows the password to the network: write redfish+http:// if that is wanted")
	case u.Scheme == "" || u.Host == "":
		return Address{}, fmt.Errorf("%q has no scheme or no host, expected redfish://HOST/redfish/v1/Systems/ID", s)
	case driver == "libvirt":
		return Address{}, fmt.Errorf("%s:// is not supported, use redfish:// or ipmi://: %w", driver, ErrNotSupported)
	case u.Scheme == driverIPMI:
		if u.Path != "" && u.Path != "/" {
			return Address{}, fmt.Errorf("path %q has no meaning with ipmi://", u.Path)
		}
	case !drivers[driver]:
		return Address{}, fmt.Errorf("unknown scheme %q, expected redfish://: %w", u.Scheme, ErrNotSupported)
	case spelt && transport != "http" && transport != "https":
		return Address{}, fmt.Errorf("unknown transport %q, expected http or https: %w", transport, ErrNotSupported)
	default:
		a.Driver, a.Plain = driver, transport == "http"
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return Address{}, fmt.Errorf("it holds a query or a fragment")
	}
	if a.Host, a.Port, err = hostPort(u, a.usualPort()); err != nil || a.IPMI() {
		return a, err
	}
	a.System, err = systemPath(u)
	return a, err
}

func hostPort(u *url.URL, usual uint16) (string, uint16, error) {
	host := strings.ToLower(u.Hostname())
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil {
		host = ip.String() // with its zone, where case matters
	} else if !hostname(host) {
		return "", 0, fmt.Errorf("%q is neither an IP address nor a host name", host)
	}
	if u.Port() == "" {
		if strings.HasSuffix(u.Host, ":") {
			return "", 0, fmt.Errorf("the port is missing after the colon")
		}
		return host, usual, nil
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil || port == 0 {
		return "", 0, fmt.Errorf("port %s is not between 1 and 65535", u.Port())
	}
	return host, uint16(port), nil
}

func hostname(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}

// systemPath is the path of one system, or empty for the service itself.
func systemPath(u *url.URL) (string, error) {
	p := strings.TrimSuffix(u.EscapedPath(), "/")
	switch p {
	case "", "/redfish", "/redfish/v1", "/redfish/v1/Systems":
		return "", nil
	}
	id, ok := strings.CutPrefix(p, "/redfish/v1/Systems/")
	if !ok || strings.Contains(id, "/") || path.Clean(p) != p {
		return "", fmt.Errorf("path %q is not /redfish/v1/Systems/ID", u.Path)
	}
	return p, nil
}

// driverIPMI is Metal3's word for IPMI over a network.
const driverIPMI = "ipmi"

// IPMI says whether the BMC is spoken to in IPMI, and not in Redfish.
func (a Address) IPMI() bool { return a.Driver == driverIPMI }

// Certified says whether the BMC shows a certificate, which is pinned before a password is sent. IPMI and plain HTTP have none:
// IPMI proves both sides by the password itself, and plain HTTP proves nothing.
func (a Address) Certified() bool { return !a.Plain && !a.IPMI() }

func (a Address) usualPort() uint16 {
	switch {
	case a.IPMI():
		return 623
	case a.Plain:
		return 80
	}
	return 443
}

// Authority is HOST:PORT, with brackets where the host is an IPv6 address.
func (a Address) Authority() string {
	return net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port)))
}

// URL is where the Redfish service is, as https://HOST:PORT. It has no meaning with IPMI.
func (a Address) URL() string {
	u := url.URL{Scheme: a.scheme(), Host: a.Authority()}
	return u.String()
}

func (a Address) scheme() string {
	if a.Plain {
		return "http"
	}
	return "https"
}

// String is the address as ParseAddress reads it, with the port and the transport spelt out where they are not the usual ones.
func (a Address) String() string {
	scheme := a.Driver
	if a.Plain {
		scheme += "+http"
	}
	u := url.URL{Scheme: scheme, Host: a.Authority()}
	if a.Port == a.usualPort() {
		u.Host = strings.TrimSuffix(u.Host, ":"+strconv.Itoa(int(a.Port)))
	}
	return u.String() + a.System
}
