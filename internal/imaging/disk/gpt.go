// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"

	"github.com/google/uuid"
)

// errNoTable is a disk whose primary and backup partition tables are both invalid.
var errNoTable = errors.New("no valid GPT")

const (
	entrySize  = 128
	entryCount = 128
	headerSize = 92
)

var gptSignature = [8]byte{'E', 'F', 'I', ' ', 'P', 'A', 'R', 'T'}

// gptHeader is the partition table's header (UEFI 2.10, 5.3.2).
type gptHeader struct {
	Signature               [8]byte
	Revision, Size, CRC, _  uint32
	MyLBA, AlternateLBA     uint64
	FirstUsable, LastUsable uint64
	DiskGUID                [16]byte
	EntriesLBA              uint64
	Count, EntrySize        uint32
	EntriesCRC              uint32
}

// Partition is one entry of a GPT. Offsets and sizes are in bytes.
type Partition struct {
	Name         string
	Type, GUID   uuid.UUID
	Attributes   uint64
	Offset, Size int64
}

// gpt is a partition table as it lies on a disk: the header's fields and the entries' bytes.
type gpt struct {
	sector  int64 // bytes
	header  gptHeader
	entries []byte
}

// newGPT is an empty table for a disk of size bytes.
func newGPT(size, sector int64, guid uuid.UUID) *gpt {
	g := &gpt{sector: sector, entries: make([]byte, entryCount*entrySize)}
	g.header = gptHeader{
		Signature: gptSignature, Revision: 1 << 16, Size: headerSize, DiskGUID: swapGUID(guid),
		MyLBA: 1, EntriesLBA: 2, FirstUsable: uint64(mib / sector), Count: entryCount, EntrySize: entrySize,
	}
	g.stretch(size)
	return g
}

// stretch moves the table's end to that of a disk of size bytes.
func (g *gpt) stretch(size int64) {
	last := uint64(size/g.sector) - 1
	g.header.AlternateLBA = last
	g.header.LastUsable = last - uint64(g.entrySectors()) - 1
}

func (g *gpt) entrySectors() int64 { return (int64(len(g.entries)) + g.sector - 1) / g.sector }

// set writes the entry at index.
func (g *gpt) set(index int, p Partition) error {
	name := utf16.Encode([]rune(p.Name))
	if len(name) > 36 {
		return fmt.Errorf("making the partition table: the name %q is longer than 36 characters", p.Name)
	}
	e := g.entries[index*int(g.header.EntrySize):][:g.header.EntrySize]
	clear(e)
	kind, guid := swapGUID(p.Type), swapGUID(p.GUID)
	copy(e, kind[:])
	copy(e[16:], guid[:])
	binary.LittleEndian.PutUint64(e[32:], uint64(p.Offset/g.sector))
	binary.LittleEndian.PutUint64(e[40:], uint64((p.Offset+p.Size)/g.sector)-1)
	binary.LittleEndian.PutUint64(e[48:], p.Attributes)
	for i, c := range name {
		binary.LittleEndian.PutUint16(e[56+2*i:], c)
	}
	return nil
}

// partitions lists the entries in use; free is the index of the first that is not, or -1.
func (g *gpt) partitions() (parts []Partition, free int) {
	free = -1
	for i := range int(g.header.Count) {
		e := g.entries[i*int(g.header.EntrySize):][:g.header.EntrySize]
		kind := swapGUID(uuid.UUID(e[:16]))
		if kind == [16]byte{} {
			if free < 0 {
				free = i
			}
			continue
		}
		var name []uint16
		for j := 56; j < 128; j += 2 {
			c := binary.LittleEndian.Uint16(e[j:])
			if c == 0 {
				break
			}
			name = append(name, c)
		}
		first, last := binary.LittleEndian.Uint64(e[32:]), binary.LittleEndian.Uint64(e[40:])
		const most = 1 << 54 // sectors of 512 bytes in what an int64 counts
		if first > last || last >= most/uint64(g.sector/512) {
			continue // an entry that says nothing
		}
		parts = append(parts, Partition{
			Name: string(utf16.Decode(name)), Type: kind, GUID: swapGUID(uuid.UUID(e[16:32])),
			Attributes: binary.LittleEndian.Uint64(e[48:]),
			Offset:     int64(first) * g.sector, Size: int64(last-first+1) * g.sector,
		})
	}
	return parts, free
}

func (g *gpt) find(name string) (Partition, bool) {
	parts, _ := g.partitions()
	for _, p := range parts {
		if p.Name == name {
			return p, true
		}
	}
	return Partition{}, false
}

// primary is the header at LBA 1, backup the one at the last LBA; each fills one sector. The entries of the backup lie
// right before it, at backupEntries in bytes.
func (g *gpt) primary() []byte { return g.encode(g.header) }

