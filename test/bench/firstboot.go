// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"metald.io/metald/test/lab/rack"
)

// firstBoot times one machine from the power button to a Ready Node, in turn by metald and by hand: the same firmware path
// and root, the floor's UKI with a seed and a token prepared beforehand, from dnsmasq and nginx.
func firstBoot(ctx context.Context, r *rack.Rack, pairs int) error {
	host := r.Spec(0).Name
	if err := r.Peers(ctx); err != nil {
		fmt.Printf("# peer absent: dnsmasq and nginx: %v\n", err)
		return nil
	}
	floor, err := seedImage(ctx, r, host)
	if err != nil {
		return err
	}
	// The first way includes registration and inspection and is not measured.
	if err := r.Import(ctx); err != nil {
		return err
	}
	if err := r.Follow(ctx, host, func(h rack.Host) (bool, error) { return h.Ready(), nil }); err != nil {
		return err
	}
	var ours, theirs []float64
	for n := range pairs {
		a, err := byMetald(ctx, r, host)
		if err != nil {
			return fmt.Errorf("pair %d, metald: %w", n+1, err)
		}
		b, err := byHand(ctx, r, host, floor)
		if err != nil {
			return fmt.Errorf("pair %d, by hand: %w", n+1, err)
		}
		fmt.Printf("# pair %d: metald %.2f s, by hand %.2f s\n", n+1, a.Seconds(), b.Seconds())
		ours, theirs = append(ours, a.Seconds()), append(theirs, b.Seconds())
	}
	ratios := make([]float64, len(ours))
	for n := range ours {
		ratios[n] = ours[n] / theirs[n]
	}
	low, high := interval(ratios)
	fmt.Printf("# peer: dnsmasq and nginx with a prepared seed and token, no BMC protocol but the power button, no metald; %d interleaved pairs, "+
		"medians; 95 %% interval of the ratio %.3f to %.3f; durability: metald D2 (fdatasync before each answer), peer D1\n", pairs, low, high)
	fmt.Printf("BENCH P16 metald=%.2f peer=%.2f ratio=%.3f unit=s\n", median(ours), median(theirs), median(ratios))
	return nil
}

// off brings the machine and the cluster to where a boot starts from: no power, no Node, no metald.
func off(ctx context.Context, r *rack.Rack, host string) error {
	if err := r.Stop("metald", 20*time.Second); err != nil {
		return err
	}
	if err := r.Button(ctx, host, "off"); err != nil {
		return err
	}
	if err := r.Kubectl(ctx, "delete", "node", host, "--ignore-not-found").Run(); err != nil {
		return fmt.Errorf("removing the Node: %w", err)
	}
	return nil
}

// byMetald lets metald find the host off, and times from its power-on command.
func byMetald(ctx context.Context, r *rack.Rack, host string) (time.Duration, error) {
	if err := off(ctx, r, host); err != nil {
		return 0, err
	}
	if err := r.StartMetald(ctx); err != nil {
		return 0, err
	}
	return timed(ctx, r, host)
}

// byHand presses the button itself.
func byHand(ctx context.Context, r *rack.Rack, host, image string) (took time.Duration, err error) {
	if err := off(ctx, r, host); err != nil {
		return 0, err
	}
	if err := allowAnyNode(ctx, r); err != nil {
		return 0, err
	}
	defer forbidAnyNode(context.WithoutCancel(ctx), r)
	if err := r.StartPeers(ctx, image); err != nil {
		return 0, err
	}
	defer r.StopPeers()
	if err := r.Button(ctx, host, "netboot"); err != nil {
		return 0, err
	}
	if err := r.Button(ctx, host, "on"); err != nil {
		return 0, err
	}
	return timed(ctx, r, host)
}

// timed waits for the Node and counts from the last power-on in the BMC's log: there must be one that is younger than this
// call's start less the little that pressing the button takes.
func timed(ctx context.Context, r *rack.Rack, host string) (time.Duration, error) {
	asked := time.Now()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	ready, err := r.NodeReady(ctx, host)
	if err != nil {
		return 0, err
	}
	starts, err := r.PowerOnTimes(host)
	if err != nil {
		return 0, err
	}
	if len(starts) == 0 || starts[len(starts)-1].Before(asked.Add(-30*time.Second)) {
		return 0, fmt.Errorf("the Node is Ready but the machine was not switched on for it: %v", starts)
	}
	return ready.Sub(starts[len(starts)-1]), nil
}
