// SPDX-License-Identifier: Apache-2.0

package rack

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// network makes the namespace, the bridge, one tap a machine and one address a BMC. Each step may be repeated.
func (r *Rack) network(ctx context.Context) error {
	if !r.NetworkUp() {
		if _, err := output(exec.CommandContext(ctx, "ip", "netns", "add", r.Name)); err != nil {
			return err
		}
	}
	have, err := output(exec.CommandContext(ctx, "ip", "-n", r.Name, "-o", "addr", "show"))
	if err != nil {
		return err
	}
	links, err := output(exec.CommandContext(ctx, "ip", "-n", r.Name, "-o", "link", "show"))
	if err != nil {
		return err
	}
	var steps []string
	step := func(s string) { steps = append(steps, s) }
	if !strings.Contains(links, " "+Bridge+": ") {
		step("link set lo up")
		step("link add " + Bridge + " type bridge stp_state 0 forward_delay 0")
		step("link set " + Bridge + " up")
	}
	address := func(ip string) {
		if !strings.Contains(have, " "+ip+"/") {
			step("addr add " + ip + "/24 dev " + Bridge)
		}
	}
	address(Gateway)
	address(StrangerBMC)
	for n := range r.Hosts {
		spec := r.Spec(n)
		address(spec.BMC)
		if !strings.Contains(links, " "+spec.Tap+": ") {
			step("tuntap add dev " + spec.Tap + " mode tap")
			step("link set " + spec.Tap + " master " + Bridge)
			step("link set " + spec.Tap + " up")
		}
	}
	for _, s := range steps {
		if _, err := output(exec.CommandContext(ctx, "ip", append([]string{"-n", r.Name}, strings.Fields(s)...)...)); err != nil {
			return err
		}
	}
	return nil
}

// NetworkUp says whether the rack's namespace exists.
func (r *Rack) NetworkUp() bool {
	_, err := os.Stat(filepath.Join("/run/netns", r.Name))
	return err == nil
}

// removeNetwork takes the namespace away; its devices go with it.
func (r *Rack) removeNetwork(ctx context.Context) error {
	if !r.NetworkUp() {
		return nil
	}
	if _, err := output(exec.CommandContext(ctx, "ip", "netns", "del", r.Name)); err != nil {
		return fmt.Errorf("removing the network namespace: %w", err)
	}
	return nil
}
