// SPDX-License-Identifier: Apache-2.0

package bmc

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	library "github.com/bmc-toolbox/bmclib/v2/providers/redfish"
	parts "github.com/bmc-toolbox/common"
	"github.com/go-logr/logr"
)

// Inventory is what the BMC knows of the machine's parts. Many BMCs know little while the machine is off.
type Inventory struct {
	Processors []Part
	Memory     []Part
	Drives     []Part
	Ports      []Part
	Supplies   []Part
	TPMs       []Part
	// Firmware is the installed version of each named component: BIOS, BMC.
	Firmware map[string]string
}

// Part is one part of the machine. Fields that do not belong to its kind are zero.
type Part struct {
	// ID is the BMC's own name of it, as DIMM.Socket.A1.
	ID       string
	Vendor   string
	Model    string
	Serial   string
	Firmware string
	// Kind is DRAM or DDR5 for memory, SSD or HDD for drives, the interface for TPMs, the architecture for processors.
	Kind string
	// Bytes is the size of memory and drives; BitsPerSecond the speed of ports; Watts the capacity of power supplies.
	Bytes         int64
	BitsPerSecond int64
	Watts         int64
	Cores         int
	Threads       int
	// MAC is a port's address, in lower case with colons.
	MAC string
	// Health is OK, Warning or Critical, where the BMC says it.
	Health string
}

// Inventory lists the parts, by bmclib's Redfish driver. That driver goes through our call: it has no credentials, opens
// no session of its own, and obeys the context and the bounds, none of which it would by itself.
func (r *redfish) Inventory(ctx context.Context) (Inventory, error) {
	var inv Inventory
	err := r.with(ctx, func(c *call) error {
		// This first read also renews a lost session: bmclib would take the 401 for an empty machine.
		s, err := r.computer(c)
		if err != nil {
			return err
		}
		device, err := collect(c, s.Name)
		if err != nil {
			return err
		}
		if err := c.failure(); err != nil {
			return err // bmclib goes on without what it could not read
		}
		if device.BIOS.Firmware == nil { // set with the first thing that is read of a known system
			return fmt.Errorf("bmclib does not know a system at %s: %w", printable(r.system), ErrNotSupported)
		}
		if device.Serial != "" && device.Serial != s.SerialNumber {
			return fmt.Errorf("the BMC has two systems called %q: %w", printable(s.Name), ErrNotSupported)
		}
		inv = inventory(device)
		return nil
	})
	if err != nil {
		return Inventory{}, fmt.Errorf("reading inventory: %w", err)
	}
	return inv, nil
}

func collect(c *call, system string) (*parts.Device, error) {
	client := &http.Client{
		Transport:     c,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	driver := library.New(c.wire.address.URL(), "", "", logr.Discard(),
		library.WithHttpClient(client),
		library.WithPort(""),
		library.WithUseBasicAuth(true), // with no user this means: no login
		library.WithSystemName(system))
	if err := driver.Open(c.ctx); err != nil {
		return nil, fmt.Errorf("opening bmclib's driver: %w", err)
	}
	device, err := driver.Inventory(c.ctx)
	if err != nil {
		return nil, fmt.Errorf("collecting parts: %w", err)
	}
	return device, nil
}

// inventory turns bmclib's device into ours.
func inventory(d *parts.Device) Inventory {
	inv := Inventory{Firmware: map[string]string{}}
	if v := version(d.BIOS.Firmware); v != "" {
		inv.Firmware["BIOS"] = v
	}
	if d.BMC != nil && version(d.BMC.Firmware) != "" {
		inv.Firmware["BMC"] = version(d.BMC.Firmware)
	}
	for _, x := range d.CPUs {
		p := part(x.ID, x.Common)
		p.Kind, p.Cores, p.Threads = told(x.Architecture), x.Cores, x.Threads
		inv.Processors = append(inv.Processors, p)
	}
	for _, x := range d.Memory {
		p := part(x.Slot, x.Common)
		p.Kind, p.Bytes = told(x.Type), x.SizeBytes
		if p.Model == "" {
			p.Model = told(x.PartNumber)
		}
		inv.Memory = append(inv.Memory, p)
	}
	for _, x := range d.Drives {
		p := part(x.ID, x.Common)
		p.Kind, p.Bytes = told(x.Type), x.CapacityBytes
		inv.Drives = append(inv.Drives, p)
	}
	for _, nic := range d.NICs {
		for _, x := range nic.NICPorts {
			p := part(x.ID, x.Common)
			p.MAC, p.BitsPerSecond = mac(x.MacAddress), x.SpeedBits
			inv.Ports = append(inv.Ports, p)
		}
	}
	for _, x := range d.PSUs {
		p := part(x.ID, x.Common)
		p.Watts = x.PowerCapacityWatts
		inv.Supplies = append(inv.Supplies, p)
	}
	for _, x := range d.TPMs {
		p := part("", x.Common)
		p.Kind = told(x.InterfaceType)
		inv.TPMs = append(inv.TPMs, p)
	}
	// gofish reads the members of a collection side by side and returns them as they came.
	for _, list := range [][]Part{inv.Processors, inv.Memory, inv.Drives, inv.Ports, inv.Supplies} {
		slices.SortStableFunc(list, func(a, b Part) int { return natural(a.ID, b.ID) })
	}
	return inv
}

func part(id string, c parts.Common) Part {
	p := Part{ID: printable(id), Vendor: told(c.Vendor), Model: told(c.Model), Serial: told(c.Serial), Firmware: version(c.Firmware)}
	if c.Status != nil {
		p.Health = told(c.Status.Health)
	}
	return p
}

func version(f *parts.Firmware) string {
	if f == nil {
		return ""
	}
	return told(f.Installed)
}
