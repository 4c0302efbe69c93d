// SPDX-License-Identifier: Apache-2.0

package erase

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"metald.io/metald/api/v1alpha1"
)

// memory is a drive in memory. What it holds is shared by all that open it.
type memory struct {
	mu     sync.Mutex
	data   []byte
	parts  []Extent
	ladder Ladder
	// read and write are called before each, and may fail.
	read, write func(at int64) error
}

func newMemory(size int) *memory {
	m := &memory{data: make([]byte, size)}
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(m.data)
	return m
}

func (m *memory) ReadAt(p []byte, at int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.read != nil {
		if err := m.read(at); err != nil {
			return 0, err
		}
	}
	return copy(p, m.data[at:at+int64(len(p))]), nil
}

func (m *memory) WriteAt(p []byte, at int64) (int, error) {
	if m.write != nil {
		if err := m.write(at); err != nil {
			return 0, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return copy(m.data[at:at+int64(len(p))], p), nil
}

func (m *memory) Flush() error                          { return nil }
func (m *memory) Partitions() []Extent                  { return m.parts }
func (m *memory) Close() error                          { return nil }
func (m *memory) Ladder(context.Context, *Pulse) Ladder { return m.ladder }

// set fills the drive with one byte, or with noise.
func (m *memory) set(b byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(m.data, bytes.Repeat([]byte{b}, len(m.data)))
	return nil
}

func (m *memory) scramble() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var key [32]byte
	_, _ = rand.NewChaCha8([32]byte{2}).Read(key[:])
	_, _ = rand.NewChaCha8(key).Read(m.data)
	return nil
}

func method(name string, do func() error) Method {
	return Method{Name: name, Scrambles: name != discardMethod, Do: func(context.Context, *Pulse) error { return do() }}
}

// machine is drives by name; the serial number is "S" and the name.
type machine map[string]*memory

func (m machine) seen() (all []v1alpha1.DiskFacts) {
	for _, name := range []string{"nvme0n1", "nvme0n2", "sda", "sdb", "sdc", "vda"} {
		if d := m[name]; d != nil {
			all = append(all, v1alpha1.DiskFacts{Name: name, SerialNumber: "S" + name, SizeBytes: int64(len(d.data))})
		}
	}
	return all
}

func targets(seen []v1alpha1.DiskFacts) (all []v1alpha1.DiskTarget) {
	for _, f := range seen {
		all = append(all, v1alpha1.DiskTarget{Name: f.Name, SerialNumber: f.SerialNumber, WWN: f.WWN, SizeBytes: f.SizeBytes})
	}
	return all
}

func (m machine) open(f v1alpha1.DiskFacts) (Device, error) {
	if d := m[f.Name]; d != nil {
		return d, nil
	}
	return nil, fs.ErrNotExist
}

func (m machine) erase(t *testing.T, mode string) ([]v1alpha1.DriveErasure, error) {
	t.Helper()
	return Run(t.Context(), Options{Plan: v1alpha1.ErasePlan{Mode: mode, Drives: targets(m.seen())}, Seen: m.seen(), Open: m.open})
}

var errIO = errors.New("input/output error")

func TestLadder(t *testing.T) {
	const size = 8 << 20
	for _, test := range []struct {
		name   string
		drive  func(m *memory)
		method string
		tried  string // the lines, joined
		verify string
		err    string
	}{
		{name: "nothing but writing", method: "overwrite", verify: "read 8 MiB in 8 places, all zero"},
		{name: "the first method works", drive: func(m *memory) {
			m.ladder.Methods = []Method{method("nvme-sanitize-crypto", m.scramble), method("nvme-format", func() error { t.Error("a second method was used"); return nil })}
		}, method: "nvme-sanitize-crypto", verify: "0 KiB of it zero and 8 MiB other than before"},
		{name: "methods it has not, and one that fails", drive: func(m *memory) {
			m.ladder = Ladder{Without: []string{"nvme-sanitize-crypto: the controller does not have it"}, Methods: []Method{
				method("nvme-format-crypto", func() error { return errors.New("status 0x2") }),
				method("nvme-format", func() error { return m.set(0) }),
			}}
		}, method: "nvme-format", tried: "nvme-sanitize-crypto: the controller does not have it|nvme-format-crypto: status 0x2", verify: "all zero"},
		{name: "a controller that lies", drive: func(m *memory) {
			m.ladder.Methods = []Method{method("nvme-sanitize-crypto", func() error { return nil }), method("nvme-sanitize-block", func() error { return m.set(0xff) })}
		}, method: "nvme-sanitize-block", tried: "nvme-sanitize-crypto: it reported success, but byte 0 and on hold what they held before",
			verify: "0 KiB of it zero and 8 MiB other than before"},
		{name: "a method that leaves one block", drive: func(m *memory) {
			m.ladder.Methods = []Method{method("ata-secure-erase", func() error {
				kept := bytes.Clone(m.data[5<<20 : 5<<20+blockBytes])
				_ = m.set(0)
				copy(m.data[5<<20:], kept)
				return nil
			})}
		}, method: "overwrite", tried: "ata-secure-erase: it reported success, but byte 5242880 and on hold what they held before", verify: "all zero"},
		{name: "a discard that leaves noise", drive: func(m *memory) { m.ladder.Methods = []Method{method(discardMethod, m.scramble)} },
			method: "overwrite", tried: "discard: it reported success, but byte 0 and on are not zero", verify: "all zero"},
		{name: "empty flash", drive: func(m *memory) {
			_ = m.set(0xff)
			m.ladder.Methods = []Method{method("ata-secure-erase-enhanced", func() error { return m.set(0xff) })}
		}, method: "ata-secure-erase-enhanced", verify: "8 MiB other than before"},
		{name: "a pattern of one byte that stays", drive: func(m *memory) {
			_ = m.set(0xa5)
			m.ladder.Methods = []Method{method("nvme-format", func() error { return nil })}
		}, method: "overwrite", tried: "nvme-format: it reported success, but byte 0 and on hold what they held before", verify: "all zero"},
		{name: "locked until it is erased", drive: func(m *memory) {
			locked := true
			m.read = func(int64) error {
				if locked {
					return errIO
				}
				return nil
			}
			m.ladder.Methods = []Method{method("ata-secure-erase", func() error { locked = false; return m.set(0) })}
		}, method: "ata-secure-erase", verify: "all zero"},
		{name: "locked, and noise afterwards", drive: func(m *memory) {
			locked := true
			m.read = func(int64) error {
				if locked {
					return errIO
				}
				return nil
			}
			m.ladder.Methods = []Method{method("ata-secure-erase", func() error { locked = false; return m.scramble() })}
		}, method: "overwrite", tried: "ata-secure-erase: it reported success, but byte 0 and on hold something, and nobody knows", verify: "all zero"},
		{name: "dying at a write", drive: func(m *memory) {
			m.write = func(at int64) error {
				if at >= 4<<20 {
					return errIO
				}
				return nil
			}
		}, tried: "overwrite: writing at byte 4194304: input/output error", err: "overwrite: writing at byte 4194304: input/output error"},
		{name: "dying at the last read", drive: func(m *memory) {
			m.read = func(at int64) error {
				if at >= 7<<20 {
					return errIO
				}
				return nil
			}
		}, tried: "overwrite: it reported success, but reading back", err: "reading back at byte 7340032: input/output error"},
	} {
		d := newMemory(size)
		if test.drive != nil {
			test.drive(d)
		}
		m := machine{"sda": d, "sdb": newMemory(size)}
		records, err := m.erase(t, v1alpha1.EraseFull)
		got, other := records[0], records[1]
		if !other.OK || other.Method != "overwrite" {
			t.Errorf("%s: the other drive ended with %+v", test.name, other)
		}
		if got.Method != test.method || !strings.HasPrefix(strings.Join(got.Tried, "|"), test.tried) || !strings.Contains(got.Verified, test.verify) ||
			!strings.Contains(got.Error, test.err) || got.OK != (test.err == "") || (err == nil) != got.OK || (test.tried == "") != (got.Tried == nil) {
			t.Errorf("%s: got %+v, %v", test.name, got, err)
		}
		if err != nil && (!strings.Contains(err.Error(), "1 of 2 are not erased: sda (serial number Ssda): ") || strings.Contains(err.Error(), "sdb")) {
			t.Errorf("%s: got %v", test.name, err)
		}
		if got.Ended == nil || got.SerialNumber != "Ssda" || got.SizeBytes != size {
			t.Errorf("%s: the record is %+v", test.name, got)
		}
		if got.Method == "overwrite" && !bytes.Equal(d.data, make([]byte, size)) {
			t.Errorf("%s: something was not overwritten", test.name)
		}
	}
}

func TestMissingAndUnlisted(t *testing.T) {
	m := machine{"sda": newMemory(1 << 20), "sdb": newMemory(1 << 20), "nvme0n1": newMemory(1 << 20), "nvme0n2": newMemory(1 << 20)}
	m["nvme0n1"].ladder.Methods = []Method{{Name: "nvme-sanitize-crypto", Whole: true, Scrambles: true, Do: func(context.Context, *Pulse) error {
		t.Error("a namespace that is not listed was erased")
		return nil
	}}}
	before := bytes.Clone(m["sdb"].data)
	plan := v1alpha1.ErasePlan{Mode: v1alpha1.EraseFull, Drives: []v1alpha1.DiskTarget{
		{Name: "sda", SerialNumber: "Sgone", SizeBytes: 1 << 20}, // another drive under the same name
		{Name: "sdx", SerialNumber: "Ssda", SizeBytes: 1 << 20},  // another name
		{Name: "sdb", SerialNumber: "Ssdb", SizeBytes: 2 << 20},  // another size
		{Name: "nvme0n1", SerialNumber: "Snvme0n1", SizeBytes: 1 << 20},
	}}
	records, err := Run(t.Context(), Options{Plan: plan, Seen: m.seen(), Open: m.open})
	got := map[string]string{}
	for _, r := range records {
		got[fmt.Sprintf("%s/%s/%d", r.Name, r.SerialNumber, r.SizeBytes>>20)] = fmt.Sprint(r.OK, " ", r.Method, " ", clip(r.Error, 12))
	}
	for name, want := range map[string]string{
		"nvme0n1/Snvme0n1/1": "true overwrite ", "nvme0n2/Snvme0n2/1": "false  not listed: ...", "sda/Ssda/1": "true overwrite ",
		"sdb/Ssdb/1": "false  not listed: ...", "sdb/Ssdb/2": "false  missing: the...", "sda/Sgone/1": "false  missing: the...",
	} {
		if strings.TrimSpace(got[name]) != strings.TrimSpace(want) {
			t.Errorf("%s: got %q, want %q", name, got[name], want)
		}
	}
	if err == nil || !strings.Contains(err.Error(), "4 of 6") || !strings.Contains(err.Error(), "Sgone") {
		t.Errorf("got %v", err)
	}
	if !bytes.Equal(m["sdb"].data, before) {
		t.Error("a drive that is not listed was written to")
	}
}

func TestOneControllerAndTwoWays(t *testing.T) {
	m := machine{"nvme0n1": newMemory(1 << 20), "nvme0n2": newMemory(2 << 20)}
	times := 0
	all := Method{Name: "nvme-sanitize-block", Whole: true, Scrambles: true, Do: func(context.Context, *Pulse) error {
		times++
		_ = m["nvme0n1"].set(0)
		return m["nvme0n2"].set(0)
	}}
	m["nvme0n1"].ladder.Methods, m["nvme0n2"].ladder.Methods = []Method{all}, []Method{all}
	records, err := m.erase(t, v1alpha1.EraseFull)
	if err != nil || times != 1 || records[1].Method != "nvme-sanitize-block" || !strings.Contains(records[1].Verified, "all zero; erased together with nvme0n1") {
		t.Errorf("two namespaces: %d times, %+v, %v", times, records, err)
	}

	for _, real := range []bool{true, false} {
		m := machine{"sda": newMemory(1 << 20), "sdb": newMemory(1 << 20)}
		if real {
			m["sdb"] = m["sda"]
		}
		seen := m.seen()
		for i := range seen {
			seen[i].WWN, seen[i].SerialNumber = "0x5000", "S"
		}
		records, err := Run(t.Context(), Options{Plan: v1alpha1.ErasePlan{Mode: v1alpha1.EraseFull, Drives: targets(seen)}, Seen: seen, Open: m.open})
		if err != nil || strings.Contains(records[1].Verified, "erased together with sda") != real {
			t.Errorf("two ways %t: %+v, %v", real, records, err)
		}
		if !bytes.Equal(m["sdb"].data, make([]byte, 1<<20)) {
			t.Errorf("two ways %t: the second was not erased", real)
		}
	}
}

func TestMetadata(t *testing.T) {
	m := machine{"sda": newMemory(96 << 20)}
	d := m["sda"]
	d.parts = []Extent{{4 << 20, 8 << 20}, {12<<20 + 512, 80 << 20}}
	before := bytes.Clone(d.data)
	records, err := m.erase(t, v1alpha1.EraseMetadata)
	if err != nil || records[0].Method != "metadata" || !strings.Contains(records[0].Verified, "all zero") {
		t.Fatalf("got %+v, %v", records, err)
	}
	for _, at := range []int64{0, 1 << 20, 2 << 20, 4 << 20, 5<<20 - 1, 64 << 20, 95 << 20, 96<<20 - 1, 11 << 20, 12<<20 - 1, 12<<20 + 512, 76<<20 + 512, 92<<20 + 511} {
		if d.data[at] != 0 {
			t.Errorf("byte %d is there still", at)
		}
	}
	if !bytes.Equal(d.data[20<<20:40<<20], before[20<<20:40<<20]) {
		t.Error("a metadata erase has written to data")
	}
	if _, err := m.erase(t, "thorough"); err == nil {
		t.Error("a mode that there is not was taken")
	}
}

// A drive that hangs is left behind; what its controller says it needs is waited for.
func TestDriveThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := machine{"sda": newMemory(1 << 20), "sdb": newMemory(1 << 20), "sdc": newMemory(1 << 20)}
		awake := make(chan struct{})
		m["sda"].write = func(int64) error { <-awake; return nil }
		m["sdb"].ladder.Methods = []Method{{Name: "ata-secure-erase", Do: func(_ context.Context, p *Pulse) error {
			p.Wait(3 * time.Hour)
			time.Sleep(2 * time.Hour)
			return m["sdb"].set(0)
		}}}
		var last v1alpha1.StepProgress
		reports := 0
		began := time.Now()
		records, err := Run(t.Context(), Options{
			Plan: v1alpha1.ErasePlan{Mode: v1alpha1.EraseFull, Drives: targets(m.seen())}, Seen: m.seen(), Open: m.open,
			Progress: func(p v1alpha1.StepProgress) {
				reports++
				if time.Since(began) < 2*time.Hour {
					last = p
				}
			},
		})
		if err == nil || records[0].OK || !strings.Contains(records[0].Error, "no answer to overwrite for 10m") || !records[1].OK || !records[2].OK {
			t.Errorf("got %+v, %v", records, err)
		}
		if took := records[0].Ended.Sub(began); took > 11*time.Minute {
			t.Errorf("a drive that hangs was left after %s", took)
		}
		if reports < 3000 || last.Doing != "erasing drives, 2 of 3 done: ata-secure-erase of sdb" || last.Done != 2<<20 || last.Total != 3<<20 {
			t.Errorf("%d reports, the last %+v", reports, last)
		}
		close(awake)
	})
}

