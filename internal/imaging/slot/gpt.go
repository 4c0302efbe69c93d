// SPDX-License-Identifier: Apache-2.0

package slot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"
)

// gptEntry is one used entry of a GUID partition table (UEFI 2.11, section 5.3.3).
type gptEntry struct {
	// number counts from 1, as the kernel does.
	number int
	// uuid is the unique GUID in lower case.
	uuid, name string
}

const (
	gptSignature = "EFI PART"
	gptHeader    = 92 // bytes of the header that the specification knows
	gptMost      = 1024
)

var errNoGPT = errors.New("no GUID partition table")

// readGPT reads the partition table of a disk, the first copy that is whole: the kernel too takes the second where the
// first is damaged. sector and size are in bytes.
func readGPT(r io.ReaderAt, size, sector int64) ([]gptEntry, error) {
	entries, err := readGPTAt(r, sector, sector)
	if err == nil || size < 3*sector {
		return entries, err
	}
	if second, serr := readGPTAt(r, size-sector, sector); serr == nil {
		return second, nil
	}
	return nil, err
}

func readGPTAt(r io.ReaderAt, at, sector int64) ([]gptEntry, error) {
	header := make([]byte, sector)
	if _, err := r.ReadAt(header, at); err != nil {
		return nil, fmt.Errorf("reading the partition table: %w", err)
	}
	le := binary.LittleEndian
	length := le.Uint32(header[12:])
	if string(header[:8]) != gptSignature || length < gptHeader || int64(length) > sector {
		return nil, errNoGPT
	}
	sum := le.Uint32(header[16:])
	le.PutUint32(header[16:], 0)
	if crc32.ChecksumIEEE(header[:length]) != sum {
		return nil, fmt.Errorf("reading the partition table: its header is damaged: %w", errNoGPT)
	}
	table, number, width := int64(le.Uint64(header[72:])), le.Uint32(header[80:]), le.Uint32(header[84:])
	if number > gptMost || width < 128 || width > 4096 || width%8 != 0 || table < 2 || table > 1<<50/sector {
		return nil, fmt.Errorf("reading the partition table: %d entries of %d bytes: %w", number, width, errNoGPT)
	}
	b := make([]byte, int(number)*int(width))
	if _, err := r.ReadAt(b, table*sector); err != nil {
		return nil, fmt.Errorf("reading the partition table: %w", err)
	}
	if crc32.ChecksumIEEE(b) != le.Uint32(header[88:]) {
		return nil, fmt.Errorf("reading the partition table: its entries are damaged: %w", errNoGPT)
	}
	var entries []gptEntry
	for i := range int(number) {
		e := b[i*int(width):][:width]
		if [16]byte(e) == [16]byte{} { // no type: not used
			continue
		}
		entries = append(entries, gptEntry{number: i + 1, uuid: guid(e[16:32]), name: gptName(e[56:128])})
	}
	return entries, nil
}

// guid is a GUID as text: its first three fields are little-endian (UEFI 2.11, appendix A).
func guid(b []byte) string {
	le := binary.LittleEndian
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(b), le.Uint16(b[4:]), le.Uint16(b[6:]), b[8:10], b[10:16])
}

func gptName(b []byte) string {
	var units []uint16
	for ; len(b) > 1 && (b[0] != 0 || b[1] != 0); b = b[2:] {
		units = append(units, binary.LittleEndian.Uint16(b))
	}
	return string(utf16.Decode(units))
}
