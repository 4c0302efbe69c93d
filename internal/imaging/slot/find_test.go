// SPDX-License-Identifier: Apache-2.0

package slot

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"
)

// part is a partition of a made-up disk.
type part struct{ name, uuid string }

var installed = []part{
	{"metald-esp", esp}, {"root-a", "aaaaaaaa-0001-4000-8000-000000000001"}, {"root-a-verity", "aaaaaaaa-0002-4000-8000-000000000002"},
	{"root-b", "aaaaaaaa-0003-4000-8000-000000000003"}, {"metald-state", "aaaaaaaa-0005-4000-8000-000000000005"},
}

// table is a disk of 64 sectors with a partition table in front and at the end.
func table(sector int64, parts []part) []byte {
	le := binary.LittleEndian
	disk := make([]byte, 64*sector)
	entries := make([]byte, 8*128)
	for i, p := range parts {
		if p.name == "" {
			continue
		}
		e := entries[i*128:]
		e[0] = 0xee // a type, so that it is used
		copy(e[16:], unguid(p.uuid))
		for j, u := range utf16.Encode([]rune(p.name)) {
			le.PutUint16(e[56+2*j:], u)
		}
	}
	for _, at := range []struct{ header, table int64 }{{1, 2}, {63, 58}} {
		h := disk[at.header*sector:]
		copy(h, gptSignature)
		le.PutUint32(h[8:], 0x10000)
		le.PutUint32(h[12:], gptHeader)
		le.PutUint64(h[24:], uint64(at.header))
		le.PutUint64(h[72:], uint64(at.table))
		le.PutUint32(h[80:], 8)
		le.PutUint32(h[84:], 128)
		le.PutUint32(h[88:], crc32.ChecksumIEEE(entries))
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:gptHeader]))
		copy(disk[at.table*sector:], entries)
	}
	return disk
}

// unguid is the mixed-endian form of a GUID.
func unguid(text string) []byte {
	var b [16]byte
	var a uint32
	var c, d uint16
	var e uint64
	if _, err := fmt.Sscanf(strings.ReplaceAll(text, "-", ""), "%08x%04x%04x%016x", &a, &c, &d, &e); err != nil {
		panic(err)
	}
	binary.LittleEndian.PutUint32(b[:], a)
	binary.LittleEndian.PutUint16(b[4:], c)
	binary.LittleEndian.PutUint16(b[6:], d)
	binary.BigEndian.PutUint64(b[8:], e)
	return b[:]
}