func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := machine{"sda": newMemory(64 << 20), "sdb": newMemory(1 << 20)}
		m["sda"].write = func(int64) error { time.Sleep(time.Second); return nil }
		m["sdb"].ladder.Methods = []Method{{Name: "ata-secure-erase", Do: func(_ context.Context, p *Pulse) error {
			p.Wait(3 * time.Hour)
			time.Sleep(2 * time.Hour)
			return nil
		}}}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		began := time.Now()
		records, err := Run(ctx, Options{Plan: v1alpha1.ErasePlan{Mode: v1alpha1.EraseFull, Drives: targets(m.seen())}, Seen: m.seen(), Open: m.open})
		if !errors.Is(err, context.DeadlineExceeded) || records[0].OK || records[1].OK {
			t.Errorf("got %+v, %v", records, err)
		}
		if took := time.Since(began); took > time.Minute {
			t.Errorf("it took %s to stop", took)
		}
		time.Sleep(3 * time.Hour) // the controller ends, and nobody hears it
	})
}

func TestPanicIsAFailure(t *testing.T) {
	m := machine{"sda": newMemory(1 << 20), "sdb": newMemory(1 << 20)}
	m["sda"].ladder.Methods = []Method{method("nvme-format", func() error { panic("odd firmware") })}
	records, err := m.erase(t, v1alpha1.EraseFull)
	if err == nil || !strings.Contains(records[0].Error, "odd firmware") || !records[1].OK {
		t.Errorf("got %+v, %v", records, err)
	}
}

