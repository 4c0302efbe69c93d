// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
)

// fatTableMost bounds what is read of a file system that somebody else may have written.
const fatTableMost = 64 << 20

// span is a range of a disk, in bytes.
type span struct{ off, size int64 }

// fat reads a FAT32: an installed disk's, on which an operating system has renamed and removed files since.
type fat struct {
	r       io.ReaderAt
	data    int64 // where cluster 2 begins on the disk
	cluster int64 // bytes
	root    uint32
	table   []byte
}

type fatEntry struct {
	name    string
	dir     bool
	cluster uint32
	size    int64
}

func openFAT(r io.ReaderAt, off, size int64) (*fat, error) {
	b := make([]byte, 4096)
	if _, err := r.ReadAt(b, off); err != nil {
		return nil, fmt.Errorf("reading the EFI system partition: %w", err)
	}
	le := binary.LittleEndian
	sector, per, reserved := int64(le.Uint16(b[11:])), int64(b[13]), int64(le.Uint16(b[14:]))
	length := int64(le.Uint32(b[36:])) * sector
	f := &fat{r: r, cluster: sector * per, root: le.Uint32(b[44:])}
	f.data = off + reserved*sector + int64(b[16])*length
	switch {
	case b[510] != 0x55 || b[511] != 0xaa || string(b[82:90]) != fatSystem:
		return nil, errors.New("reading the EFI system partition: it is not FAT32")
	case sector < 512 || sector > 4096 || per == 0 || reserved == 0 || length == 0 || length > fatTableMost || f.data > off+size:
		return nil, errors.New("reading the EFI system partition: its boot sector is damaged")
	}
	f.table = make([]byte, length)
	if _, err := r.ReadAt(f.table, off+reserved*sector); err != nil {
		return nil, fmt.Errorf("reading the EFI system partition: %w", err)
	}
	// No cluster beyond the partition's end.
	if most := ((off+size-f.data)/f.cluster + 2) * 4; most < length {
		f.table = f.table[:most]
	}
	return f, nil
}

// runs are the ranges of the disk that a chain of clusters covers, size bytes of it or all where size is negative.
func (f *fat) runs(cluster uint32, size int64) ([]span, error) {
	var out []span
	left := size
	for steps := 0; size < 0 && cluster < fatEnd-7 || left > 0; steps++ {
		if cluster < 2 || int64(cluster)*4+4 > int64(len(f.table)) || steps > len(f.table)/4 {
			return nil, errors.New("reading the EFI system partition: a chain of clusters is broken")
		}
		at := f.data + int64(cluster-2)*f.cluster
		n := f.cluster
		if size >= 0 {
			n = min(n, left)
			left -= n
		}
		if last := len(out) - 1; last >= 0 && out[last].off+out[last].size == at {
			out[last].size += n
		} else {
			out = append(out, span{off: at, size: n})
		}
		cluster = binary.LittleEndian.Uint32(f.table[4*cluster:]) & 0x0fffffff
	}
	return out, nil
}

// list reads the directory at path, from the root.
func (f *fat) list(path string) ([]fatEntry, error) {
	entries, err := f.directory(f.root)
	for name := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if err != nil || name == "" {
			return entries, err
		}
		e, ok := lookup(entries, name)
		if !ok || !e.dir {
			return nil, fmt.Errorf("reading the EFI system partition: there is no directory %s", path)
		}
		entries, err = f.directory(e.cluster)
	}
	return entries, err
}

func lookup(entries []fatEntry, name string) (fatEntry, bool) {
	for _, e := range entries {
		if strings.EqualFold(e.name, name) {
			return e, true
		}
	}
	return fatEntry{}, false
}

func (f *fat) directory(cluster uint32) ([]fatEntry, error) {
	runs, err := f.runs(cluster, -1)
	if err != nil {
		return nil, err
	}
	var out []fatEntry
	var long []uint16
	for _, run := range runs {
		if run.size > mib {
			return nil, errors.New("reading the EFI system partition: a directory is too long")
		}
		b := make([]byte, run.size)
		if _, err := f.r.ReadAt(b, run.off); err != nil {
			return nil, fmt.Errorf("reading the EFI system partition: %w", err)
		}
		for ; len(b) >= entryBytes; b = b[entryBytes:] {
			switch {
			case b[0] == 0:
				return out, nil
			case b[0] == 0xe5:
				long = nil
			case b[11] == attrLFN:
				var piece []uint16
				for _, at := range lfnPlaces {
					piece = append(piece, binary.LittleEndian.Uint16(b[at:]))
				}
				long = append(piece, long...)
			case b[11]&0x08 != 0: // the label
				long = nil
			default:
				out = append(out, entryOf(b, long))
				long = nil
			}
		}
	}
	return out, nil
}

func entryOf(b []byte, long []uint16) fatEntry {
	e := fatEntry{dir: b[11]&attrDir != 0, size: int64(binary.LittleEndian.Uint32(b[28:]))}
	e.cluster = uint32(binary.LittleEndian.Uint16(b[20:]))<<16 | uint32(binary.LittleEndian.Uint16(b[26:]))
	for i, u := range long {
		if u == 0 {
			long = long[:i]
			break
		}
	}
	if e.name = string(utf16.Decode(long)); e.name == "" {
		e.name = strings.TrimRight(string(b[:8]), " ")
		if ext := strings.TrimRight(string(b[8:11]), " "); ext != "" {
			e.name += "." + ext
		}
	}
	return e
}
