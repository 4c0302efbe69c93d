// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"metald.io/metald/api/v1alpha1"
)

// smbiosStructure makes a structure of a type from its formatted area behind the header, and its strings.
func smbiosStructure(kind byte, area []byte, texts ...string) []byte {
	out := append([]byte{kind, byte(4 + len(area)), 0, 0}, area...)
	for _, text := range texts {
		out = append(append(out, text...), 0)
	}
	if len(texts) == 0 {
		out = append(out, 0)
	}
	return append(out, 0)
}

// dimm is a type 17 structure of version 3.3, with strings: slot, maker, serial number, part number.
func dimm(size uint16, extended uint32, kind byte, speed uint16, extendedSpeed uint32) []byte {
	area := make([]byte, 0x5c)
	binary.LittleEndian.PutUint16(area[0x0c:], size)
	area[0x10], area[0x12], area[0x17], area[0x18], area[0x1a] = 1, kind, 2, 3, 4
	binary.LittleEndian.PutUint32(area[0x1c:], extended)
	binary.LittleEndian.PutUint16(area[0x20:], speed)
	binary.LittleEndian.PutUint32(area[0x58:], extendedSpeed)
	return smbiosStructure(17, area[4:], "DIMM_A1", "Maker", "S1", "P1")
}

func machine(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestSMBIOS(t *testing.T) {
	system := append([]byte{1, 2, 0, 3}, []byte{0x4f, 0x3e, 0x2d, 0x1c, 0xbb, 0xaa, 0xdd, 0xcc, 0xee, 0xff, 0, 1, 2, 3, 4, 5}...)
	table := bytes.Join([][]byte{
		smbiosStructure(0, []byte{1, 2, 0, 0, 3}, "Firm", "2.1", "01/02/2026"),
		smbiosStructure(1, system, "Lab ", "Host", "To be filled by O.E.M."),
		dimm(0x7fff, 65536, 0x22, 4800, 0),  // 64 GiB: does not fit 16 bits of MiB
		dimm(16384, 0, 0x1a, 0xffff, 70000), // 16 GiB at an extended speed
		dimm(0x8000|2048, 0, 0x99, 0, 0),    // 2048 KiB of a type that is not known
		dimm(0, 0, 0x02, 0, 0),              // an empty slot
		smbiosStructure(127, nil),
		[]byte("what follows the end is not read"),
	}, nil)
	root := machine(t, map[string]string{"sys/firmware/dmi/tables/DMI": string(table)})
	var got v1alpha1.HostFacts
	if err := (&reader{root: root}).smbios(&got); err != nil {
		t.Fatal(err)
	}
	part := v1alpha1.DIMMFacts{Slot: "DIMM_A1", Manufacturer: "Maker", SerialNumber: "S1", PartNumber: "P1"}
	big, fast, odd := part, part, part
	big.SizeMiB, big.Type, big.SpeedMTs = 65536, "DDR5", 4800
	fast.SizeMiB, fast.Type, fast.SpeedMTs = 16384, "DDR4", 70000
	odd.SizeMiB, odd.Type = 2, "type 0x99"
	want := v1alpha1.HostFacts{
		System: v1alpha1.SystemFacts{
			Manufacturer: "Lab", Product: "Host", UUID: "1c2d3e4f-aabb-ccdd-eeff-000102030405", BIOSVendor: "Firm", BIOSVersion: "2.1",
			BIOSDate: "01/02/2026",
		},
		Memory: v1alpha1.MemoryFacts{DIMMs: []v1alpha1.DIMMFacts{big, fast, odd}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestUUIDOrder(t *testing.T) {
	b := []byte{0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}
	for _, test := range []struct {
		name  string
		entry string
		bytes []byte
		want  string
	}{
		{"SMBIOS 3", "_SM3_\x00\x18\x03\x03", b, "33221100-5544-7766-8899-aabbccddeeff"},
		{"SMBIOS 2.8", "_SM_\x00\x1f\x02\x08", b, "33221100-5544-7766-8899-aabbccddeeff"},
		{"SMBIOS 2.5", "_SM_\x00\x1f\x02\x05", b, "00112233-4455-6677-8899-aabbccddeeff"},
		{"no UUID", "_SM3_\x00\x18\x03\x03", make([]byte, 16), ""},
		{"not set", "_SM3_\x00\x18\x03\x03", bytes.Repeat([]byte{0xff}, 16), ""},
	} {
		r := &reader{root: machine(t, map[string]string{"sys/firmware/dmi/tables/smbios_entry_point": test.entry})}
		if got := uuid(test.bytes, r.oldUUIDs()); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

func TestBrokenTable(t *testing.T) {
	whole := smbiosStructure(1, make([]byte, 23), "Lab")
	for name, table := range map[string][]byte{
		"cut short":      append(bytes.Clone(whole), 17, 90, 0, 0, 1),
		"no end":         append(bytes.Clone(whole), 17, 5, 0, 0, 1, 'x'),
		"length below 4": append(bytes.Clone(whole), 17, 3, 0, 0, 0),
		"one byte":       append(bytes.Clone(whole), 17),
	} {
		all, err := structures(table)
		if err == nil || len(all) != 1 {
			t.Errorf("%s: got %d structures and %v, want 1 and an error", name, len(all), err)
		}
	}
}

func FuzzSMBIOS(f *testing.F) {
	f.Add(dimm(0x7fff, 65536, 0x22, 4800, 0))
	f.Add(smbiosStructure(1, make([]byte, 23), "Lab"))
	f.Add([]byte{1, 4, 0, 0, 0, 0, 17, 4, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, table []byte) {
		all, _ := structures(table)
		for _, s := range all {
			s.text(4)
			memoryDevice(s)
			if len(s.area) >= 24 {
				uuid(s.area[8:24], false)
			}
		}
	})
}
