// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// medium is what is written to. Offsets and lengths are multiples of its sector.
type medium interface {
	io.ReaderAt
	io.WriterAt
	// Zero makes n bytes at off read as zero.
	Zero(off, n int64) error
	// Flush returns when all that was written is on the medium itself; what is read afterwards comes from there.
	Flush() error
	// Size is its length in bytes now.
	Size() (int64, error)
}

// pageSize is what memory for direct I/O is aligned to, enough for sectors of 4 KiB.
const pageSize = 4096

// aligned makes a buffer for direct I/O.
func aligned(n int) []byte {
	b := make([]byte, n+pageSize)
	skip := int(-uintptr(unsafe.Pointer(&b[0])) & (pageSize - 1))
	return b[skip : skip+n : skip+n]
}

func isAligned(b []byte) bool {
	return len(b) == 0 || uintptr(unsafe.Pointer(&b[0]))&(pageSize-1) == 0
}

// device is a block device past the page cache, or a regular file in its place.
type device struct {
	f             *os.File
	block, direct bool
	sector        int64
	noZero        bool // the kernel or the file system has no way to zero a range
}

// openDevice opens a disk for this program alone: the kernel refuses one that is mounted, swapped to or part of something.
func openDevice(path string) (*device, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("opening the disk: %w", err)
	}
	d := &device{sector: 512, block: info.Mode()&os.ModeDevice != 0 && info.Mode()&os.ModeCharDevice == 0}
	if !d.block {
		if d.f, err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
			return nil, fmt.Errorf("opening the disk: %w", err)
		}
		return d, nil
	}
	flags := os.O_RDWR | unix.O_EXCL
	if d.f, err = os.OpenFile(path, flags|unix.O_DIRECT, 0); errors.Is(err, unix.EINVAL) {
		d.f, err = os.OpenFile(path, flags, 0)
	} else {
		d.direct = err == nil
	}
	switch {
	case errors.Is(err, unix.EBUSY):
		return nil, &InUseError{Disk: path, By: holders(info)}
	case errors.Is(err, unix.EROFS), errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return nil, fmt.Errorf("opening the disk: it cannot be written to: %w", err)
	case err != nil:
		return nil, fmt.Errorf("opening the disk: %w", err)
	}
	if err := d.geometry(); err != nil {
		d.f.Close()
		return nil, fmt.Errorf("opening the disk: %w", err)
	}
	return d, nil
}

func (d *device) geometry() error {
	fd := int(d.f.Fd())
	if ro, err := unix.IoctlGetInt(fd, unix.BLKROGET); err == nil && ro&0xffffffff != 0 {
		return fmt.Errorf("%s is read-only", d.f.Name())
	}
	n, err := unix.IoctlGetInt(fd, unix.BLKSSZGET)
	if err != nil {
		return fmt.Errorf("asking for the size of a sector: %w", err)
	}
	d.sector = int64(uint32(n))
	if d.sector != 512 && d.sector != 4096 {
		return fmt.Errorf("%s has sectors of %d bytes, and only 512 and 4096 are known", d.f.Name(), d.sector)
	}
	return nil
}

func (d *device) Size() (int64, error) {
	if d.block {
		var n uint64
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, d.f.Fd(), unix.BLKGETSIZE64, uintptr(unsafe.Pointer(&n))); errno != 0 {
			return 0, fmt.Errorf("asking for the disk's size: %w", errno)
		}
		return int64(n), nil
	}
	info, err := d.f.Stat()
	if err != nil {
		return 0, fmt.Errorf("asking for the disk's size: %w", err)
	}
	return info.Size(), nil
}

func (d *device) ReadAt(p []byte, off int64) (int, error) {
	if !d.direct || isAligned(p) && int64(len(p))%d.sector == 0 && off%d.sector == 0 {
		return d.f.ReadAt(p, off)
	}
	from := roundDown(off, d.sector)
	b := aligned(int(roundUp(off+int64(len(p)), d.sector) - from))
	n, err := d.f.ReadAt(b, from)
	n = copy(p, b[min(int64(n), off-from):n])
	if n == len(p) {
		err = nil
	}
	return n, err
}

func (d *device) WriteAt(p []byte, off int64) (int, error) {
	if d.direct && !isAligned(p) {
		b := aligned(len(p))
		copy(b, p)
		p = b
	}
	return d.f.WriteAt(p, off)
}

func (d *device) Zero(off, n int64) error {
	if !d.noZero {
		err := d.zeroRange(off, n)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
			d.noZero = true
		default:
			return fmt.Errorf("zeroing %d bytes at %d: %w", n, off, err)
		}
	}
	for end := off + n; off < end; {
		k := min(int64(len(zeros)), end-off)
		if _, err := d.WriteAt(zeros[:k], off); err != nil {
			return err
		}
		off += k
	}
	return nil
}

// zeroRange lets the disk or the file system do it. The kernel itself writes zeros where a disk has no command for it.
func (d *device) zeroRange(off, n int64) error {
	if !d.block {
		return unix.Fallocate(int(d.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	}
	span := [2]uint64{uint64(off), uint64(n)}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, d.f.Fd(), unix.BLKZEROOUT, uintptr(unsafe.Pointer(&span))); errno != 0 {
		return errno
	}
	return nil
}

func (d *device) Flush() error {
	if err := d.f.Sync(); err != nil {
		return fmt.Errorf("flushing the disk: %w", err)
	}
	// What stays in the page cache in spite of this is harmless with direct I/O, and tolerable without.
	if d.block {
		_ = unix.IoctlSetInt(int(d.f.Fd()), unix.BLKFLSBUF, 0)
	}
	_ = unix.Fadvise(int(d.f.Fd()), 0, 0, unix.FADV_DONTNEED)
	return nil
}

// Rescan makes the kernel read the partition table again.
func (d *device) Rescan() error {
	if !d.block {
		return nil
	}
	if err := unix.IoctlSetInt(int(d.f.Fd()), unix.BLKRRPART, 0); err != nil {
		return fmt.Errorf("reading the partition table again: %w", err)
	}
	return nil
}
