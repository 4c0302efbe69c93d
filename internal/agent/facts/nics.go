// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"net"
	"path/filepath"
	"strings"

	"metald.io/metald/api/v1alpha1"
)

// nics lists the network devices that have hardware behind them: a bus address, and no physical function that they are
// a part of.
func (r *reader) nics(bootMAC string) ([]v1alpha1.NICFacts, error) {
	names, err := r.list("sys/class/net")
	var all []v1alpha1.NICFacts
	for _, name := range names {
		dir := "sys/class/net/" + name
		if !r.exists(dir+"/device") || r.exists(dir+"/device/physfn") {
			continue
		}
		nic := v1alpha1.NICFacts{
			Name:   name,
			MAC:    strings.ToLower(first(r.permanent(name), r.line(dir+"/address"))),
			Driver: r.base(dir + "/device/driver"),
			Link:   r.line(dir+"/carrier") == "1",
			MTU:    int(r.number(dir + "/mtu")),
		}
		if speed := r.number(dir + "/speed"); speed > 0 { // -1 or an error without a link
			nic.SpeedMbps = int(speed)
		}
		r.bus(&nic, dir+"/device")
		nic.Boot = bootMAC != "" && strings.EqualFold(nic.MAC, bootMAC)
		nic.IPs = r.addresses(name)
		all = append(all, nic)
	}
	return all, err
}

// permanent is the address in the card, where a bond has given its members one of its own.
func (r *reader) permanent(name string) string {
	return r.line("sys/class/net/" + name + "/bonding_slave/perm_hwaddr")
}

// bus finds the PCI function behind a device. A virtio device is one step further from it.
func (r *reader) bus(nic *v1alpha1.NICFacts, device string) {
	path, err := filepath.EvalSymlinks(r.path(device))
	if err != nil {
		r.problem("finding the bus of %s: %v", nic.Name, err)
		return
	}
	for ; len(path) > len(r.root); path = filepath.Dir(path) {
		if address := filepath.Base(path); pciAddress.MatchString(address) {
			nic.PCIAddress = address
			break
		}
	}
	if nic.PCIAddress != "" {
		function := "sys/bus/pci/devices/" + nic.PCIAddress
		nic.VendorID = strings.TrimPrefix(r.line(function+"/vendor"), "0x")
		nic.DeviceID = strings.TrimPrefix(r.line(function+"/device"), "0x")
	}
}

// addresses are the IP addresses of a device of this machine. They are not below a root directory: only where this
// machine itself is read they are to be had.
func (r *reader) addresses(name string) []string {
	if r.root != "/" {
		return nil
	}
	device, err := net.InterfaceByName(name)
	if err != nil {
		return nil
	}
	addresses, err := device.Addrs()
	if err != nil {
		return nil
	}
	var all []string
	for _, address := range addresses {
		if network, ok := address.(*net.IPNet); ok && !network.IP.IsLinkLocalUnicast() {
			all = append(all, network.IP.String())
		}
	}
	return all
}
