// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"github.com/coreos/go-systemd/v22/daemon"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/agent"
	"metald.io/metald/internal/agent/kubelet"
	"metald.io/metald/internal/agent/network"
)

// runOS is the unit of an OS image: it makes the machine a Node, by the seed that came with the boot or by the daemon's
// order, and stays to carry out what else is ordered.
func runOS(ctx context.Context) error {
	// Ready means: it runs. A daemon that is away must not hold up the machine's start.
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		return fmt.Errorf("telling systemd: %w", err)
	}
	seed, err := agent.ReadSeed(agent.RunDir)
	if err != nil {
		return err
	}
	boot, err := agent.ReadBoot(agent.RunDir)
	if err != nil {
		return err
	}
	node := kubelet.Here(agent.RunDir)
	if seed != nil {
		console.Say("joining as %s by the seed that came with the boot", seed.NodeName)
		if err := node.Join(ctx, *seed); err != nil {
			return err
		}
		status("joined as " + seed.NodeName + " by the seed of the boot")
		bless(boot)
		<-ctx.Done()
		return nil
	}
	authority, err := agent.Authority(agent.RunDir)
	if err != nil {
		return err
	}
	switch {
	case boot.Slot != "":
		if boot, err = leased(ctx, boot); err != nil {
			return nil // told to stop
		}
		clock(ctx, network.Lease{BootURL: boot.BootURL}, authority)
	case boot.AgentURL == "":
		return errors.New("this boot named no daemon, and left no seed")
	}
	tls, err := transport(authority)
	if err != nil {
		return err
	}
	a := agent.Agent{
		Daemon: agent.NewClient(boot.AgentURL, tls), Console: console, Mode: v1alpha1.OSMode, Version: Version(),
		Machine: running(boot, func(ctx context.Context, seed v1alpha1.JoinSeed) error {
			if err := node.Join(ctx, seed); err != nil {
				return err
			}
			status("joined as " + seed.NodeName)
			bless(boot)
			return nil
		}),
		Opened: func(s v1alpha1.Session) { status("session with " + boot.AgentURL + " as host " + s.Host.Name) },
	}
	if err := a.Run(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// status is what `systemctl status` shows. Nobody depends on it.
func status(text string) { _, _ = daemon.SdNotify(false, "STATUS="+text) }

// systemPowerOff lets systemd stop what runs.
func systemPowerOff() error {
	command := exec.Command("systemctl", "--no-block", "poweroff")
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	if err := command.Run(); err != nil {
		return fmt.Errorf("switching the machine off: %w", err)
	}
	return nil
}
