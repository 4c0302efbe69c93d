// SPDX-License-Identifier: Apache-2.0

package rack

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/diskfs/go-diskfs/partition/gpt"
	"github.com/google/go-cmp/cmp"
)

// blank makes the sparse disk of machine r1n00 of a rack of the test's own.
func blank(t *testing.T, size int64) (*Rack, string) {
	t.Helper()
	r := testRack(t)
	r.Dir = t.TempDir()
	file := r.DiskFile("r1n00")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(err)
	}
	return r, file
}

func TestFindPattern(t *testing.T) {
	r, _ := blank(t, 64<<20)
	pattern := []byte("a secret of the tenant before")
	const step = 4 << 20
	// In a step's middle, across two steps, at the very end, and two that overlap nothing.
	want := []int64{4096, step - 5, 20 << 20, 64<<20 - int64(len(pattern))}
	for _, at := range want {
		if err := r.WriteDisk("r1n00", "", at, pattern); err != nil {
			t.Fatal(err)
		}
	}
	got, err := r.FindPattern("r1n00", pattern)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("places (-want +got):\n%s", diff)
	}
	for _, at := range want {
		if err := r.WriteDisk("r1n00", "", at, make([]byte, len(pattern))); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := r.FindPattern("r1n00", pattern); err != nil || len(got) != 0 {
		t.Errorf("after it was overwritten: %v, %v", got, err)
	}
	if _, err := r.FindPattern("r1n00", []byte("short")); err == nil {
		t.Error("a short pattern is looked for")
	}
}

// The reader here is not the one that metald uses; both must read what a third party writes.
func TestTable(t *testing.T) {
	const size = 64 << 20
	r, file := blank(t, size)
	if _, err := r.Table("r1n00"); !errors.Is(err, ErrNoTable) {
		t.Errorf("a blank disk: %v, want %v", err, ErrNoTable)
	}
	made := gpt.Table{LogicalSectorSize: 512, PhysicalSectorSize: 512, ProtectiveMBR: true, GUID: "6D6574A1-0000-4000-8000-000000000001",
		Partitions: []*gpt.Partition{
			{Index: 1, Start: 2048, End: 4095, Type: gpt.EFISystemPartition, Name: "metald-esp", GUID: "6D6574A1-0000-4000-8000-000000000002"},
			{Index: 2, Start: 4096, End: 8191, Type: gpt.LinuxFilesystem, Name: "zustand-ü", GUID: "6D6574A1-0000-4000-8000-000000000003"},
		}}
	disk, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	if err := made.Write(disk, size); err != nil {
		t.Fatal(err)
	}
	want := Table{ID: "6d6574a1-0000-4000-8000-000000000001", Partitions: []Partition{
		{Name: "metald-esp", Type: "c12a7328-f81f-11d2-ba4b-00a0c93ec93b", ID: "6d6574a1-0000-4000-8000-000000000002", Start: 1 << 20, Size: 1 << 20},
		{Name: "zustand-ü", Type: "0fc63daf-8483-4772-8e79-3d69d8477de4", ID: "6d6574a1-0000-4000-8000-000000000003", Start: 2 << 20, Size: 2 << 20},
	}}
	got, err := r.Table("r1n00")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
	if err := r.WriteDisk("r1n00", "zustand-ü", 100, []byte("there")); err != nil {
		t.Fatal(err)
	}
	text := make([]byte, 5)
	if err := r.ReadDisk("r1n00", "", 2<<20+100, text); err != nil || !bytes.Equal(text, []byte("there")) {
		t.Errorf("what was written into the partition reads %q, %v", text, err)
	}
	if err := r.WriteDisk("r1n00", "metald-esp", 1<<20-2, []byte("over the edge")); err == nil {
		t.Error("a write past a partition's end is taken")
	}
	flip := func(at int64) {
		t.Helper()
		b := make([]byte, 1)
		if _, err := disk.ReadAt(b, at); err != nil {
			t.Fatal(err)
		}
		b[0] ^= 1
		if _, err := disk.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
	flip(2*512 + 3) // an entry of the first copy
	if got, err = r.Table("r1n00"); err != nil || !got.Backup {
		t.Errorf("with a broken first copy: backup read %t, %v", got.Backup, err)
	}
	flip(size - 512 + 60) // the last copy's header
	if _, err := r.Table("r1n00"); !errors.Is(err, ErrNoTable) {
		t.Errorf("with two broken copies: %v, want %v", err, ErrNoTable)
	}
}
