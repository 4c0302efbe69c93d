// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"strconv"

	"github.com/google/uuid"

	"metald.io/metald/api/v1alpha1"
)

// Options say what to write, where, and where from.
type Options struct {
	// Device is the block device; empty is /dev/ and the name in Seen. A regular file serves in its place.
	Device string
	// Seen are the device's facts as they are now. Nothing is touched unless they match the plan's disk.
	Seen   v1alpha1.DiskFacts
	Plan   v1alpha1.InstallPlan
	Source Source
	// Progress is told often how far the work is; it must not block. It may be nil.
	Progress func(v1alpha1.StepProgress)
	// Log may be nil.
	Log *slog.Logger
	// Architecture is Go's word for the machine's, empty for the one this program runs on.
	Architecture string

	// behind is behindBytes, but for tests.
	behind int64
}

// Result is how an install went.
type Result struct {
	// AlreadyThere is a disk that held it all before: nothing of it was written.
	AlreadyThere bool
	// Bytes is how much of the disk the image took, without what was laid out for later.
	Bytes int64
}

// install is one run of Install on an open disk.
type install struct {
	Options
	*target
	log *slog.Logger
	id  uuid.UUID
}

// Install makes the disk hold what the plan says. An Image whose plan was carried out before, and that is found whole, is
// left alone. Otherwise the disk loses its partition tables first and gets new ones last, when everything else was written,
// flushed and read back: if power is lost in between, or Install returns an error, nothing on it can be booted.
//
// The errors that a retry does not mend are *WrongDiskError, *TooSmallError and *ImageError; a disk at fault shows by
// *ReadBackError or the kernel's own error, one that something holds by *InUseError.
func Install(ctx context.Context, o Options) (Result, error) {
	if err := Match(o.Plan.Disk, o.Seen); err != nil {
		return Result{}, err
	}
	if o.Device == "" {
		o.Device = "/dev/" + o.Seen.Name
	}
	d, err := openDevice(o.Device)
	if err != nil {
		return Result{}, err
	}
	result, err := run(ctx, o, d, filepath.Base(o.Device), d.sector)
	if cerr := d.f.Close(); err == nil && cerr != nil {
		err = fmt.Errorf("closing the disk: %w", cerr)
	}
	return result, err
}

// run is Install on whatever is written to.
func run(ctx context.Context, o Options, m medium, name string, sector int64) (Result, error) {
	ctx, abort := context.WithCancelCause(ctx)
	defer abort(nil)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Architecture == "" {
		o.Architecture = runtime.GOARCH
	}
	id, err := uuid.Parse(o.Plan.ID)
	if err != nil {
		return Result{}, fmt.Errorf("reading the plan: its id: %w", err)
	}
	if (o.Plan.Image == nil) == (o.Plan.Raw == nil) {
		return Result{}, errors.New("reading the plan: it must name an image or a raw image, and not both")
	}
	size, err := m.Size()
	if err != nil {
		return Result{}, err
	}
	if size != o.Plan.Disk.SizeBytes {
		return Result{}, &WrongDiskError{
			What: "size in bytes", Want: strconv.FormatInt(o.Plan.Disk.SizeBytes, 10), Seen: strconv.FormatInt(size, 10),
		}
	}
	i := &install{
		Options: o, id: id, log: o.Log.With("disk", name),
		target: newTarget(m, name, size, sector, newMeter(o.Progress), abort),
	}
	if o.behind > 0 {
		i.target.behind = o.behind
	}
	if o.Plan.Raw != nil {
		return i.raw(ctx)
	}
	return i.image(ctx)
}

// unchanged says that the disk is as long as it was when its layout was made.
func (i *install) unchanged() error {
	size, err := i.Size()
	if err != nil {
		return err
	}
	if size != i.size {
		return &ReadBackError{Disk: i.name, What: fmt.Sprintf("it had %d bytes and has %d now", i.size, size)}
	}
	return nil
}

func (i *install) rescan() {
	if r, ok := i.medium.(interface{ Rescan() error }); ok {
		if err := r.Rescan(); err != nil {
			i.log.Debug("kernel keeps its view of the partitions", "err", err)
		}
	}
}
