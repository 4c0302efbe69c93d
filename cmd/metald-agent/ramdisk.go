// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net/http"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/agent"
	"metald.io/metald/internal/agent/early"
	"metald.io/metald/internal/agent/facts"
	"metald.io/metald/internal/agent/network"
)

// ramdisk brings the machine on the network and carries out orders until one says to switch off. It comes back only with
// what makes it impossible to begin.
func ramdisk() error {
	authority, err := agent.Authority(agent.EtcDir)
	if err != nil {
		return err
	}
	tls, err := transport(authority)
	if err != nil {
		return err
	}
	ctx := context.Background()
	leases := make(chan network.Lease, 1)
	lease, err := online(ctx, facts.Hello("/", "").SystemUUID, func(l network.Lease) { leases <- l })
	if err != nil {
		return err
	}
	// One agent for all addresses of this boot: it remembers how a step ended that the daemon has not heard of.
	a := agent.Agent{Console: console, Mode: v1alpha1.RamdiskMode, Version: Version()}
	for {
		clock(ctx, lease, authority)
		if lease.AgentURL == "" {
			console.Shout("the DHCP server names no daemon for agents (option 225).",
				"To do: set agentURL in the daemon's configuration of this network.")
			lease = <-leases
			continue
		}
		work, cancel := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() {
			a.Daemon = agent.NewClient(lease.AgentURL, tls)
			a.Machine = host{bootMAC: lease.MAC.String(), bootURL: lease.BootURL, users: &http.Client{Transport: tls}, powerOff: early.PowerOff, drivers: drivers}
			console.Say("saying hello to %s", lease.AgentURL)
			ended <- a.Run(work)
		}()
		select {
		case err := <-ended: // switched off, or it would not have ended
			cancel()
			if err != nil {
				return err
			}
			select {}
		case lease = <-leases: // another address or another daemon
			cancel()
			<-ended
			tls.CloseIdleConnections()
		}
	}
}
