// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"metald.io/metald/api/v1alpha1"
)

// structure is one SMBIOS structure (DMTF DSP0134, 6.1): its formatted area from the type byte on, and its strings.
type structure struct {
	area    []byte
	strings []string
}

// structures cuts the table into its structures, up to the end-of-table structure or the first that does not fit: what
// was read before it stands.
func structures(table []byte) ([]structure, error) {
	var all []structure
	for len(table) > 0 {
		if len(table) < 4 || int(table[1]) < 4 || len(table) < int(table[1]) {
			return all, fmt.Errorf("structure %d is cut short", len(all))
		}
		s := structure{area: table[:table[1]]}
		rest := table[table[1]:]
		end := bytes.Index(rest, []byte{0, 0})
		if end < 0 {
			return all, fmt.Errorf("structure %d has no end", len(all))
		}
		if end > 0 {
			s.strings = strings.Split(string(rest[:end]), "\x00")
		}
		all = append(all, s)
		if s.area[0] == 127 {
			break
		}
		table = rest[end+2:]
	}
	return all, nil
}

// text is the string whose number stands at an offset, empty when there is none or when the maker left a filler.
func (s structure) text(offset int) string {
	if offset >= len(s.area) {
		return ""
	}
	number := int(s.area[offset])
	if number == 0 || number > len(s.strings) {
		return ""
	}
	text := strings.TrimSpace(strings.ToValidUTF8(s.strings[number-1], ""))
	if fillers[strings.ToLower(text)] {
		return ""
	}
	return text
}

// fillers are what makers leave where a name or number should be. Two machines with one "serial number" out of this list
// are not the same machine.
var fillers = map[string]bool{
	"to be filled by o.e.m.": true, "default string": true, "not specified": true, "none": true, "unknown": true,
	"system serial number": true, "system product name": true, "system manufacturer": true, "no dimm": true, "0123456789": true,
	"not provided": true, "n/a": true, "undefined": true, "00000000": true, "serial": true,
}

func (s structure) word(offset int) uint16 {
	if offset+2 > len(s.area) {
		return 0
	}
	return binary.LittleEndian.Uint16(s.area[offset:])
}

func (s structure) long(offset int) uint32 {
	if offset+4 > len(s.area) {
		return 0
	}
	return binary.LittleEndian.Uint32(s.area[offset:])
}

// smbios reads types 0 (BIOS), 1 (system) and 17 (memory device). A machine without SMBIOS has no such facts.
func (r *reader) smbios(facts *v1alpha1.HostFacts) error {
	table, err := os.ReadFile(r.path("sys/firmware/dmi/tables/DMI"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	all, err := structures(table)
	for _, s := range all {
		switch s.area[0] {
		case 0:
			facts.System.BIOSVendor, facts.System.BIOSVersion, facts.System.BIOSDate = s.text(4), s.text(5), s.text(8)
		case 1:
			facts.System.Manufacturer, facts.System.Product, facts.System.SerialNumber = s.text(4), s.text(5), s.text(7)
			if len(s.area) >= 24 {
				facts.System.UUID = uuid(s.area[8:24], r.oldUUIDs())
			}
		case 17:
			if dimm, there := memoryDevice(s); there {
				facts.Memory.DIMMs = append(facts.Memory.DIMMs, dimm)
			}
		}
	}
	return err
}

// oldUUIDs says whether the firmware is older than SMBIOS 2.6, which first told in which order a UUID's bytes lie.
func (r *reader) oldUUIDs() bool {
	entry, err := os.ReadFile(r.path("sys/firmware/dmi/tables/smbios_entry_point"))
	if err != nil || !bytes.HasPrefix(entry, []byte("_SM_")) || len(entry) < 8 {
		return false // the 64-bit entry point came with 3.0
	}
	return entry[6] < 2 || (entry[6] == 2 && entry[7] < 6)
}

// uuid prints 16 bytes; all zeros and all ones mean that there is none (DSP0134, 7.2.1).
func uuid(b []byte, plain bool) string {
	if bytes.Equal(b, make([]byte, 16)) || bytes.Equal(b, bytes.Repeat([]byte{0xff}, 16)) {
		return ""
	}
	order := binary.ByteOrder(binary.LittleEndian)
	if plain {
		order = binary.BigEndian
	}
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", order.Uint32(b), order.Uint16(b[4:]), order.Uint16(b[6:]), b[8:10], b[10:16])
}

// memoryTypes are the words of DSP0134, 7.18.2, for what a server of today may hold.
var memoryTypes = map[byte]string{
	0x18: "DDR3", 0x1a: "DDR4", 0x1e: "LPDDR4", 0x20: "HBM", 0x21: "HBM2", 0x22: "DDR5", 0x23: "LPDDR5", 0x24: "HBM3",
	0x07: "RAM", 0x14: "DDR2", 0x1f: "Logical non-volatile device",
}

// memoryDevice reads a type 17 structure (DSP0134, 7.18). An empty slot is not there.
func memoryDevice(s structure) (v1alpha1.DIMMFacts, bool) {
	dimm := v1alpha1.DIMMFacts{
		Slot: s.text(0x10), Manufacturer: s.text(0x17), SerialNumber: s.text(0x18), PartNumber: s.text(0x1a),
	}
	switch size := s.word(0x0c); {
	case size == 0:
		return dimm, false
	case size == 0xffff: // there, of unknown size
	case size == 0x7fff: // 32 GiB and more: the extended size, in MiB, of 31 bits
		dimm.SizeMiB = int64(s.long(0x1c) &^ (1 << 31))
	case size&0x8000 != 0:
		dimm.SizeMiB = int64(size&0x7fff) / 1024
	default:
		dimm.SizeMiB = int64(size)
	}
	if len(s.area) > 0x12 {
		if dimm.Type = memoryTypes[s.area[0x12]]; dimm.Type == "" {
			dimm.Type = "type 0x" + strconv.FormatUint(uint64(s.area[0x12]), 16)
		}
	}
	// The speed it runs at, where told, and otherwise the one it could.
	for _, speed := range []struct{ word, extended int }{{0x20, 0x58}, {0x15, 0x54}} {
		if value := s.word(speed.word); value == 0xffff {
			dimm.SpeedMTs = int(s.long(speed.extended))
		} else {
			dimm.SpeedMTs = int(value)
		}
		if dimm.SpeedMTs != 0 {
			break
		}
	}
	return dimm, true
}

// memory reads what the kernel can use, which is less than what is plugged in.
func (r *reader) memory(facts *v1alpha1.MemoryFacts) error {
	text, err := os.ReadFile(r.path("proc/meminfo"))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) == 3 && fields[0] == "MemTotal:" && fields[2] == "kB" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			facts.TotalMiB = kib / 1024
			return err
		}
	}
	return errors.New("/proc/meminfo has no MemTotal")
}
