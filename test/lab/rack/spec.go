// SPDX-License-Identifier: Apache-2.0

package rack

import (
	"crypto/sha256"
	"fmt"
	"strings"
)

// What a machine's BMC speaks.
const (
	Redfish = "redfish"
	IPMI    = "ipmi"
)

// What a machine's disk hangs on.
const (
	virtioDisk = "virtio"
	nvmeDisk   = "nvme"
)

const (
	machineCPUs   = 2
	machineMemory = 2048
	// diskBytes is a disk's size; the file behind it is sparse and costs what is written to it.
	diskBytes = 8 << 30
)

// Spec is what one machine is made of.
type Spec struct {
	Name   string
	Index  int
	MAC    string
	UUID   string
	Serial string
	// BMC is its BMC's address, Protocol what it speaks: Redfish or IPMI.
	BMC      string
	Protocol string
	Username string
	Tap      string
	CPUs     int
	Memory   int
	// Network is how its firmware boots from the network, in Redfish's words: UefiHttp or Pxe.
	Network string
	// Disk is what its disk hangs on: virtio or nvme.
	Disk string
	// Pool is the NodePool that is to have it, Zone where it stands: pools choose by zone.
	Pool string
	Zone string
}

// The rack's pools, by name.
const (
	Diskless  = "diskless"
	Installed = "installed"
)

// pools say how hosts of a pool get their image, and in which zone it finds them.
var pools = map[string]struct{ method, zone string }{
	Diskless:  {"diskless", "lab-a"},
	Installed: {"install", "lab-b"},
}

// model is what machines differ in.
type model struct{ protocol, network, disk, pool string }

// models are the machines of a full rack, in order: each kind that metald must cope with is there once.
var models = []model{
	{Redfish, bootHTTP, virtioDisk, Diskless},
	{Redfish, bootPXE, virtioDisk, Installed},
	{IPMI, bootPXE, nvmeDisk, Installed},
}

// Spec describes machine n. Everything in it follows from the rack and the number, so a restarted rack has the same machines.
func (r *Rack) Spec(n int) Spec {
	name := fmt.Sprintf("r1n%02d", n)
	sum := sha256.Sum256([]byte(r.Name + "/" + name))
	sum[6], sum[8] = sum[6]&0x0f|0x80, sum[8]&0x3f|0x80 // RFC 9562 version 8, variant 1
	m := models[n%len(models)]
	spec := Spec{
		Name:     name,
		Index:    n,
		MAC:      fmt.Sprintf("52:54:00:6d:6c:%02x", n),
		UUID:     fmt.Sprintf("%x-%x-%x-%x-%x", sum[0:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16]),
		Serial:   fmt.Sprintf("LAB%04d", n),
		BMC:      fmt.Sprintf("172.22.0.%d", firstBMC+n),
		Protocol: m.protocol,
		Username: "root",
		Tap:      fmt.Sprintf("mtap%d", n),
		CPUs:     machineCPUs,
		Memory:   machineMemory,
		Network:  m.network,
		Disk:     m.disk,
		Pool:     m.pool,
		Zone:     pools[m.pool].zone,
	}
	if r.Spoil != nil {
		r.Spoil(&spec)
	}
	return spec
}

// Address is the BMC's as a person writes it into hosts.csv.
func (s Spec) Address() string {
	switch {
	case s.Protocol == IPMI:
		return "ipmi://" + s.BMC
	case s.Network == bootHTTP:
		return "redfish-uefihttp://" + s.BMC + system
	default:
		return "redfish://" + s.BMC + system
	}
}

// DiskSerial is what the machine's disk says of itself.
func (s Spec) DiskSerial() string { return s.Serial + "D0" }

// bootTargets are what the machine's one-time boot can be set to.
func (s Spec) bootTargets() []string { return []string{bootNone, s.Network, bootDisk} }

// SpecOf finds a machine by its name.
func (r *Rack) SpecOf(name string) (Spec, error) {
	for n := range r.Hosts {
		if s := r.Spec(n); s.Name == name {
			return s, nil
		}
	}
	return Spec{}, fmt.Errorf("finding machine %s: this rack has %s", name, strings.Join(r.Names(), ", "))
}

// Names are the machines' names, in order.
func (r *Rack) Names() []string {
	var all []string
	for n := range r.Hosts {
		all = append(all, r.Spec(n).Name)
	}
	return all
}
