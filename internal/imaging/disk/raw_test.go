// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"bytes"
	"compress/gzip"
	"crypto/md5"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/klauspost/compress/zstd"

	"metald.io/metald/api/v1alpha1"
)

const rawDiskSize = 24 * mib

// rawImage is a user's disk image of size bytes with one partition of noise and much nothing.
func rawImage(t *testing.T, size int64, table string) []byte {
	t.Helper()
	b := make([]byte, size)
	copy(b[mib:], noise(4, 3<<20))
	copy(b[size-2*mib:], noise(5, 100_000))
	copy(b, noise(6, 440)) // boot code
	part := Partition{Name: "rootfs", Type: typeLinux, GUID: uuid.NewSHA1(uuid.Nil, []byte("p")), Offset: mib, Size: size - 2*mib}
	switch table {
	case "gpt":
		g := newGPT(size, 512, uuid.NewSHA1(uuid.Nil, []byte("user")))
		if err := g.set(0, part); err != nil {
			t.Fatal(err)
		}
		copy(b[446:512], protectiveMBR(size, 512)[446:])
		copy(b[512:], g.primary())
		copy(b[1024:], g.entries)
		copy(b[g.backupEntries():], g.entries)
		copy(b[size-512:], g.backup())
	case "mbr", "full mbr":
		for i := range 4 {
			if i == 0 || table == "full mbr" {
				e := b[446+16*i:]
				e[4] = mbrLinux
				binary.LittleEndian.PutUint32(e[8:], uint32(2048+i))
				binary.LittleEndian.PutUint32(e[12:], 1)
			}
		}
		b[510], b[511] = 0x55, 0xaa
	}
	return b
}

type rawCase struct {
	shelf  *shelf
	plan   v1alpha1.InstallPlan
	behind int64
}

// rawPlan serves file as name and asks for it.
func rawPlan(name string, file []byte, sum hash.Hash, kind string, config []byte) *rawCase {
	sum.Write(file)
	url := "http://images/" + name
	return &rawCase{
		shelf: &shelf{urls: map[string][]byte{url: file}},
		plan: v1alpha1.InstallPlan{
			ID: uuid.NewSHA1(uuid.Nil, []byte("raw")).String(), Disk: v1alpha1.DiskTarget{SerialNumber: "S1", SizeBytes: rawDiskSize},
			Raw: &v1alpha1.RawImage{URL: url, Checksum: fmt.Sprintf("%X", sum.Sum(nil)), ChecksumType: kind, ConfigDrive: config},
		},
	}
}

func (c *rawCase) install(t *testing.T, r *ram, sector int64) (Result, error) {
	t.Helper()
	return run(t.Context(), Options{Plan: c.plan, Source: c.shelf, behind: c.behind}, r, "sda", sector)
}

func packZstd(t *testing.T, b []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(b, nil)
}

