// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/agent"
	"metald.io/metald/internal/agent/early"
	"metald.io/metald/internal/agent/facts"
	"metald.io/metald/internal/agent/network"
	"metald.io/metald/internal/imaging/diskless"
)

const (
	imageDir = "/image"
	target   = "/sysroot"
	// refuseWithin is how long a machine that refuses its image tries to tell the daemon before it switches itself off.
	refuseWithin = 90 * time.Second
)

// initrd brings the image's root, from the disk that the machine was started from or else from the daemon, checks it against
// the command line, and starts it. It comes back only with what went wrong; a root that is not what the command line
// promised is reported, and the other slot gets its turn or the machine is switched off.
func initrd(root diskless.Root) error {
	authority, err := agent.Authority(agent.EtcDir)
	if err != nil {
		return err
	}
	seed, err := agent.ReadSeed(agent.EtcDir)
	if err != nil {
		return err
	}
	from, disk := fromSlot()
	machine := facts.Hello("/", "")
	var boot agent.Boot
	if disk {
		boot, err = rootFromDisk(from, root, authority, machine.SystemUUID)
	} else {
		boot, err = rootFromNetwork(root, authority, machine.SystemUUID)
	}
	if err != nil {
		return err
	}
	if err := agent.Leave(agent.RunDir, boot, authority, seed); err != nil {
		return err
	}
	if err := diskless.Settle(target, diskless.MachineID(machine.SystemUUID)); err != nil {
		return err
	}
	console.Say("starting the image")
	return diskless.Switch(target, "/sbin/init", nil, []string{"HOME=/", "TERM=linux", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"})
}

// rootFromNetwork fetches the root into memory and mounts it.
func rootFromNetwork(root diskless.Root, authority []byte, systemUUID string) (agent.Boot, error) {
	console.Say("booting the image with root hash %s", root.RootHash)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	lease, err := online(ctx, systemUUID, func(network.Lease) {})
	if err != nil {
		return agent.Boot{}, err
	}
	clock(ctx, lease, authority)
	if err := fetch(ctx, lease.BootURL, root); err != nil {
		refuse(ctx, lease, authority, root, err)
		return agent.Boot{}, err
	}
	boot := agent.Boot{BootURL: lease.BootURL, AgentURL: lease.AgentURL, MAC: lease.MAC.String(), RootHash: root.RootHash}
	cancel()
	if err := network.DownAll(); err != nil {
		return boot, fmt.Errorf("taking the network down for the OS: %w", err)
	}
	return boot, nil
}

// fetch brings the root into memory and mounts it.
func fetch(ctx context.Context, bootURL string, root diskless.Root) error {
	if err := diskless.Memory(imageDir, root); err != nil {
		return err
	}
	began, told := time.Now(), time.Now()
	path := filepath.Join(imageDir, "root.img")
	err := diskless.Fetch(ctx, plain(), bootURL, root, path, func(done int64) {
		if time.Since(told) > 5*time.Second {
			told = time.Now()
			console.Say("fetching the image: %d of %d MiB", done>>20, root.SizeBytes>>20)
		}
	})
	if err != nil {
		return err
	}
	took := time.Since(began)
	console.Say("fetched and checked %d MiB in %.1f s", root.SizeBytes>>20, took.Seconds())
	<-drivers // dm-verity's and the file system's among them
	return diskless.Map(path, root, target)
}

// refuse tells the daemon that this machine does not boot its image, says so at the console, and switches the machine off.
func refuse(ctx context.Context, lease network.Lease, authority []byte, root diskless.Root, why error) {
	lines := []string{why.Error(), "Image: root hash " + root.RootHash}
	var mismatch *diskless.MismatchError
	if errors.As(why, &mismatch) {
		lines = append(lines, "To do: import the image again; what the daemon serves is not what was built.")
	}
	console.Shout("this machine refuses its image.", append(lines, "It switches itself off.")...)
	ctx, cancel := context.WithTimeout(ctx, refuseWithin)
	defer cancel()
	tell(ctx, lease, authority, host{bootMAC: lease.MAC.String(), rootHash: root.RootHash, powerOff: early.PowerOff, drivers: drivers}, why)
	console.Say("%v", early.PowerOff())
}

// tell says to the daemon of a lease what a machine refuses, until ctx ends.
func tell(ctx context.Context, lease network.Lease, authority []byte, machine agent.Machine, why error) {
	if lease.AgentURL == "" {
		return
	}
	tls, err := transport(authority)
	if err == nil {
		a := agent.Agent{
			Daemon: agent.NewClient(lease.AgentURL, tls), Console: console, Mode: v1alpha1.InitrdMode, Version: Version(), Machine: machine,
		}
		err = a.Refuse(ctx, why.Error())
	}
	if err != nil {
		console.Say("the daemon could not be told: %v", err)
		return
	}
	console.Say("the daemon knows")
}