// plug puts a disk into a machine's sys and dev. nodes are the partitions that the kernel knows, by number.
func plug(t *testing.T, root, name string, sector int64, disk []byte, nodes map[int]string) {
	t.Helper()
	files := map[string]string{
		"size": fmt.Sprintln(len(disk) / 512), "queue/logical_block_size": fmt.Sprintln(sector), "holders/none": "",
	}
	for n, node := range nodes {
		files[node+"/partition"] = fmt.Sprintln(n)
	}
	device := filepath.Join(root, "sys/devices", name)
	for file, text := range files {
		file = filepath.Join(device, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	class := filepath.Join(root, "sys/class/block")
	for _, dir := range []string{class, filepath.Join(root, "dev")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	links := map[string]string{name: device}
	for _, node := range nodes {
		links[node] = filepath.Join(device, node)
	}
	for link, to := range links {
		if err := os.Symlink(to, filepath.Join(class, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "dev", name), disk, 0o444); err != nil {
		t.Fatal(err)
	}
}

func nvme(n int) map[int]string {
	nodes := map[int]string{}
	for i := 1; i <= n; i++ {
		nodes[i] = fmt.Sprintf("nvme0n1p%d", i)
	}
	return nodes
}

func TestFind(t *testing.T) {
	for _, sector := range []int64{512, 4096} {
		root := t.TempDir()
		plug(t, root, "nvme0n1", sector, table(sector, installed), nvme(5))
		plug(t, root, "sda", 512, table(512, []part{{"metald-esp", "bbbbbbbb-0001-4000-8000-000000000001"}}), map[int]string{1: "sda1"})
		plug(t, root, "sdb", 512, make([]byte, 4096), nil) // empty
		plug(t, root, "sr0", 2048, nil, nil)               // no medium
		d, err := Find(root, strings.ToUpper(esp))
		if err != nil || d.Name != "nvme0n1" {
			t.Fatalf("sectors of %d: got disk %q, %v", sector, d.Name, err)
		}
		data, hash, err := d.Root("a")
		want := []Partition{{"/dev/nvme0n1p2", installed[1].uuid}, {"/dev/nvme0n1p3", installed[2].uuid}}
		if diff := cmp.Diff(want, []Partition{data, hash}); diff != "" || err != nil {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
		if _, _, err := d.Root("b"); err == nil || !strings.Contains(err.Error(), "nvme0n1: it has no partition root-b-verity") {
			t.Errorf("a slot with a partition missing: got %v", err)
		}
		if _, _, err := d.Root("x"); err == nil {
			t.Error("slot x was found")
		}
	}
}

func TestFindByTheSecondTable(t *testing.T) {
	root := t.TempDir()
	disk := table(512, installed)
	disk[512+40] ^= 1 // the first header no longer fits its sum
	plug(t, root, "nvme0n1", 512, disk, nvme(5))
	if d, err := Find(root, esp); err != nil || d.Name != "nvme0n1" {
		t.Errorf("got disk %q, %v", d.Name, err)
	}
}

func TestFindRefuses(t *testing.T) {
	both := table(512, installed)
	both[512] ^= 1
	both[63*512] ^= 1
	torn := table(512, installed)
	torn[2*512+56] ^= 1
	torn[58*512+56] ^= 1
	for _, test := range []struct {
		name   string
		disks  map[string][]byte
		nodes  map[int]string
		absent bool
		want   string
	}{
		{"no disk", nil, nil, true, "no disk has it"},
		{"another disk", map[string][]byte{"nvme0n1": table(512, installed[1:])}, nvme(4), true, "no disk has it"},
		{"both headers damaged", map[string][]byte{"nvme0n1": both}, nvme(5), true, "no disk has it"},
		{"both entries damaged", map[string][]byte{"nvme0n1": torn}, nvme(5), true, "no disk has it"},
		{"not yet read by the kernel", map[string][]byte{"nvme0n1": table(512, installed)}, nil, true, "no disk has it"},
		{"a copy", map[string][]byte{"nvme0n1": table(512, installed), "nvme1n1": table(512, installed)}, nvme(5), false, "nvme0n1 and nvme1n1 both have it"},
		{"two of a name", map[string][]byte{"nvme0n1": table(512, append([]part{{"root-a", "bbbbbbbb-0001-4000-8000-000000000001"}}, installed...))},
			nvme(6), true, "two of its partitions are called root-a"},
	} {
		root := t.TempDir()
		plug(t, root, "loop0", 512, nil, nil)
		for name, disk := range test.disks {
			nodes := map[int]string{}
			for n, node := range test.nodes {
				nodes[n] = strings.Replace(node, "nvme0n1", name, 1)
			}
			plug(t, root, name, 512, disk, nodes)
		}
		_, err := Find(root, esp)
		if err == nil || !strings.Contains(err.Error(), test.want) || errors.Is(err, errAbsent) != test.absent {
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
	}
}

func TestAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := t.TempDir()
		plug(t, root, "loop0", 512, nil, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := Await(ctx, root, esp); !errors.Is(err, errAbsent) {
			t.Errorf("a disk that never comes: got %v", err)
		}
		go func() {
			time.Sleep(5100 * time.Millisecond) // between two looks
			plug(t, root, "nvme0n1", 512, table(512, installed), nvme(5))
		}()
		ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if d, err := Await(ctx, root, esp); err != nil || d.Name != "nvme0n1" {
			t.Errorf("a disk that comes late: got %q, %v", d.Name, err)
		}
	})
}

func FuzzReadGPT(f *testing.F) {
	f.Add(table(512, installed), int64(512))
	f.Add(table(4096, installed), int64(4096))
	f.Fuzz(func(t *testing.T, disk []byte, sector int64) {
		if sector != 512 && sector != 4096 {
			return
		}
		entries, err := readGPT(strings.NewReader(string(disk)), int64(len(disk)), sector)
		if err == nil && len(entries) > gptMost {
			t.Errorf("got %d entries", len(entries))
		}
	})
}
