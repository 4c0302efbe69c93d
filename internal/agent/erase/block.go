// SPDX-License-Identifier: Apache-2.0

package erase

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"metald.io/metald/api/v1alpha1"
)

const (
	sysBlock = "/sys/class/block/"
	// sectorBytes is the unit of sysfs, whatever the drive's own sectors are.
	sectorBytes = 512
	// discardWithin is how long a drive may take over one part of a discard.
	discardWithin = 30 * time.Minute
)

// block is a block device of this machine.
type block struct {
	*os.File
	facts      v1alpha1.DiskFacts
	partitions []Extent
	// protect is the file that makes an eMMC boot partition read-only, empty for others.
	protect string
}

var _ Device = (*block)(nil)

// Open opens a drive of this machine for itself alone: one that is mounted, or that a RAID or a volume group holds, is
// refused by the kernel. What is read and written passes by the kernel's cache.
func Open(disk v1alpha1.DiskFacts) (Device, error) {
	b := &block{facts: disk}
	// The boot partitions of an eMMC are drives of their own, and read-only until somebody asks.
	if lock := sysBlock + disk.Name + "/force_ro"; strings.HasPrefix(disk.Name, "mmcblk") && os.WriteFile(lock, []byte("0"), 0) == nil {
		b.protect = lock
	}
	var err error
	if b.partitions, err = partitions(sysBlock + disk.Name); err != nil {
		return nil, err
	}
	b.File, err = os.OpenFile("/dev/"+strings.ReplaceAll(disk.Name, "!", "/"), os.O_RDWR|unix.O_EXCL|unix.O_DIRECT, 0)
	if err != nil {
		return nil, err
	}
	var size uint64
	if err := b.ioctl(unix.BLKGETSIZE64, unsafe.Pointer(&size)); err != nil || int64(size) != disk.SizeBytes {
		return nil, errors.Join(fmt.Errorf("its size is %d bytes, want %d: %w", size, disk.SizeBytes, errors.Join(err, unix.ESTALE)), b.Close())
	}
	return b, nil
}

// partitions are those that the kernel sees on a drive.
func partitions(dir string) ([]Extent, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("listing the partitions: %w", err)
	}
	var all []Extent
	for _, entry := range entries {
		part := filepath.Join(dir, entry.Name())
		if _, err := os.Stat(filepath.Join(part, "partition")); err != nil {
			continue // another of the drive's attributes
		}
		start, err := number(filepath.Join(part, "start"))
		if err != nil {
			return nil, err
		}
		length, err := number(filepath.Join(part, "size"))
		if err != nil {
			return nil, err
		}
		all = append(all, Extent{start * sectorBytes, length * sectorBytes})
	}
	return all, nil
}

func number(file string) (int64, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("reading a partition: %w", err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("reading a partition: %w", err)
	}
	return n, nil
}

func (b *block) Partitions() []Extent { return b.partitions }

// Flush also drops the kernel's pages of the drive: partitions and probes may have read some past this program.
func (b *block) Flush() error {
	if err := b.Sync(); err != nil {
		return err
	}
	return b.ioctl(unix.BLKFLSBUF, nil)
}

// Close lets the kernel look for partitions again, so that those that are gone are not shown any longer.
func (b *block) Close() error {
	_ = b.ioctl(unix.BLKRRPART, nil) // a drive that cannot have any answers EINVAL
	err := b.File.Close()
	if b.protect != "" {
		err = errors.Join(err, os.WriteFile(b.protect, []byte("1"), 0))
	}
	return err
}

// Ladder asks the drive's controller, and then has the discards that the kernel offers.
func (b *block) Ladder(ctx context.Context, p *Pulse) Ladder {
	var l Ladder
	switch {
	case strings.HasPrefix(b.facts.Name, "nvme"):
		l = nvmeLadder(ctx, p, b.nvme)
	case strings.HasPrefix(b.facts.Name, "sd") && b.facts.Vendor == "ATA":
		l = ataLadder(b.scsi)
	case strings.HasPrefix(b.facts.Name, "sd") && b.facts.Transport != "usb": // bridges to USB hang on what they do not know
		l = scsiLadder(b.scsi)
	}
	l.Methods = append(l.Methods,
		Method{Name: secureDiscardMethod, Do: func(ctx context.Context, p *Pulse) error { return b.discard(ctx, unix.BLKSECDISCARD, p) }},
		Method{Name: discardMethod, Do: func(ctx context.Context, p *Pulse) error { return b.discard(ctx, unix.BLKDISCARD, p) }})
	return l
}

// discard tells the drive that nothing of what it holds is needed, part by part.
func (b *block) discard(ctx context.Context, request uint, p *Pulse) error {
	part := max(b.facts.SizeBytes/64, 1<<30) &^ (placeBytes - 1)
	for at := int64(0); at < b.facts.SizeBytes; at += part {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		extent := [2]uint64{uint64(at), uint64(min(part, b.facts.SizeBytes-at))}
		p.Wait(discardWithin)
		if err := b.ioctl(request, unsafe.Pointer(&extent)); err != nil {
			if errors.Is(err, unix.EOPNOTSUPP) {
				return errors.New("the drive does not have it")
			}
			return fmt.Errorf("discarding at byte %d: %w", at, err)
		}
		p.Move(at+int64(extent[1]), b.facts.SizeBytes)
	}
	return nil
}

func (b *block) ioctl(request uint, argument unsafe.Pointer) error {
	_, err := b.call(request, argument)
	return err
}

// call does an ioctl whose answer is more than an error.
func (b *block) call(request uint, argument unsafe.Pointer) (int, error) {
	answer, _, no := unix.Syscall(unix.SYS_IOCTL, b.Fd(), uintptr(request), uintptr(argument))
	runtime.KeepAlive(b.File)
	if no != 0 {
		return 0, no
	}
	return int(answer), nil
}
