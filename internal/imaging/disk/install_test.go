// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"metald.io/metald/api/v1alpha1"
)

const lab = 8 * gib // the lab's disks

// absent fails where a disk could be booted.
func absent(t *testing.T, r *ram, sector int64) {
	t.Helper()
	if _, err := readGPT(r, r.size, sector); !errors.Is(err, errNoTable) {
		t.Errorf("reading the table: %v, want that there is none", err)
	}
}

func TestInstallImage(t *testing.T) {
	for _, sector := range []int64{512, 4096} {
		s, r := newSample(lab), newRAM(lab)
		got, err := s.install(t, r, sector)
		if err != nil || got.AlreadyThere {
			t.Fatalf("sectors of %d: %+v, error %v", sector, got, err)
		}
		if err := s.check(r, sector); err != nil {
			t.Errorf("sectors of %d: %v", sector, err)
		}
		g, _ := readGPT(r, r.size, sector)
		if id := swapGUID(g.header.DiskGUID).String(); id != s.plan.ID {
			t.Errorf("disk GUID %s, want the plan's %s", id, s.plan.ID)
		}
		parts, _ := g.partitions()
		var names []string
		for _, p := range parts {
			names = append(names, p.Name)
		}
		if got, want := strings.Join(names, " "), strings.Join([]string{ESP, RootA, RootAHash, RootB, RootBHash, State}, " "); got != want {
			t.Errorf("partitions %s, want %s", got, want)
		}

		before := len(r.ops)
		if got, err = s.install(t, r, sector); err != nil || !got.AlreadyThere || len(r.ops) != before {
			t.Errorf("again: %+v, error %v, %d operations, want that it was there and none", got, err, len(r.ops)-before)
		}
		root, _ := g.find(RootA)
		b := make([]byte, sector)
		_, _ = r.ReadAt(b, root.Offset+sector)
		b[7] ^= 1
		r.apply(root.Offset+sector, b, sector)
		if got, err = s.install(t, r, sector); err != nil || got.AlreadyThere {
			t.Errorf("after a byte changed: %+v, error %v, want that it was written anew", got, err)
		}
		if err := s.check(r, sector); err != nil {
			t.Errorf("after a byte changed: %v", err)
		}
	}
}

func TestMissingCopyOfTheTableIsPutBack(t *testing.T) {
	for _, lba := range []int64{1, lab/512 - 1} {
		s, r := newSample(lab), newRAM(lab)
		if _, err := s.install(t, r, 512); err != nil {
			t.Fatal(err)
		}
		r.apply(lba*512, nil, 512)
		got, err := s.install(t, r, 512)
		if err != nil || !got.AlreadyThere {
			t.Errorf("without the header at %d: %+v, error %v, want that it was there", lba, got, err)
		}
		for _, at := range []int64{1, lab/512 - 1} {
			if _, err := readHeader(r, r.size, 512, at); err != nil {
				t.Errorf("without the header at %d: reading the one at %d: %v", lba, at, err)
			}
		}
	}
}

func TestInstallRefuses(t *testing.T) {
	var small *TooSmallError
	var wrong *WrongDiskError
	var image *ImageError
	var back *ReadBackError
	for _, c := range []struct {
		name   string
		size   int64 // of the disk
		change func(*sample, *ram)
		target any    // the error's type, nil for any
		text   string // in the error
		kept   bool   // the disk was not touched
	}{
		{"tiny disk", gib, func(*sample, *ram) {}, &small, "at least", true},
		{"another size than the plan says", lab, func(s *sample, _ *ram) { s.plan.Disk.SizeBytes++ }, &wrong, "size in bytes", true},
		{"image that is not there", lab, func(s *sample, _ *ram) { delete(s.shelf.files, s.plan.Image.Root.SHA256) }, nil, "root.img is not there", true},
		{"image cut short", lab, func(s *sample, _ *ram) {
			root := s.shelf.files[s.plan.Image.Root.SHA256]
			s.shelf.files[s.plan.Image.Root.SHA256] = root[:len(root)-5000]
		}, nil, "unexpected EOF after", false},
		{"a byte of the root flipped", lab, func(s *sample, _ *ram) { s.root[70_000] ^= 1 }, &image, "SHA-256 of root.img", false},
		{"a byte of the UKI flipped", lab, func(s *sample, _ *ram) { s.uki[70_000] ^= 1 }, &image, "SHA-256 of the UKI", false},
		{"a byte of the loader flipped", lab, func(s *sample, _ *ram) { s.loader[7] ^= 1 }, &image, "SHA-256 of loader.efi", true},
		{"hash tree nowhere", lab, func(s *sample, _ *ram) { s.plan.Image.Root.HashOffset = 0 }, &image, "hash tree", true},
		{"disk that shrinks", lab, func(_ *sample, r *ram) {
			r.flushed = func(n int) {
				if n == 2 { // all is written, nothing verified
					r.size -= gib
				}
			}
		}, &back, "and has", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, r := newSample(c.size), newRAM(c.size)
			c.change(s, r)
			_, err := s.install(t, r, 512)
			if err == nil || !strings.Contains(err.Error(), c.text) {
				t.Fatalf("error %v, want one with %q", err, c.text)
			}
			if c.target != nil && !errors.As(err, c.target) {
				t.Errorf("error of type %T, want %T", err, c.target)
			}
			if kept := len(r.ops) == 0; kept != c.kept {
				t.Errorf("%d operations on the disk, want it untouched: %v", len(r.ops), c.kept)
			}
			absent(t, r, 512)
		})
	}
}

