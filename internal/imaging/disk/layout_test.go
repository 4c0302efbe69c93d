// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/uuid"

	"metald.io/metald/api/v1alpha1"
)

func TestDivide(t *testing.T) {
	const mb = 1_000_000
	for _, c := range []struct {
		name       string
		size       int64
		root, uki  int64
		esp, slot  int64 // want, in MiB
		least      int64 // of state, in MiB
		tooSmall   bool
		neededMiBs int64
	}{
		{"the lab's disk", 8 * gib, 170 * mb, 40 * mb, 512, 2048, 3000, false, 0},
		{"a server's disk", 960_197_124_096, 2500 * mb, 60 * mb, 1024, 4770, 800_000, false, 0},
		{"slots shrink", 4 * gib, 170 * mb, 40 * mb, 264, 1387, 1024, false, 0},
		{"as small as it goes", 1623 * mib, 170 * mb, 40 * mb, 264, 163, 1024, false, 0},
		{"too small", gib, 170 * mb, 40 * mb, 0, 0, 0, true, 1622},
		{"a UKI that needs a larger ESP", 8 * gib, 170 * mb, 300 * mb, 581, 2048, 1024, false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := &v1alpha1.ImageFiles{UKI: v1alpha1.File{SizeBytes: c.uki}, Loader: v1alpha1.File{SizeBytes: 100_000}}
			files.Root.HashOffset, files.Root.SizeBytes = c.root, c.root+c.root/100
			got, err := divide("vda", c.size, files)
			var small *TooSmallError
			if errors.As(err, &small) != c.tooSmall || err != nil && !c.tooSmall {
				t.Fatalf("error %v, want too small: %v", err, c.tooSmall)
			}
			if c.tooSmall {
				if small.Found != c.size || small.Needed/mib != c.neededMiBs {
					t.Errorf("needed %d MiB, found %d bytes; want %d and %d", small.Needed/mib, small.Found, c.neededMiBs, c.size)
				}
				// What it says is needed is enough.
				if _, err := divide("vda", roundUp(small.Needed, mib), files); err != nil {
					t.Errorf("with what was needed: %v", err)
				}
				return
			}
			if got.esp/mib != c.esp || got.slot/mib != c.slot || got.state/mib < c.least {
				t.Errorf("ESP %d, slot %d, state %d MiB; want %d, %d, at least %d", got.esp/mib, got.slot/mib, got.state/mib, c.esp, c.slot, c.least)
			}
			if sum := got.esp + 2*(got.slot+got.hash) + got.state + 2*edge; sum > c.size {
				t.Errorf("%d bytes are given out of %d", sum, c.size)
			}
			if got.hash < got.slot/128+got.slot/16000 {
				t.Errorf("%d bytes for the hash tree of a slot of %d", got.hash, got.slot)
			}
		})
	}
}

func TestMatch(t *testing.T) {
	serial := v1alpha1.DiskTarget{SerialNumber: "S1", SizeBytes: 8}
	both := v1alpha1.DiskTarget{SerialNumber: "S1", WWN: "naa.5000", SizeBytes: 8, Model: "M"}
	place := v1alpha1.DiskTarget{PCIAddress: "0000:01:00.0", HCTL: "2:0:0:0", SizeBytes: 8}
	for _, c := range []struct {
		name string
		want v1alpha1.DiskTarget
		seen v1alpha1.DiskFacts
		what string // of the evidence that speaks against it; empty for a match
	}{
		{"serial", serial, v1alpha1.DiskFacts{SerialNumber: " S1 ", WWN: "any", SizeBytes: 8, Name: "sdz"}, ""},
		{"another serial", serial, v1alpha1.DiskFacts{SerialNumber: "S2", SizeBytes: 8}, "serial number"},
		{"no serial seen", serial, v1alpha1.DiskFacts{SizeBytes: 8}, "serial number"},
		{"another size", serial, v1alpha1.DiskFacts{SerialNumber: "S1", SizeBytes: 9}, "size in bytes"},
		{"both", both, v1alpha1.DiskFacts{SerialNumber: "S1", WWN: "NAA.5000", SizeBytes: 8, Model: "M"}, ""},
		{"one of both", both, v1alpha1.DiskFacts{WWN: "naa.5000", SizeBytes: 8}, ""},
		{"WWN contradicts", both, v1alpha1.DiskFacts{SerialNumber: "S1", WWN: "naa.5001", SizeBytes: 8}, "WWN"},
		{"model contradicts", both, v1alpha1.DiskFacts{SerialNumber: "S1", SizeBytes: 8, Model: "N"}, "model"},
		{"place", place, v1alpha1.DiskFacts{PCIAddress: "0000:01:00.0", HCTL: "2:0:0:0", SizeBytes: 8}, ""},
		{"place, SCSI hosts counted anew", place, v1alpha1.DiskFacts{PCIAddress: "0000:01:00.0", HCTL: "5:0:0:0", SizeBytes: 8}, ""},
		{"another LUN", place, v1alpha1.DiskFacts{PCIAddress: "0000:01:00.0", HCTL: "2:0:0:1", SizeBytes: 8}, "SCSI address"},
		{"another place", place, v1alpha1.DiskFacts{PCIAddress: "0000:02:00.0", SizeBytes: 8}, "PCI address"},
		{"SCSI address alone is whole", v1alpha1.DiskTarget{HCTL: "2:0:0:0", SizeBytes: 8}, v1alpha1.DiskFacts{HCTL: "3:0:0:0", SizeBytes: 8}, "SCSI address"},
		{"nothing to go by", v1alpha1.DiskTarget{Name: "sda", SizeBytes: 8}, v1alpha1.DiskFacts{Name: "sda", SizeBytes: 8}, "serial number, WWN, PCI or SCSI address"},
		{"no size", v1alpha1.DiskTarget{SerialNumber: "S1"}, v1alpha1.DiskFacts{SerialNumber: "S1"}, "size in bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := Match(c.want, c.seen)
			var wrong *WrongDiskError
			switch {
			case c.what == "" && err != nil:
				t.Errorf("error %v, want a match", err)
			case c.what != "" && (!errors.As(err, &wrong) || wrong.What != c.what):
				t.Errorf("error %v, want one about %s", err, c.what)
			}
		})
	}
}

