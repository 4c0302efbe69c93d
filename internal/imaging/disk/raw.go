// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"bytes"
	"context"
	"fmt"
	"hash/maphash"
	"io"
)

// rawDisk is a user's image with the parts that make it bootable held back: the first MiB and the last.
type rawDisk struct {
	head   []byte // as long as edge, or the image where that is shorter
	tail   []byte // what lies in the disk's last MiB; nil where the image does not reach it
	config span   // the config drive's partition; empty for none
}

// raw writes a user's image as it is.
func (i *install) raw(ctx context.Context) (Result, error) {
	if i.size < 2*edge {
		return Result{}, &TooSmallError{Disk: i.name, Found: i.size, Needed: 2 * edge}
	}
	from, err := openRaw(ctx, i.Source, i.Plan.Raw)
	if err != nil {
		return Result{}, err
	}
	defer from.close()
	if from.length > i.size {
		return Result{}, &TooSmallError{Disk: i.name, Found: i.size, Needed: from.length}
	}
	head := aligned(int(edge))
	n, _, err := fill(from, head)
	if err != nil {
		return Result{}, fmt.Errorf("fetching the image: %w", imageFault(err))
	}
	d := &rawDisk{head: head[:roundUp(int64(n), i.sector)]}
	if err := checkFormat(d.head, i.sector); err != nil {
		return Result{}, err
	}
	if int64(n) < i.sector {
		return Result{}, &ImageError{What: "length", Got: fmt.Sprint(n), Want: fmt.Sprintf("at least %d", i.sector)}
	}
	if len(i.Plan.Raw.ConfigDrive) > 0 {
		if err := i.addConfig(d); err != nil {
			return Result{}, err
		}
	}
	if err := i.wipe(); err != nil {
		return Result{}, err
	}
	i.rescan()
	done, err := i.writeRaw(ctx, from, d)
	if err != nil {
		return Result{}, err
	}
	if err := i.unchanged(); err != nil {
		return Result{}, err
	}
	if err := context.Cause(ctx); err != nil {
		return Result{}, err
	}
	if err := i.commitRaw(d); err != nil {
		return Result{}, err
	}
	i.rescan()
	return Result{Bytes: int64(n) + done}, nil
}

// writeRaw writes all but what is held back, and reads it back.
func (i *install) writeRaw(ctx context.Context, from *download, d *rawDisk) (int64, error) {
	rec := &record{seed: maphash.MakeSeed()}
	end := i.size - edge
	i.meter.begin("writing the image to "+i.name, from.length)
	done, err := i.pour(ctx, from, edge, end-edge, rec)
	if err != nil {
		return 0, fmt.Errorf("writing the image: %w", imageFault(err))
	}
	if done == end-edge {
		tail, err := io.ReadAll(io.LimitReader(from, edge+1))
		if err != nil {
			return 0, fmt.Errorf("fetching the image: %w", imageFault(err))
		}
		if int64(len(tail)) > edge {
			return 0, &TooSmallError{Disk: i.name, Found: i.size}
		}
		done += int64(len(tail))
		if len(tail) > 0 {
			d.tail = append(tail, make([]byte, edge-int64(len(tail)))...)
		}
	}
	if err := from.check(); err != nil {
		return 0, err
	}
	if d.config.size > 0 {
		if edge+done > d.config.off {
			return 0, &TooSmallError{Disk: i.name, Found: i.size, Needed: edge + done + d.config.size + 2*edge}
		}
		if _, err := i.pour(ctx, bytes.NewReader(i.Plan.Raw.ConfigDrive), d.config.off, d.config.size, rec); err != nil {
			return 0, fmt.Errorf("writing the config drive: %w", err)
		}
	}
	if err := i.Flush(); err != nil {
		return 0, err
	}
	return done, i.compare(ctx, rec)
}

// commitRaw writes what was held back: first all that says nothing by itself, then the GPT's headers, then the first sector.
// Firmware takes a GPT for real only with its header and the MBR, and an MBR only from the first sector.
func (i *install) commitRaw(d *rawDisk) error {
	type write struct {
		b   []byte
		off int64
	}
	s := min(i.sector, int64(len(d.head)))
	two := min(2*i.sector, int64(len(d.head)))
	last := i.size - i.sector
	var tail, lastSector []byte
	if d.tail != nil {
		tail, lastSector = d.tail[:edge-i.sector], d.tail[edge-i.sector:]
	}
	for _, step := range [][]write{
		{{d.head[two:], two}, {tail, i.size - edge}},
		{{d.head[s:two], s}},
		{{lastSector, last}},
		{{d.head[:s], 0}},
	} {
		for _, w := range step {
			if len(w.b) == 0 {
				continue
			}
			if err := i.put(w.b, w.off, nil); err != nil {
				return fmt.Errorf("writing the partition table: %w", err)
			}
		}
		if err := i.Flush(); err != nil {
			return fmt.Errorf("writing the partition table: %w", err)
		}
	}
	for _, w := range []write{{d.head, 0}, {d.tail, i.size - edge}} {
		got := aligned(len(w.b))
		if _, err := i.ReadAt(got, w.off); err != nil {
			return fmt.Errorf("reading back the partition table: %w", err)
		}
		if !bytes.Equal(got, w.b) {
			return &ReadBackError{Disk: i.name, What: fmt.Sprintf("the partition table's %d bytes at %d differ", len(w.b), w.off)}
		}
	}
	return nil
}
