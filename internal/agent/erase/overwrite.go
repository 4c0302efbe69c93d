// SPDX-License-Identifier: Apache-2.0

package erase

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"metald.io/metald/api/v1alpha1"
)

const (
	// chunkBytes is written at once, inFlight chunks at the same time: what a fast drive needs to be busy.
	chunkBytes = 4 << 20
	inFlight   = 4
)

// overwrite writes zeros from the drive's begin to its end.
func (o *open) overwrite(ctx context.Context, p *Pulse) error {
	return zero(ctx, o.device, []Extent{{0, o.facts.SizeBytes}}, p)
}

// zero writes zeros to parts of a drive. The first error ends it: a drive that does not take a write is not erased.
func zero(ctx context.Context, w io.WriterAt, where []Extent, p *Pulse) error {
	var total int64
	for _, e := range where {
		total += e.Length
	}
	zeros := aligned(chunkBytes)
	var done atomic.Int64
	work, going := errgroup.WithContext(ctx)
	work.SetLimit(inFlight)
	for _, e := range where {
		for at := e.Start; at < e.Start+e.Length && going.Err() == nil; at += chunkBytes {
			n := min(chunkBytes, e.Start+e.Length-at)
			work.Go(func() error {
				if _, err := w.WriteAt(zeros[:n], at); err != nil {
					return fmt.Errorf("writing at byte %d: %w", at, err)
				}
				p.Move(done.Add(n), total)
				return nil
			})
		}
	}
	if err := work.Wait(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// metadata removes what tells of partitions and file systems: the begin and the end of the drive and of each partition,
// and the places of superblocks that lie elsewhere.
func metadata(ctx context.Context, o *open) (how v1alpha1.DriveErasure, err error) {
	how.Method = metadataMethod
	where := metadataPlaces(o.facts.SizeBytes, o.device.Partitions())
	o.pulse.Begin(metadataMethod)
	if err := zero(ctx, o.device, where, o.pulse); err != nil {
		return how, err
	}
	if err := o.device.Flush(); err != nil {
		return how, fmt.Errorf("flushing: %w", err)
	}
	o.pulse.Begin("verifying " + metadataMethod)
	how.Verified, err = verify(o.device, where, nil, false, o.pulse)
	return how, err
}

// superblocks are the places, counted from the begin of a drive or a partition, of what lies beyond the first MiB: the
// second header of LUKS2 (cryptsetup's on-disk format 2, section 2.1), and btrfs' copies of its superblock.
var superblocks = []int64{1 << 20, 2 << 20, 4 << 20, 64 << 20, 256 << 30}

// metadataPlaces are the parts of a drive that a metadata erase writes to. The first MiB of a drive or partition has the
// partition tables, LVM's labels, LUKS' first header, md's superblocks 1.1 and 1.2 and those of all common file systems;
// the last has the second partition table, md's superblocks 0.90 and 1.0 and two of ZFS' labels.
func metadataPlaces(size int64, partitions []Extent) []Extent {
	var all []Extent
	add := func(start, end int64) {
		start, end = max(0, start)&^(blockBytes-1), min(size, end)
		for start < end {
			n := min(placeBytes, end-start)
			all = append(all, Extent{start, n})
			start += n
		}
	}
	for _, e := range append([]Extent{{0, size}}, partitions...) {
		end := e.Start + e.Length
		add(e.Start, min(end, e.Start+placeBytes))
		for _, at := range superblocks {
			if at < e.Length {
				add(e.Start+at, min(end, e.Start+at+blockBytes))
			}
		}
		add(max(e.Start, end-placeBytes), end)
	}
	slices.SortFunc(all, func(a, b Extent) int { return cmp.Compare(a.Start, b.Start) })
	return slices.Compact(all)
}