func TestPlaces(t *testing.T) {
	for _, test := range []struct {
		size  int64
		parts []Extent
		min   int
		want  []int64 // bytes that must be read
	}{
		{size: 512, min: 1, want: []int64{0, 511}},
		{size: 3<<20 + 512, min: 4, want: []int64{0, 3<<20 + 511}},
		{size: 1 << 40, min: 66, want: []int64{0, 1<<20 - 1, 1<<40 - 1, 1<<40 - 1<<20}},
		{size: 1<<40 + 4096, parts: []Extent{{1 << 30, 1 << 30}, {5<<30 + 512, 7 << 20}, {1 << 50, 1}}, min: 70,
			want: []int64{1<<40 + 4095, 1<<40 + 4096 - 1<<20, 1 << 30, 1<<30 + 1<<20 - 1, 2<<30 - 1, 5<<30 + 512, 5<<30 + 512 + 7<<20 - 1}},
	} {
		got := places(test.size, test.parts, randomPlaces)
		if len(got) < test.min {
			t.Errorf("%d bytes: %d places, want %d", test.size, len(got), test.min)
		}
		end := int64(0)
		for _, e := range got {
			if e.Start < end || e.Start%blockBytes != 0 || e.Length <= 0 || e.Start+e.Length > test.size {
				t.Errorf("%d bytes: place %+v after %d", test.size, e, end)
			}
			end = e.Start + e.Length
		}
		for _, at := range test.want {
			found := false
			for _, e := range got {
				found = found || (at >= e.Start && at < e.Start+e.Length)
			}
			if !found {
				t.Errorf("%d bytes: byte %d is not read", test.size, at)
			}
		}
	}
}

func TestPartitions(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"alignment_offset": "0", "queue/rotational": "1", "sda1/partition": "1", "sda1/start": "2048\n", "sda1/size": "4096\n",
		"sda2/partition": "2", "sda2/start": "6144", "sda2/size": "1",
	} {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := partitions(dir)
	if want := []Extent{{1 << 20, 2 << 20}, {3 << 20, 512}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if err := os.WriteFile(filepath.Join(dir, "sda2/size"), []byte("much"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := partitions(dir); err == nil {
		t.Error("a partition of an unknown size was taken")
	}
}

// A disk that is dying takes its time for each place.
func TestSamplingGivesUp(t *testing.T) {
	reads := 0
	m := newMemory(32 << 20)
	m.read = func(int64) error { reads++; return errIO }
	if s := take(m, places(32<<20, nil, randomPlaces), &Pulse{}); len(s) != 0 || reads != badPlaces {
		t.Errorf("got %d blocks after %d reads, want none after %d", len(s), reads, badPlaces)
	}
}
