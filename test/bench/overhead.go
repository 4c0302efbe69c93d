// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/test/lab/rack"
)

// overhead measures what metald itself adds to a host's way from its import to a Ready Node, from the phase times that it
// keeps: all but the boots (firmware, kernel, transfer) and the writing of an image. Joining is left in, though most of it is
// the kubelet's, so the value is an upper bound.
func overhead(ctx context.Context, r *rack.Rack, times int) error {
	const goal = 60.0
	host := r.Spec(0).Name
	var own []float64
	for n := range times {
		if err := forget(ctx, r, host); err != nil {
			return err
		}
		if err := r.Import(ctx, host); err != nil {
			return err
		}
		var last rack.Host
		err := r.Follow(ctx, host, func(h rack.Host) (bool, error) {
			last = h
			return h.Ready(), nil
		})
		if err != nil {
			return err
		}
		took, all, err := ownTime(last.Progress.Phases)
		if err != nil {
			return fmt.Errorf("the way of %s: %w", host, err)
		}
		fmt.Printf("# way %d: %.0f s from import to Ready, %.0f s of them metald's and the kubelet's\n", n+1, all.Seconds(), took.Seconds())
		own = append(own, took.Seconds())
	}
	p95 := percentile(own, 95)
	fmt.Printf("# no peer: the second value is the goal; p95 of %d ways of one emulated diskless host, joining included; durability: metald D2\n", times)
	fmt.Printf("BENCH P19 metald=%.1f peer=%.1f ratio=%.3f unit=s\n", p95, goal, p95/goal)
	return nil
}

// forget has metald let go of the host, if it has it, and waits until it is gone.
func forget(ctx context.Context, r *rack.Rack, host string) error {
	gone := func() bool {
		out, err := r.MetaldKubectl(ctx, "get", "bmh", host, "--ignore-not-found", "-o", "name").Output()
		return err == nil && strings.TrimSpace(string(out)) == ""
	}
	if gone() {
		return nil
	}
	cmd := r.MetaldCommand(ctx, "host", "forget", host)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("forgetting %s: %w: %s", host, err, out)
	}
	for deadline := time.Now().Add(r.Scale(5 * time.Minute)); !gone(); {
		if time.Now().After(deadline) {
			return fmt.Errorf("forgetting %s: it is still there", host)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
	// An earlier way's Node would be Ready before this one's kubelet has said a word.
	if err := r.Kubectl(ctx, "delete", "node", host, "--ignore-not-found").Run(); err != nil {
		if exit, ok := err.(*exec.ExitError); ok {
			return fmt.Errorf("removing the Node: %w: %s", err, exit.Stderr)
		}
		return fmt.Errorf("removing the Node: %w", err)
	}
	return nil
}

// ownTime is a way's time outside of the machine's own phases, and all of it. Phases may overlap.
func ownTime(phases []v1alpha1.Phase) (own, all time.Duration, err error) {
	type span struct{ from, to time.Time }
	var machine []span
	var from, to time.Time
	for _, p := range phases {
		if p.End == nil {
			return 0, 0, fmt.Errorf("phase %q has not ended", p.Name)
		}
		switch {
		case p.Name == "registering":
			from = p.Start.Time
		case p.Name == "provisioning":
			to = p.End.Time
		case strings.HasPrefix(p.Name, "boot "), p.Name == "write image":
			machine = append(machine, span{p.Start.Time, p.End.Time})
		}
	}
	if from.IsZero() || to.IsZero() || len(machine) == 0 {
		return 0, 0, fmt.Errorf("phases are missing: %v", phases)
	}
	slices.SortFunc(machine, func(a, b span) int { return a.from.Compare(b.from) })
	all = to.Sub(from)
	own, counted := all, from
	for _, s := range machine {
		if s.from.Before(counted) {
			s.from = counted
		}
		if s.to.After(s.from) {
			own, counted = own-s.to.Sub(s.from), s.to
		}
	}
	return own, all, nil
}
