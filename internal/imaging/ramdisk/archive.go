// SPDX-License-Identifier: Apache-2.0

package ramdisk

import (
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/cavaliergopher/cpio"
	"github.com/klauspost/compress/zstd"
)

// Archive is an initramfs in the making: files by path, written as a newc cpio archive whose bytes depend on its content
// only. Owners are root and times are zero.
type Archive struct {
	entries map[string]entry
}

type entry struct {
	mode cpio.FileMode
	data []byte
}

// File adds a file and the directories above it. A file of the same path is replaced.
func (a *Archive) File(name string, mode int, data []byte) {
	a.add(name, entry{mode: cpio.TypeReg | cpio.FileMode(mode), data: data})
}

// Dir adds an empty directory.
func (a *Archive) Dir(name string) { a.add(name, entry{mode: cpio.TypeDir | 0o755}) }

func (a *Archive) add(name string, e entry) {
	name = strings.Trim(path.Clean(name), "/")
	if a.entries == nil {
		a.entries = map[string]entry{}
	}
	for dir := path.Dir(name); dir != "." && dir != "/"; dir = path.Dir(dir) {
		if _, ok := a.entries[dir]; !ok {
			a.entries[dir] = entry{mode: cpio.TypeDir | 0o755}
		}
	}
	a.entries[name] = e
}

// Write writes the archive, compressed with zstd as the kernel reads it.
func (a *Archive) Write(w io.Writer) error {
	// One worker: the bytes must not depend on how many processors there are.
	z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithWindowSize(8<<20))
	if err != nil {
		return fmt.Errorf("writing the initramfs: %w", err)
	}
	if err := a.writePlain(z); err != nil {
		return fmt.Errorf("writing the initramfs: %w", err)
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("writing the initramfs: %w", err)
	}
	return nil
}

func (a *Archive) writePlain(w io.Writer) error {
	names := make([]string, 0, len(a.entries))
	for name := range a.entries {
		names = append(names, name)
	}
	// In order of path a directory comes before what lies in it.
	slices.Sort(names)
	c := cpio.NewWriter(w)
	for i, name := range names {
		e := a.entries[name]
		h := &cpio.Header{Name: name, Mode: e.mode, Size: int64(len(e.data)), Inode: int64(i + 1), Links: 1}
		if err := c.WriteHeader(h); err != nil {
			return fmt.Errorf("adding %s: %w", name, err)
		}
		if e.mode&cpio.ModeType == cpio.TypeReg {
			if _, err := c.Write(e.data); err != nil {
				return fmt.Errorf("adding %s: %w", name, err)
			}
		}
	}
	return c.Close()
}
