// SPDX-License-Identifier: Apache-2.0

package rack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"
)

// ErrNoTable says that firmware would find no partition table on a disk: neither the first copy nor the last is whole.
var ErrNoTable = errors.New("there is no valid GPT")

// Partition is one entry of a GPT. Start and Size are in bytes.
type Partition struct {
	Name, Type, ID string
	Start, Size    int64
}

// Table is a disk's GPT as UEFI firmware sees it.
type Table struct {
	// ID is the disk's GUID.
	ID         string
	Partitions []Partition
	// Backup says that the first copy was not whole, and that the one at the disk's end was read.
	Backup bool
}

// Find is the partition of that name.
func (t Table) Find(name string) (Partition, error) {
	for _, p := range t.Partitions {
		if p.Name == name {
			return p, nil
		}
	}
	return Partition{}, fmt.Errorf("finding partition %s: the table has %v", name, t.Partitions)
}

const sector = 512

// readTable reads a GPT by UEFI 2.10, section 5.3, which is written here apart from what metald uses, and judges a copy as
// firmware does: signature, both checksums, its own place.
func readTable(disk io.ReaderAt, size int64) (Table, error) {
	var errs []error
	for n, lba := range []int64{1, size/sector - 1} {
		t, err := readCopy(disk, lba, size)
		if err == nil {
			t.Backup = n == 1
			return t, nil
		}
		errs = append(errs, err)
	}
	return Table{}, errors.Join(append([]error{ErrNoTable}, errs...)...)
}

func readCopy(disk io.ReaderAt, lba, size int64) (Table, error) {
	header := make([]byte, sector)
	if _, err := disk.ReadAt(header, lba*sector); err != nil {
		return Table{}, fmt.Errorf("reading sector %d: %w", lba, err)
	}
	word, long := binary.LittleEndian.Uint32, binary.LittleEndian.Uint64
	length := word(header[12:])
	if !bytes.HasPrefix(header, []byte("EFI PART")) || length < 92 || length > sector {
		return Table{}, fmt.Errorf("sector %d holds no GPT header", lba)
	}
	told := word(header[16:])
	whole := bytes.Clone(header[:length])
	clear(whole[16:20])
	if crc32.ChecksumIEEE(whole) != told || int64(long(header[24:])) != lba {
		return Table{}, fmt.Errorf("the GPT header in sector %d is not whole", lba)
	}
	first, count, each := int64(long(header[72:])), int64(word(header[80:])), int64(word(header[84:]))
	if count > 1024 || each < 128 || each > 4096 || first*sector > size {
		return Table{}, fmt.Errorf("the GPT header in sector %d asks for %d entries of %d bytes at sector %d", lba, count, each, first)
	}
	entries := make([]byte, count*each)
	if _, err := disk.ReadAt(entries, first*sector); err != nil {
		return Table{}, fmt.Errorf("reading the GPT's entries at sector %d: %w", first, err)
	}
	if crc32.ChecksumIEEE(entries) != word(header[88:]) {
		return Table{}, fmt.Errorf("the GPT's entries at sector %d are not whole", first)
	}
	t := Table{ID: guid(header[56:72])}
	for ; len(entries) > 0; entries = entries[each:] {
		e := entries[:each]
		if bytes.Equal(e[:16], make([]byte, 16)) {
			continue
		}
		start, end := int64(long(e[32:])), int64(long(e[40:]))
		if start < 1 || end < start || (end+1)*sector > size {
			return Table{}, fmt.Errorf("a partition lies from sector %d to %d, outside the disk", start, end)
		}
		t.Partitions = append(t.Partitions, Partition{Name: label(e[56:128]), Type: guid(e[:16]), ID: guid(e[16:32]), Start: start * sector, Size: (end + 1 - start) * sector})
	}
	return t, nil
}

// guid prints the mixed byte order that UEFI has.
func guid(b []byte) string {
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint16(b[4:]), binary.LittleEndian.Uint16(b[6:]), b[8:10], b[10:16])
}

func label(b []byte) string {
	var units []uint16
	for ; len(b) > 1; b = b[2:] {
		u := binary.LittleEndian.Uint16(b)
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}
