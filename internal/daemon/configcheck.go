// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"metald.io/metald/internal/cluster"
)

// check looks at the whole configuration before anything starts, and says everything that is wrong with it at once.
func (c *Config) check(file string, at lines) error {
	var problems []error
	bad := func(path, format string, args ...any) {
		problems = append(problems, fmt.Errorf("%s:%d: %s: %s", file, at.at(path), path, fmt.Sprintf(format, args...)))
	}
	if c.APIVersion != ConfigVersion {
		bad("apiVersion", "%q is not a version this metald reads: want %s", c.APIVersion, ConfigVersion)
	}
	if c.Kind != ConfigKind {
		bad("kind", "%q: want %s", c.Kind, ConfigKind)
	}
	c.checkDoors(bad)
	for i, d := range c.DHCP.Interfaces {
		d.check(fmt.Sprintf("dhcp.interfaces[%d]", i), bad)
		for j, other := range c.DHCP.Interfaces[:i] {
			if other.Name == d.Name {
				bad(fmt.Sprintf("dhcp.interfaces[%d].name", i), "%q is already dhcp.interfaces[%d]", d.Name, j)
			}
			if other.Subnet.IsValid() && d.Subnet.IsValid() && other.Subnet.Overlaps(d.Subnet) {
				bad(fmt.Sprintf("dhcp.interfaces[%d].subnet", i), "%s overlaps %s of dhcp.interfaces[%d]", d.Subnet, other.Subnet, j)
			}
		}
	}
	for i, p := range c.BMC.Sweep {
		if p != p.Masked() {
			bad(fmt.Sprintf("bmc.sweep[%d]", i), "%s has host bits set: want %s", p, p.Masked())
		}
	}
	for _, d := range []struct {
		path  string
		value time.Duration
	}{
		{"bmc.pollInterval", c.BMC.PollInterval},
		{"bmc.sweepInterval", c.BMC.SweepInterval},
		{"limits.bootTimeout", c.Limits.BootTimeout},
		{"limits.joinTimeout", c.Limits.JoinTimeout},
	} {
		if d.value < time.Second {
			bad(d.path, "%s is too short: want at least 1s", d.value)
		}
	}
	if c.Limits.JoinTimeout > cluster.MaxGrant {
		bad("limits.joinTimeout", "%s is too long for a bootstrap token: want at most %s", c.Limits.JoinTimeout, cluster.MaxGrant)
	}
	if e := c.Storage.Encryption; e != "" && !filepath.IsAbs(e) {
		bad("storage.encryption", "%q: want an absolute path", e)
	}
	c.Storage.Etcd.Check(func(field, format string, args ...any) { bad("storage.etcd."+field, format, args...) })
	if c.Limits.DestructiveActsPerHour < -1 {
		bad("limits.destructiveActsPerHour", "%d: want a number of acts, 0 for none allowed, or -1 for no cap", c.Limits.DestructiveActsPerHour)
	}
	if c.Limits.BootsAtOnce < 0 {
		bad("limits.bootsAtOnce", "%d: want a number of hosts, or 0 for no limit", c.Limits.BootsAtOnce)
	}
	if !slices.Contains([]string{"text", "json"}, c.Log.Format) {
		bad("log.format", "%q: want text or json", c.Log.Format)
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level) {
		bad("log.level", "%q: want debug, info, warn or error", c.Log.Level)
	}
	return errors.Join(problems...)
}

