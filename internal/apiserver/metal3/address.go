// SPDX-License-Identifier: Apache-2.0

package metal3

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// driver is what Metal3 says of one way to talk to a BMC.
type driver struct {
	needsMAC   bool // boots over the network, so its port must be known
	raid       bool
	secureBoot bool
	transports bool // +http and +https may be appended
}

var drivers = map[string]driver{
	"ipmi":                 {},
	"libvirt":              {needsMAC: true},
	"redfish":              {needsMAC: true, raid: true, secureBoot: true, transports: true},
	"ilo5-redfish":         {needsMAC: true, raid: true, secureBoot: true, transports: true},
	"idrac-redfish":        {needsMAC: true, raid: true, secureBoot: true, transports: true},
	"redfish-uefihttp":     {needsMAC: true, raid: true, secureBoot: true, transports: true},
	"redfish-virtualmedia": {raid: true, secureBoot: true, transports: true},
	"ilo5-virtualmedia":    {raid: true, secureBoot: true, transports: true},
	"idrac-virtualmedia":   {raid: true, secureBoot: true, transports: true},
	"https":                {needsMAC: true, raid: true, secureBoot: true}, // metald's own: the same as redfish
}

// readAddress finds the driver of a BMC's address. As in Metal3, an address without a scheme is IPMI's.
func readAddress(address string) (name string, d driver, err error) {
	if !strings.Contains(address, "://") {
		address = "ipmi://" + strings.TrimPrefix(address, "ipmi:")
	}
	u, err := url.Parse(address)
	if err != nil {
		// url.Error repeats its input, which may hold a password.
		return "", driver{}, fmt.Errorf("is not a URL, as redfish://HOST/redfish/v1/Systems/ID")
	}
	name, transport, spelt := strings.Cut(u.Scheme, "+")
	d, ok := drivers[name]
	if !ok || spelt && (!d.transports || transport != "http" && transport != "https") {
		return "", driver{}, fmt.Errorf("has the unknown BMC type %q, expected one of %s", u.Scheme, strings.Join(driverNames(), ", "))
	}
	if host := u.Hostname(); net.ParseIP(host) == nil && len(validation.IsDNS1123Subdomain(strings.ToLower(host))) > 0 {
		return "", driver{}, fmt.Errorf("names the BMC %q, which is neither an IP address nor a host name", host)
	}
	return name, d, nil
}

func driverNames() (names []string) {
	for name := range drivers {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