func packGzip(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// holds fails unless the disk begins with want, but for ranges.
func holds(r *ram, want []byte, but ...span) error {
	got := make([]byte, len(want))
	if _, err := r.ReadAt(got, 0); err != nil {
		return err
	}
	want = bytes.Clone(want)
	for _, s := range but {
		clear(got[s.off : s.off+s.size])
		clear(want[s.off : s.off+s.size])
	}
	if bytes.Equal(got, want) {
		return nil
	}
	for n := range want {
		if got[n] != want[n] {
			return fmt.Errorf("byte %d is %#x, want %#x", n, got[n], want[n])
		}
	}
	return nil
}

func TestRawAsItIs(t *testing.T) {
	image := rawImage(t, 16*mib, "gpt")
	whole := rawImage(t, rawDiskSize, "gpt")
	odd := rawImage(t, 16*mib, "mbr")[:5_000_001]
	for _, c := range []struct {
		name string
		file []byte
		want []byte
		sum  hash.Hash
		kind string
	}{
		{"plain.raw", image, image, md5.New(), "md5"},
		{"as long as the disk.img", whole, whole, sha512.New(), "sha512"},
		{"packed.raw.zst", packZstd(t, image), image, sha512.New(), "sha512"},
		{"packed.raw.gz", packGzip(t, image), image, sha512.New(), "sha512"},
		{"packed without an ending", packZstd(t, image), image, md5.New(), "md5"},
		{"of an odd length.raw", odd, odd, md5.New(), "md5"},
		{"shorter than a MiB.raw", image[:70_000], image[:70_000], md5.New(), "md5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRAM(rawDiskSize)
			r.apply(10*mib, noise(9, 1<<20), mib) // where the image has zeros
			p := rawPlan(c.name, c.file, c.sum, c.kind, nil)
			got, err := p.install(t, r, 512)
			if err != nil {
				t.Fatal(err)
			}
			if got.Bytes != int64(len(c.want)) {
				t.Errorf("%d bytes, want %d", got.Bytes, len(c.want))
			}
			if err := holds(r, c.want); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRawConfigDrive(t *testing.T) {
	config := noise(8, 300_000)
	for _, table := range []string{"gpt", "mbr"} {
		image := rawImage(t, 16*mib, table)
		r := newRAM(rawDiskSize)
		if _, err := rawPlan("x.raw", image, md5.New(), "md5", config).install(t, r, 512); err != nil {
			t.Fatal(err)
		}
		if err := holds(r, image, span{446, 64}, span{512, 34 * 512}); err != nil {
			t.Errorf("%s: %v", table, err)
		}
		var at, size int64
		if table == "gpt" {
			for _, lba := range []int64{1, rawDiskSize/512 - 1} {
				g, err := readHeader(r, r.size, 512, lba)
				if err != nil {
					t.Fatal(err)
				}
				parts, _ := g.partitions()
				if len(parts) != 2 || parts[0].Name != "rootfs" || parts[1].Name != ConfigName {
					t.Fatalf("partitions %+v, want the image's and the config drive's", parts)
				}
				at, size = parts[1].Offset, parts[1].Size
			}
		} else {
			b := make([]byte, 512)
			_, _ = r.ReadAt(b, 0)
			e := mbrEntries(b)[1]
			at, size = int64(binary.LittleEndian.Uint32(e[8:]))*512, int64(binary.LittleEndian.Uint32(e[12:]))*512
		}
		got := make([]byte, len(config))
		if _, err := r.ReadAt(got, at); err != nil || !bytes.Equal(got, config) {
			t.Errorf("%s: the config drive at %d differs (%v)", table, at, err)
		}
		if size != mib || at+size > rawDiskSize-edge {
			t.Errorf("%s: config drive of %d bytes at %d", table, size, at)
		}
	}
}

func TestRawRefuses(t *testing.T) {
	image := rawImage(t, 16*mib, "gpt")
	config := noise(8, 300_000)
	var wrong *ImageError
	var small *TooSmallError
	broken := bytes.Clone(image)
	broken[540] ^= 1 // in the header, behind its signature
	for _, c := range []struct {
		name   string
		file   []byte
		config []byte
		sector int64
		change func(*rawCase)
		target any
		text   string
		kept   bool
	}{
		{"qcow2.raw", append([]byte("QFI\xfb"), image...), nil, 512, nil, &wrong, "format is qcow2", true},
		{"xz.raw", append([]byte("\xfd7zXZ\x00"), image...), nil, 512, nil, &wrong, "compressed by xz", true},
		{"not.zst", image, nil, 512, nil, &wrong, "want a compressed file", true},
		{"checksum.raw", image, nil, 512, func(c *rawCase) { c.plan.Raw.Checksum = strings.Repeat("0", 32) }, &wrong, "md5 of", false},
		{"kind.raw", image, nil, 512, func(c *rawCase) { c.plan.Raw.ChecksumType = "crc" }, nil, `"crc"`, true},
		{"large.raw", make([]byte, rawDiskSize+512), nil, 512, nil, &small, "", true},
		{"large.zst", packZstd(t, make([]byte, rawDiskSize+512)), nil, 512, nil, &small, "", true},
		{"large.gz", packGzip(t, make([]byte, rawDiskSize+512)), nil, 512, nil, &small, "the image is longer", false},
		{"truncated.zst", packZstd(t, image)[:1_000_000], nil, 512, nil, nil, "unexpected EOF", false},
		{"other sectors.raw", image, nil, 4096, nil, &wrong, "sector size", true},
		{"no table.raw", rawImage(t, 16*mib, ""), config, 512, nil, &wrong, "config drive", true},
		{"full.raw", rawImage(t, 16*mib, "full mbr"), config, 512, nil, &wrong, "four primary", true},
		{"no room.raw", rawImage(t, rawDiskSize, "gpt"), config, 512, nil, &small, "at least", true},
		{"broken gpt.raw", broken, config, 512, nil, &wrong, "valid GPT", true},
		{"gone.raw", image, nil, 512, func(c *rawCase) { c.shelf.urls = nil }, nil, "is not there", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRAM(rawDiskSize)
			p := rawPlan(c.name, c.file, md5.New(), "md5", c.config)
			if c.change != nil {
				c.change(p)
			}
			_, err := p.install(t, r, c.sector)
			if err == nil || !strings.Contains(err.Error(), c.text) {
				t.Fatalf("error %v, want one with %q", err, c.text)
			}
			if c.target != nil && !errors.As(err, c.target) {
				t.Errorf("error of type %T, want %T", err, c.target)
			}
			if kept := len(r.ops) == 0; kept != c.kept {
				t.Errorf("%d operations on the disk, want it untouched: %v", len(r.ops), c.kept)
			}
			absent(t, r, c.sector)
		})
	}
}

// TestRawPowerLostAnywhere is TestPowerLostAnywhere for a user's image, whose own backup table is held back with the rest.
func TestRawPowerLostAnywhere(t *testing.T) {
	for _, c := range []struct {
		size   int64
		table  string
		config []byte
		behind int64
	}{{rawDiskSize, "gpt", nil, 0}, {rawDiskSize, "gpt", nil, 2 * mib}, {16 * mib, "gpt", noise(8, 300_000), 0}, {16 * mib, "mbr", nil, 2 * mib}} {
		image := rawImage(t, c.size, c.table)
		before := newRAM(rawDiskSize)
		if _, err := rawPlan("old.raw", rawImage(t, rawDiskSize, "gpt"), md5.New(), "md5", nil).install(t, before, 512); err != nil {
			t.Fatal(err)
		}
		copyOf := bytes.Clone(image)
		copyOf[5*mib] ^= 0xff // so that the old data are not the new
		r := before.clone()
		p := rawPlan("new.raw", copyOf, md5.New(), "md5", c.config)
		p.behind = c.behind
		if _, err := p.install(t, r, 512); err != nil {
			t.Fatal(err)
		}
		rnd := rand.New(rand.NewPCG(3, 5))
		whole, nothing := 0, 0
		for k := range len(r.ops) + 1 {
			for _, share := range []float64{0, 1, 0.2, 0.5, 0.8} {
				d := r.crash(before, k, func() bool { return rnd.Float64() < share })
				first := make([]byte, 512)
				_, _ = d.ReadAt(first, 0)
				if _, err := readGPT(d, d.size, 512); err != nil && first[510] != 0x55 {
					nothing++
					continue
				}
				if k <= 6 && holds(d, rawImage(t, rawDiskSize, "gpt"), span{0, mib}, span{rawDiskSize - mib, mib}) == nil {
					continue // the old system, as it was
				}
				whole++
				if err := holds(d, copyOf, span{0, mib}, span{c.size - mib, mib}); err != nil {
					t.Fatalf("%s of %d MiB: power lost after %d of %d operations: it can be booted, and %v", c.table, c.size/mib, k, len(r.ops), err)
				}
			}
		}
		if whole == 0 || nothing == 0 {
			t.Errorf("%s: %d cases whole, %d with nothing: the test sees too little", c.table, whole, nothing)
		}
	}
}

// TestRawDiskGivesBackSomethingElse spoils a byte when the disk is flushed, at the end or while the image is still on its way.
func TestRawDiskGivesBackSomethingElse(t *testing.T) {
	image := rawImage(t, 16*mib, "gpt")
	for _, behind := range []int64{0, mib} {
		r := newRAM(rawDiskSize)
		r.flushed = func(n int) {
			if at := 2 * mib / page; n >= 2 && r.pages[at] != nil {
				b := bytes.Clone(r.pages[at])
				b[100] ^= 4
				r.pages[at] = b
				r.flushed = nil
			}
		}
		p := rawPlan("x.raw", image, md5.New(), "md5", nil)
		p.behind = behind
		var back *ReadBackError
		if _, err := p.install(t, r, 512); !errors.As(err, &back) {
			t.Errorf("%d bytes behind: error %v, want that the disk gives back something else", behind, err)
		}
		absent(t, r, 512)
	}
}