func (c *Config) checkDoors(bad func(path, format string, args ...any)) {
	checkListen("api.listen", c.API.Listen, bad)
	for i, n := range c.API.Names {
		if n == "" || strings.ContainsAny(n, "/: ") && !isAddr(n) {
			bad(fmt.Sprintf("api.names[%d]", i), "%q is neither a DNS name nor an IP address", n)
		}
	}
	if a := c.API.Authentication; a != "" && !filepath.IsAbs(a) {
		bad("api.authentication", "%q: want an absolute path", a)
	}
	if c.Agents.Listen != "" {
		checkListen("agents.listen", c.Agents.Listen, bad)
	}
	if c.Boot.Listen != "" {
		checkListen("boot.listen", c.Boot.Listen, bad)
	}
	listens := map[string]string{}
	for _, l := range []struct{ path, listen string }{
		{"api.listen", c.API.Listen}, {"agents.listen", c.Agents.Listen}, {"boot.listen", c.Boot.Listen},
	} {
		if l.listen == "" {
			continue
		}
		if other, taken := listens[l.listen]; taken {
			bad(l.path, "%s is %s already", l.listen, other)
		}
		listens[l.listen] = l.path
	}
	c.TFTP.check(bad)
	checkURL("agents.url", c.Agents.URL, "https", bad)
	checkURL("boot.url", c.Boot.URL, "http", bad)
	if len(c.DHCP.Interfaces) == 0 {
		return
	}
	// A machine that gets an address but no place to boot from would only show up as a timeout, minutes later.
	if c.Boot.URL == "" {
		bad("boot.url", "must be given: DHCP is on, and boot.listen does not say which address machines reach")
	}
	if c.Agents.URL == "" {
		bad("agents.url", "must be given: DHCP is on, and agents.listen does not say which address machines reach")
	}
}

// check leaves the files themselves to the start: other commands read the configuration too.
func (t TFTPConfig) check(bad func(path, format string, args ...any)) {
	if t.Listen != "" {
		checkListen("tftp.listen", t.Listen, bad)
	}
	for _, l := range t.Loaders.all() {
		switch {
		case l[1] != "" && !filepath.IsAbs(l[1]):
			bad("tftp.loaders."+l[0], "%q: want an absolute path", l[1])
		case l[1] != "" && t.Listen == "":
			bad("tftp.loaders."+l[0], "is given, but tftp.listen is empty: nobody would serve it")
		}
	}
}

func (d DHCPInterface) check(path string, bad func(path, format string, args ...any)) {
	if d.Name == "" {
		bad(path+".name", "must be given")
	}
	if !d.Subnet.IsValid() {
		bad(path+".subnet", "must be given, as 172.22.0.0/24")
		return
	}
	if !d.Subnet.Addr().Is4() {
		bad(path+".subnet", "%s: only IPv4 is served", d.Subnet)
		return
	}
	if d.Subnet != d.Subnet.Masked() {
		bad(path+".subnet", "%s has host bits set: want %s", d.Subnet, d.Subnet.Masked())
	}
	within := func(key string, a netip.Addr) {
		switch {
		case !a.IsValid():
			bad(path+key, "must be given")
		case !d.Subnet.Contains(a):
			bad(path+key, "%s is outside of %s", a, d.Subnet)
		}
	}
	within(".server", d.Server)
	within(".range", d.Range.First)
	if d.Range.First.IsValid() {
		within(".range", d.Range.Last)
	}
	if d.Router.IsValid() {
		within(".router", d.Router)
	}
	if d.Range.First.IsValid() && d.Range.Last.Less(d.Range.First) {
		bad(path+".range", "%s is after %s", d.Range.First, d.Range.Last)
	}
	for _, taken := range []struct {
		what string
		addr netip.Addr
	}{{"the server's own address", d.Server}, {"the router's address", d.Router}} {
		if taken.addr.IsValid() && d.Range.First.IsValid() && !taken.addr.Less(d.Range.First) && !d.Range.Last.Less(taken.addr) {
			bad(path+".range", "holds %s %s", taken.what, taken.addr)
		}
	}
	if d.LeaseTime < time.Minute {
		bad(path+".leaseTime", "%s is too short: want at least 1m", d.LeaseTime)
	}
}

func checkListen(path, listen string, bad func(path, format string, args ...any)) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		bad(path, "%q is not address:port", listen)
		return
	}
	if host != "" && host != "localhost" && !isAddr(host) {
		bad(path, "%q: want an IP address of this machine before the port", listen)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		bad(path, "%q: %s is not a port", listen, port)
	}
}

func checkURL(path, text, scheme string, bad func(path, format string, args ...any)) {
	if text == "" {
		return
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != scheme || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		bad(path, "%q: want %s://host or %s://host:port and nothing after it", text, scheme, scheme)
	}
}

func isAddr(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}