func (g *gpt) backup() []byte {
	h := g.header
	h.MyLBA, h.AlternateLBA = g.header.AlternateLBA, g.header.MyLBA
	h.EntriesLBA = uint64(g.backupEntries() / g.sector)
	return g.encode(h)
}

func (g *gpt) backupEntries() int64 {
	return (int64(g.header.AlternateLBA) - g.entrySectors()) * g.sector
}

// paddedEntries are the entries filled up to whole sectors.
func (g *gpt) paddedEntries() []byte {
	return append(bytes.Clone(g.entries), make([]byte, g.entrySectors()*g.sector-int64(len(g.entries)))...)
}

func (g *gpt) encode(h gptHeader) []byte {
	h.EntriesCRC = crc32.ChecksumIEEE(g.entries)
	h.CRC = 0
	sector := make([]byte, g.sector)
	put := func() {
		// The buffer holds the header and all fields have fixed sizes.
		if _, err := binary.Encode(sector, binary.LittleEndian, h); err != nil {
			panic(err)
		}
	}
	put()
	h.CRC = crc32.ChecksumIEEE(sector[:h.Size])
	put()
	return sector
}

// readGPT reads the table of a disk of size bytes: the primary one, or the backup where that is not valid.
func readGPT(r io.ReaderAt, size, sector int64) (*gpt, error) {
	g, err := readHeader(r, size, sector, 1)
	if err != nil {
		var berr error
		if g, berr = readHeader(r, size, sector, size/sector-1); berr != nil {
			return nil, fmt.Errorf("%w: primary: %w; backup: %w", errNoTable, err, berr)
		}
	}
	return g, nil
}

// readHeader reads and proves one header and its entries. It returns them as the primary's.
func readHeader(r io.ReaderAt, size, sector, lba int64) (*gpt, error) {
	b := make([]byte, sector)
	if _, err := r.ReadAt(b, lba*sector); err != nil {
		return nil, fmt.Errorf("reading the header at sector %d: %w", lba, err)
	}
	g := &gpt{sector: sector}
	h := &g.header
	if _, err := binary.Decode(b, binary.LittleEndian, h); err != nil {
		return nil, fmt.Errorf("reading the header: %w", err)
	}
	if h.Signature != gptSignature {
		return nil, errors.New("no signature")
	}
	if h.Size < headerSize || int64(h.Size) > sector {
		return nil, fmt.Errorf("header of %d bytes", h.Size)
	}
	clear(b[16:20])
	if crc32.ChecksumIEEE(b[:h.Size]) != h.CRC || h.MyLBA != uint64(lba) {
		return nil, errors.New("header's checksum or place is wrong")
	}
	length := int64(h.Count) * int64(h.EntrySize)
	switch {
	case h.EntrySize < entrySize || h.EntrySize > 4096 || h.EntrySize&(h.EntrySize-1) != 0 || h.Count == 0 || length > mib,
		h.EntriesLBA < 1 || h.EntriesLBA > uint64(size/sector) || int64(h.EntriesLBA)*sector+length > size,
		h.AlternateLBA < 1 || h.AlternateLBA > uint64(1)<<54, h.LastUsable > uint64(1)<<54:
		return nil, errors.New("header's values are impossible")
	}
	g.entries = make([]byte, (length+sector-1)/sector*sector)
	if _, err := r.ReadAt(g.entries, int64(h.EntriesLBA)*sector); err != nil {
		return nil, fmt.Errorf("reading the entries: %w", err)
	}
	g.entries = g.entries[:length]
	if crc32.ChecksumIEEE(g.entries) != h.EntriesCRC {
		return nil, errors.New("checksum of the entries is wrong")
	}
	if lba != 1 {
		h.MyLBA, h.AlternateLBA, h.EntriesLBA = h.AlternateLBA, h.MyLBA, 2
	}
	return g, nil
}

// protectiveMBR says to old programs that the whole disk is taken (UEFI 2.10, 5.2.3). It fills one sector.
func protectiveMBR(size, sector int64) []byte {
	b := make([]byte, sector)
	entry := b[446:]
	copy(entry, []byte{0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff})
	binary.LittleEndian.PutUint32(entry[8:], 1)
	binary.LittleEndian.PutUint32(entry[12:], uint32(min(size/sector-1, 0xffffffff)))
	b[510], b[511] = 0x55, 0xaa
	return b
}

// swapGUID turns a GUID from the order of RFC 4122 to that of a GPT, and back.
func swapGUID(u uuid.UUID) uuid.UUID {
	return uuid.UUID{u[3], u[2], u[1], u[0], u[5], u[4], u[7], u[6], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]}
}
