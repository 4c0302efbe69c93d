// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/agent"
	"metald.io/metald/internal/agent/early"
	"metald.io/metald/internal/agent/network"
	diskname "metald.io/metald/internal/imaging/disk"
	"metald.io/metald/internal/imaging/diskless"
	"metald.io/metald/internal/imaging/slot"
)

const (
	espDir = "/run/metald/esp"
	runDir = "/run"
	// diskWithin is how long a disk may take to show itself, after all drivers are loaded.
	diskWithin = time.Minute
)

// slotHost is a host that was started from a slot of its disk.
type slotHost struct {
	host
	slot string
}

func (h slotHost) Hello() v1alpha1.Hello {
	hello := h.host.Hello()
	hello.Slot = h.slot
	return hello
}

// fromSlot says which slot of a disk this machine was started from. What cannot be read is said, and then the machine
// boots from the network: firmware that keeps no variables cannot have told.
func fromSlot() (slot.Boot, bool) {
	if err := early.Variables(); err != nil {
		console.Say("%v", err)
	}
	boot, disk, err := slot.Booted(early.VariablesDir)
	if err != nil {
		console.Say("%v; booting from the network", err)
	}
	return boot, disk
}

// rootFromDisk maps the root from the disk that the machine was started from. It needs no network, so an installed machine
// boots while the daemon is away.
func rootFromDisk(from slot.Boot, root diskless.Root, authority []byte, systemUUID string) (agent.Boot, error) {
	console.Say("booting %s, with root hash %s", from.Entry, root.RootHash)
	<-drivers // the disk's among them
	ctx, cancel := context.WithTimeout(context.Background(), diskWithin)
	defer cancel()
	disk, err := slot.Await(ctx, "/", from.ESP)
	if err == nil {
		err = mapSlot(disk, from.Slot, root)
	}
	if err != nil {
		refuseSlot(disk, from, root, authority, systemUUID, err)
		return agent.Boot{}, err
	}
	return agent.Boot{RootHash: root.RootHash, Slot: from.Slot, ESP: from.ESP}, nil
}

// mapSlot mounts a slot's root and gives it the disk's state partition.
func mapSlot(disk slot.Disk, name string, root diskless.Root) error {
	data, hash, err := disk.Root(name)
	if err != nil {
		return err
	}
	state, err := disk.Partition(diskname.State)
	if err != nil {
		return err
	}
	if err := diskless.MapDevices(data.Device, hash.Device, root, target); err != nil {
		return fmt.Errorf("opening slot %s on disk %s: %w", name, disk.Name, err)
	}
	return slot.Settle(target, runDir, state.UUID)
}

// refuseSlot tells the daemon that this machine does not boot what lies in a slot, gives the other slot its turn where it
// has something to boot, and switches the machine off where it has not. It comes back only when that was not possible.
func refuseSlot(disk slot.Disk, from slot.Boot, root diskless.Root, authority []byte, systemUUID string, why error) {
	lines := []string{why.Error(), "Image: root hash " + root.RootHash}
	var mismatch *diskless.MismatchError
	if errors.As(why, &mismatch) {
		lines = append(lines, "To do: install the host again; its disk does not hold what was written.")
	}
	console.Shout("this machine refuses slot "+from.Slot+" of its disk.", lines...)
	ctx, cancel := context.WithTimeout(context.Background(), refuseWithin)
	defer cancel()
	if lease, err := online(ctx, systemUUID, func(network.Lease) {}); err != nil {
		console.Say("the daemon could not be told: %v", err)
	} else {
		clock(ctx, lease, authority)
		machine := host{bootMAC: lease.MAC.String(), rootHash: root.RootHash, powerOff: early.PowerOff, drivers: drivers}
		tell(ctx, lease, authority, slotHost{machine, from.Slot}, why)
	}
	other, err := turn(disk, from.Slot)
	switch {
	case err != nil:
		console.Say("giving the other slot its turn: %v", err)
	case other != "":
		console.Say("slot %s gets its turn", other)
		console.Say("%v", early.Reboot())
	}
	console.Say("the other slot holds nothing to boot: this machine switches itself off")
	console.Say("%v", early.PowerOff())
}

// turn marks a slot as bad where the other has something to boot, and says which.
func turn(disk slot.Disk, name string) (other string, err error) {
	esp, err := disk.Partition(diskname.ESP)
	if err != nil {
		return "", err
	}
	err = slot.With(esp.Device, espDir, func(dir string) error {
		other, err = slot.Turn(dir, name)
		return err
	})
	return other, err
}

// bless calls the entry that this machine was started from good: it is a node.
func bless(boot agent.Boot) {
	if boot.Slot == "" {
		return
	}
	changed := false
	err := slot.With(slot.Device(boot.ESP), espDir, func(dir string) (err error) {
		changed, err = slot.Bless(dir, boot.Slot)
		return err
	})
	switch {
	case err != nil:
		console.Say("calling slot %s good: %v; the boot loader goes on counting its boots", boot.Slot, err)
	case changed:
		console.Say("slot %s is good: the boot loader counts its boots no more", boot.Slot)
	}
}

// leased waits until the OS's own DHCP client has been told where the daemon is, for a machine that was started from its
// disk. It gives up when ctx ends.
func leased(ctx context.Context, boot agent.Boot) (agent.Boot, error) {
	told := time.Now()
	status("waiting for a lease that names the daemon")
	for {
		lease, ok, err := network.Told("/")
		if ok {
			boot.BootURL, boot.AgentURL, boot.MAC = lease.BootURL, lease.AgentURL, lease.MAC.String()
			console.Say("%s: daemon at %s", lease.Device, lease.AgentURL)
			return boot, nil
		}
		if time.Since(told) > time.Minute {
			told = time.Now()
			console.Say("no lease names the daemon (DHCP option 225) yet")
			if err != nil {
				console.Say("%v", err)
			}
		}
		select {
		case <-ctx.Done():
			return boot, ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// running are the facts of a host in its OS.
func running(boot agent.Boot, join func(context.Context, v1alpha1.JoinSeed) error) slotHost {
	return slotHost{host{bootMAC: boot.MAC, rootHash: boot.RootHash, powerOff: systemPowerOff, join: join}, boot.Slot}
}
