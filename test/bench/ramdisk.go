// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"path/filepath"

	"metald.io/metald/internal/imaging"
	"metald.io/metald/test/lab/rack"
)

// ramdiskSize measures what metald serves for inspection: the UKI with kernel, drivers and agent.
func ramdiskSize(_ context.Context, r *rack.Rack, _ int) error {
	const goal = 40.0
	store, err := imaging.OpenStore(filepath.Join(r.Data(), "images"))
	if err != nil {
		return err
	}
	file, err := store.Ramdisk("amd64")
	if err != nil {
		return err
	}
	size := float64(file.SizeBytes) / (1 << 20)
	fmt.Println("# no peer: the second value is the goal; the ramdisk has the drivers of common server network cards and storage")
	fmt.Printf("BENCH P18 metald=%.1f peer=%.1f ratio=%.3f unit=MiB\n", size, goal, size/goal)
	return nil
}