func TestEntryNames(t *testing.T) {
	if got, want := Entry(SlotA), "/EFI/Linux/metald-a+3.efi"; got != want {
		t.Errorf("entry %s, want %s", got, want)
	}
	for name, want := range map[string]bool{
		"metald-a+3.efi": true, "metald-a+2-1.efi": true, "metald-a+0-3.efi": true, "metald-a.efi": true, "METALD-A.EFI": true,
		"metald-b.efi": false, "metald-a.efi.bak": false, "metald-ab.efi": false, "metald-a+.efi": false, "metald-a": false,
	} {
		if got := IsEntry(name, SlotA); got != want {
			t.Errorf("%s is an entry: %v, want %v", name, got, want)
		}
	}
}

// TestReadsHostileTables gives the readers of tables and of FAT what no program of ours wrote.
func TestReadsHostileTables(t *testing.T) {
	s, r := newSample(lab), newRAM(lab)
	if _, err := s.install(t, r, 512); err != nil {
		t.Fatal(err)
	}
	g, _ := readGPT(r, r.size, 512)
	esp, _ := g.find(ESP)
	rnd := rand.New(rand.NewPCG(1, 2))
	errs := 0
	for range 3000 {
		d := r.clone()
		for range 1 + rnd.IntN(3) {
			at := [...]int64{512, 1024, esp.Offset, esp.Offset + 32*512, esp.Offset + 2*mib/4}[rnd.IntN(5)] + rnd.Int64N(1024)
			d.apply(at, []byte{byte(rnd.Uint32())}, 1)
		}
		if rnd.IntN(2) == 0 { // a header that is wrong and has the right checksum
			h := *g
			h.header.EntriesLBA, h.header.Count, h.header.EntrySize = rnd.Uint64()>>rnd.IntN(64), rnd.Uint32()>>rnd.IntN(32), 1<<rnd.IntN(32)
			h.header.AlternateLBA = rnd.Uint64() >> rnd.IntN(64)
			d.apply(512, h.primary(), 512)
		}
		table, err := readGPT(d, d.size, 512)
		if err != nil {
			errs++
			continue
		}
		table.partitions()
		fs, err := openFAT(d, esp.Offset, esp.Size)
		if err == nil {
			_, err = readFile(fs, d, Entry(SlotA))
		}
		if err != nil {
			errs++
		}
	}
	if errs == 0 {
		t.Error("nothing was refused: the test harms nothing")
	}
}

func TestNewFAT(t *testing.T) {
	for _, sector := range []int64{512, 4096} {
		files := []fatFile{{"/EFI/BOOT/BOOTX64.EFI", 5000}, {"/EFI/Linux/metald-a+3.efi", 1}, {"/EFI/Linux/metald-b+3.efi", 8192}, {"/empty", 0}}
		fs, err := newFAT(espSmallest, mib, sector, 1, files)
		if err != nil {
			t.Fatal(err)
		}
		r := newRAM(lab)
		r.apply(mib, fs.head, int64(len(fs.head)))
		for n, f := range files[:3] {
			b := noise(uint64(n), int(f.size))
			r.apply(mib+fs.at[f.path], b, f.size)
			got, err := openFAT(r, mib, espSmallest)
			if err != nil {
				t.Fatal(err)
			}
			if content, err := readFile(got, r, strings.ToUpper(f.path)); err != nil || !bytes.Equal(content, b) {
				t.Errorf("sectors of %d: %s differs (%v)", sector, f.path, err)
			}
		}
		again, _ := newFAT(espSmallest, mib, sector, 1, files)
		if !bytes.Equal(fs.head, again.head) {
			t.Error("the same files give other bytes")
		}
	}
	if _, err := newFAT(100*mib, mib, 4096, 1, nil); err == nil {
		t.Error("no error for a file system that is too small for FAT32")
	}
	if _, err := newFAT(espSmallest, mib, 512, 1, []fatFile{{"/a", gib}}); err == nil {
		t.Error("no error for a file that does not fit")
	}
}

func TestPartitionGUIDs(t *testing.T) {
	a, b := uuid.NewSHA1(uuid.Nil, []byte("a")), uuid.NewSHA1(uuid.Nil, []byte("b"))
	seen := map[string]bool{}
	for _, id := range []uuid.UUID{a, b} {
		for _, name := range []string{ESP, RootA, RootB} {
			seen[fmt.Sprint(PartitionGUID(id, name))] = true
		}
	}
	if len(seen) != 6 {
		t.Errorf("%d different GUIDs of 6, want all", len(seen))
	}
	// Installed disks have them: they stay what they are.
	if got, want := PartitionGUID(uuid.MustParse("2c6f3f0e-3a4e-4a35-9d0c-5a2f7f4a9b11"), RootA).String(), "f391aa6b-da03-587c-867b-12bdd73da588"; got != want {
		t.Errorf("GUID of root-a is %s, want %s", got, want)
	}
}
