// SPDX-License-Identifier: Apache-2.0

package rack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"

	"golang.org/x/sys/unix"
)

// A machine's disk, seen from outside: what a person would see who pulls it out and puts it into another machine.

// DiskFile is the file behind a machine's disk.
func (r *Rack) DiskFile(name string) string { return r.Path("machines", name, "disk.raw") }

// Table reads the GPT of a machine's disk. The error is ErrNoTable where the disk has none that firmware would take.
func (r *Rack) Table(name string) (Table, error) {
	var t Table
	err := r.openDisk(name, os.O_RDONLY, func(disk *os.File, size int64) (err error) {
		t, err = readTable(disk, size)
		return err
	})
	return t, err
}

// ReadDisk reads from a partition of a machine's disk, from the whole disk where partition is empty.
func (r *Rack) ReadDisk(name, partition string, offset int64, into []byte) error {
	return r.openDisk(name, os.O_RDONLY, func(disk *os.File, size int64) error {
		at, err := place(disk, size, partition, offset, int64(len(into)))
		if err != nil {
			return err
		}
		_, err = disk.ReadAt(into, at)
		return err
	})
}

// WriteDisk writes to a partition of the disk of a machine that is off, to the whole disk where partition is empty.
func (r *Rack) WriteDisk(name, partition string, offset int64, text []byte) error {
	if r.On(name) {
		return fmt.Errorf("writing to the disk of %s: the machine is on", name)
	}
	return r.openDisk(name, os.O_RDWR, func(disk *os.File, size int64) error {
		at, err := place(disk, size, partition, offset, int64(len(text)))
		if err != nil {
			return err
		}
		_, err = disk.WriteAt(text, at)
		return errors.Join(err, disk.Sync())
	})
}

// DigestDisk is the sha256 in hex of the first bytes of some partitions, one after the other: where an image's root and its
// hash tree lie in two partitions, their sum is that of the one file.
func (r *Rack) DigestDisk(name string, parts ...Extent) (string, error) {
	sum := sha256.New()
	err := r.openDisk(name, os.O_RDONLY, func(disk *os.File, size int64) error {
		for _, part := range parts {
			at, err := place(disk, size, part.Partition, 0, part.Size)
			if err != nil {
				return err
			}
			if _, err := io.Copy(sum, io.NewSectionReader(disk, at, part.Size)); err != nil {
				return err
			}
		}
		return nil
	})
	return fmt.Sprintf("%x", sum.Sum(nil)), err
}

// Extent is the first Size bytes of a partition.
type Extent struct {
	Partition string
	Size      int64
}

// place is where offset in a partition lies on the disk.
func place(disk *os.File, size int64, partition string, offset, length int64) (int64, error) {
	part := Partition{Size: size}
	if partition != "" {
		table, err := readTable(disk, size)
		if err != nil {
			return 0, err
		}
		if part, err = table.Find(partition); err != nil {
			return 0, err
		}
	}
	if offset < 0 || length < 0 || offset+length > part.Size {
		return 0, fmt.Errorf("bytes %d to %d lie outside %s of %d bytes", offset, offset+length, partition, part.Size)
	}
	return part.Start + offset, nil
}

// FindPattern says at which places a machine's disk holds these bytes. Holes of the file behind it hold nothing.
func (r *Rack) FindPattern(name string, pattern []byte) (places []int64, err error) {
	if len(pattern) < 8 {
		return nil, fmt.Errorf("looking for %q: so few bytes are found by chance", pattern)
	}
	err = r.openDisk(name, os.O_RDONLY, func(disk *os.File, size int64) error {
		return eachExtent(disk, size, func(from, to int64) error {
			found, err := findIn(disk, from, to, pattern)
			places = append(places, found...)
			return err
		})
	})
	return places, err
}

// eachExtent calls with each part of a sparse file that holds data.
func eachExtent(file *os.File, size int64, each func(from, to int64) error) error {
	for at := int64(0); at < size; {
		from, err := unix.Seek(int(file.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // none is left
			return nil
		}
		if err != nil {
			return fmt.Errorf("looking for data: %w", err)
		}
		to, err := unix.Seek(int(file.Fd()), from, unix.SEEK_HOLE)
		if err != nil {
			return fmt.Errorf("looking for a hole: %w", err)
		}
		if err := each(from, to); err != nil {
			return err
		}
		at = to
	}
	return nil
}

func findIn(file io.ReaderAt, from, to int64, pattern []byte) (places []int64, err error) {
	const step = 4 << 20
	buffer := make([]byte, step+len(pattern)-1) // a match may lie across two steps
	for at := from; at < to; at += step {
		n, err := file.ReadAt(buffer[:min(int64(len(buffer)), to-at)], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return places, err
		}
		for skip := 0; ; {
			hit := bytes.Index(buffer[skip:n], pattern)
			if hit < 0 || skip+hit >= step {
				break
			}
			places = append(places, at+int64(skip+hit))
			skip += hit + 1
		}
	}
	return places, nil
}

// ESPFile is a file of the EFI system partition of a machine's disk, read by mtools.
func (r *Rack) ESPFile(ctx context.Context, name, partition, path string) ([]byte, error) {
	text, err := output(r.mtools(ctx, name, partition, "mtype", path))
	return []byte(text), err
}

// ESPList names the files in a directory of the EFI system partition of a machine's disk.
func (r *Rack) ESPList(ctx context.Context, name, partition, dir string) (string, error) {
	return output(r.mtools(ctx, name, partition, "mdir", dir))
}

func (r *Rack) mtools(ctx context.Context, name, partition, program, path string) *exec.Cmd {
	at := "0"
	if t, err := r.Table(name); err == nil {
		if p, err := t.Find(partition); err == nil {
			at = strconv.FormatInt(p.Start, 10)
		}
	}
	args := []string{"-i", r.DiskFile(name) + "@@" + at, "::" + path}
	if program == "mdir" {
		args = append([]string{"-b"}, args...)
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "MTOOLS_SKIP_CHECK=1")
	return cmd
}

func (r *Rack) openDisk(name string, flags int, do func(disk *os.File, size int64) error) error {
	disk, err := os.OpenFile(r.DiskFile(name), flags, 0)
	if err != nil {
		return fmt.Errorf("opening the disk of %s: %w", name, err)
	}
	defer disk.Close()
	info, err := disk.Stat()
	if err != nil {
		return fmt.Errorf("opening the disk of %s: %w", name, err)
	}
	if err := do(disk, info.Size()); err != nil {
		return fmt.Errorf("the disk of %s: %w", name, err)
	}
	return nil
}
