// SPDX-License-Identifier: Apache-2.0

package rack

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"metald.io/metald/internal/imaging/disk"
)

// Verdict is what firmware would find on a disk.
type Verdict string

const (
	// NotBootable is a disk without a partition table.
	NotBootable Verdict = "nothing that firmware would boot"
	// HoldsImage is a disk whose every byte that counts is the rack's image.
	HoldsImage Verdict = "the whole image"
)

// Cut takes a machine's power away at once. Its BMC is not told and stays.
func (r *Rack) Cut(name string) error {
	qemu := name + ".qemu"
	if err := r.Signal(qemu, syscall.SIGKILL); err != nil {
		return err
	}
	return r.Stop(qemu, 5*time.Second)
}

// JudgeDisk looks at a machine's disk from outside. A disk that firmware would boot and that does not hold the rack's image
// in its first slot, whole, is an error that says what differs.
func (r *Rack) JudgeDisk(ctx context.Context, name string) (Verdict, error) {
	table, err := r.Table(name)
	if errors.Is(err, ErrNoTable) {
		return NotBootable, nil
	}
	if err != nil {
		return "", err
	}
	image, err := r.Image()
	if err != nil {
		return "", err
	}
	spec := image.Spec
	if spec.Loader == nil {
		return "", fmt.Errorf("judging the disk of %s: the rack's image has no boot loader, so no disk can hold it", name)
	}
	wrong := func(what string, err error) (Verdict, error) {
		return "something that firmware would boot and that is not the image", errors.Join(fmt.Errorf("the disk of %s has a partition table (%v), but %s", name, table.names(), what), err)
	}
	root, err := r.DigestDisk(name, Extent{disk.RootA, spec.Root.HashOffset}, Extent{disk.RootAHash, spec.Root.SizeBytes - spec.Root.HashOffset})
	if err != nil || root != spec.Root.SHA256 {
		return wrong(fmt.Sprintf("its root has sha256 %s, not %s", root, spec.Root.SHA256), err)
	}
	loader, err := r.ESPFile(ctx, name, disk.ESP, disk.LoaderPath)
	if got := digest(loader); err != nil || got != spec.Loader.SHA256 {
		return wrong(fmt.Sprintf("its boot loader has sha256 %s, not %s", got, spec.Loader.SHA256), err)
	}
	list, err := r.ESPList(ctx, name, disk.ESP, disk.EntryDirectory)
	if err != nil {
		return wrong("its boot entries cannot be listed", err)
	}
	entries := 0
	for _, path := range strings.Fields(list) {
		path = strings.TrimPrefix(path, "::")
		uki, err := r.ESPFile(ctx, name, disk.ESP, path)
		if got := digest(uki); err != nil || got != spec.UKI.SHA256 {
			return wrong(fmt.Sprintf("its boot entry %s has sha256 %s, not %s", path, got, spec.UKI.SHA256), err)
		}
		entries++
	}
	if entries == 0 {
		return wrong("it has no boot entry", nil)
	}
	return HoldsImage, nil
}

func digest(text []byte) string { return fmt.Sprintf("%x", sha256.Sum256(text)) }

func (t Table) names() []string {
	var all []string
	for _, p := range t.Partitions {
		all = append(all, p.Name)
	}
	return all
}

// ShowDisk prints what lies on a machine's disk.
func (r *Rack) ShowDisk(ctx context.Context, name string) error {
	table, err := r.Table(name)
	if errors.Is(err, ErrNoTable) {
		r.say("the disk of %s: %v", name, ErrNoTable)
		return nil
	}
	if err != nil {
		return err
	}
	r.say("disk %s", table.ID)
	for _, p := range table.Partitions {
		r.say("%-16s %8d MiB at %8d MiB  type %s", p.Name, p.Size>>20, p.Start>>20, p.Type)
	}
	verdict, err := r.JudgeDisk(ctx, name)
	r.say("it holds %s", verdict)
	return err
}