func TestDiskThatKeepsNothing(t *testing.T) {
	s, r := newSample(lab), newRAM(lab)
	if _, err := s.install(t, r, 512); err != nil {
		t.Fatal(err)
	}
	s.plan.ID = "00000000-0000-4000-8000-000000000002"
	r.deaf = true
	var back *ReadBackError
	if _, err := s.install(t, r, 512); !errors.As(err, &back) {
		t.Errorf("error %v, want that the disk does not keep what is written", err)
	}
}

func TestWriteErrorAnywhere(t *testing.T) {
	s, r := newSample(lab), newRAM(lab)
	if _, err := s.install(t, r, 512); err != nil {
		t.Fatal(err)
	}
	all := len(r.ops)
	for bad := range all {
		r := newRAM(lab)
		r.fail = func(n int) error {
			if n == bad {
				return syscall.EIO
			}
			return nil
		}
		_, err := s.install(t, r, 512)
		if !errors.Is(err, syscall.EIO) {
			t.Errorf("write %d of %d fails: error %v, want EIO", bad, all, err)
		}
		// The last writes are the headers': what they name was verified before.
		if _, gerr := readGPT(r, r.size, 512); gerr == nil {
			if err := s.check(r, 512); err != nil {
				t.Errorf("write %d of %d fails: there is a table, and %v", bad, all, err)
			}
		}
	}
}

func TestInstallEndsWithItsContext(t *testing.T) {
	s, r := newSample(lab), newRAM(lab)
	ctx, cancel := context.WithCancel(t.Context())
	seen := 0
	_, err := run(ctx, Options{Plan: s.plan, Source: s.shelf, Architecture: "amd64", Progress: func(p v1alpha1.StepProgress) {
		if seen++; strings.HasPrefix(p.Doing, "verifying") {
			cancel()
		}
	}}, r, "vda", 512)
	if !errors.Is(err, context.Canceled) || seen == 0 {
		t.Errorf("error %v after %d reports, want the context's", err, seen)
	}
	absent(t, r, 512)
}

// oldDisk holds another installation, whose root lies where the new one's will.
func oldDisk(t *testing.T) (*sample, *ram) {
	s, r := newSample(lab), newRAM(lab)
	s.plan.ID = "00000000-0000-4000-8000-000000000001"
	s.root[0] ^= 0xff
	s.plan.Image.Root.File = s.shelf.put(s.root)
	if _, err := s.install(t, r, 512); err != nil {
		t.Fatal(err)
	}
	r.ops = nil
	return s, r
}

// TestPowerLostAnywhere takes the power away after every operation; of what was not flushed any part may be on the disk. It
// then holds the old installation as it was, the new one, or nothing that firmware boots.
func TestPowerLostAnywhere(t *testing.T) {
	old, before := oldDisk(t)
	s, r := newSample(lab), before.clone()
	if _, err := s.install(t, r, 512); err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(7, 11))
	kinds := map[string]int{}
	for k := range len(r.ops) + 1 {
		keeps := []func() bool{func() bool { return true }, func() bool { return false }}
		for _, share := range []float64{0.1, 0.5, 0.5, 0.9} {
			keeps = append(keeps, func() bool { return rnd.Float64() < share })
		}
		for n, keep := range keeps {
			d := r.crash(before, k, keep)
			g, err := readGPT(d, d.size, 512)
			switch {
			case err != nil:
				kinds["nothing"]++
			case swapGUID(g.header.DiskGUID).String() == s.plan.ID:
				kinds["new"]++
				if err := s.check(d, 512); err != nil {
					t.Fatalf("power lost after %d of %d operations, case %d: the new table is there, and %v", k, len(r.ops), n, err)
				}
			default:
				kinds["old"]++
				esp, _ := g.find(ESP)
				if fs, err := openFAT(d, esp.Offset, esp.Size); err == nil {
					if _, err := fs.list(EntryDirectory); err != nil {
						continue // its loader finds nothing
					}
					if err := old.check(d, 512); err != nil {
						t.Fatalf("power lost after %d of %d operations, case %d: the old system can be booted, and %v", k, len(r.ops), n, err)
					}
				}
			}
		}
	}
	for _, kind := range []string{"old", "nothing", "new"} {
		if kinds[kind] == 0 {
			t.Errorf("no case with %s on the disk among %v: the test sees too little", kind, kinds)
		}
	}
}
