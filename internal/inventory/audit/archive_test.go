// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

func TestArchiveKeepsSegments(t *testing.T) {
	a, err := OpenArchive(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	log := randomLog(t, rand.New(rand.NewPCG(1, 9)), 30)
	for _, part := range [][]Entry{log[:10], log[:12], log[12:25]} { // the first was cut short by a crash
		if err := a.Store(part); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		from        uint64
		first, last uint64
	}{{1, 1, 12}, {5, 5, 12}, {12, 12, 12}, {13, 13, 25}, {25, 25, 25}, {26, 0, 0}} {
		got, err := a.Read(test.from)
		if err != nil {
			t.Fatal(err)
		}
		var first, last uint64
		if len(got) > 0 {
			first, last = got[0].Seq, got[len(got)-1].Seq
			if !bytes.Equal(got[0].Payload, log[first-1].Payload) || got[0].Hash != log[first-1].Hash {
				t.Errorf("from %d: the entry has changed", test.from)
			}
		}
		if first != test.first || last != test.last {
			t.Errorf("from %d: got %d to %d, want %d to %d", test.from, first, last, test.first, test.last)
		}
	}
	other := randomLog(t, rand.New(rand.NewPCG(2, 9)), 12)
	if err := a.Store(other); err != nil {
		t.Fatal(err)
	}
	if got, err := a.Read(1); err != nil || len(got) != 12 || got[11].Hash != other[11].Hash {
		t.Errorf("after a segment of another record: %d entries, %v", len(got), err)
	}
	aside, err := filepath.Glob(filepath.Join(a.dir, "records-00000000000000000001.jsonl.*"))
	if err != nil || len(aside) != 1 {
		t.Fatalf("what the segment said before lies in %v, %v", aside, err)
	}
	if text, err := os.ReadFile(aside[0]); err != nil || !bytes.HasPrefix(text, log[0].Line()) || !bytes.HasSuffix(text, log[11].Line()) {
		t.Errorf("what the segment said before is lost: %v", err)
	}
	// A site that moves a file away leaves a symbolic link.
	moved := filepath.Join(t.TempDir(), "elsewhere.jsonl")
	name := filepath.Join(a.dir, "records-00000000000000000013.jsonl")
	if err := errors.Join(os.Rename(name, moved), os.Symlink(moved, name)); err != nil {
		t.Fatal(err)
	}
	if got, err := a.Read(13); err != nil || len(got) != 13 || got[12].Hash != log[24].Hash {
		t.Errorf("of a file that was moved behind a link: %d entries, %v", len(got), err)
	}
	if err := a.Store([]Entry{log[25], log[27]}); err == nil {
		t.Error("a segment with a gap was stored")
	}
}

func TestArchiveKeepsCheckpoints(t *testing.T) {
	dir := t.TempDir()
	a, err := OpenArchive(dir)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := a.Newest(); c != nil || err != nil {
		t.Fatalf("a new archive has a checkpoint: %v, %v", c, err)
	}
	key := keyOf(t, 1)
	for seq := range uint64(3) {
		if err := a.Keep(key.Checkpoint(seq, Hash{byte(seq)}, start)); err != nil {
			t.Fatal(err)
		}
	}
	newest, err := a.Newest()
	if err != nil || newest.Seq != 2 || !newest.Signed(key.Public()) {
		t.Fatalf("the newest: %+v, %v", newest, err)
	}
	all := filepath.Join(dir, AllFile)
	text, err := os.ReadFile(all)
	if err != nil {
		t.Fatal(err)
	}
	found, err := ReadCheckpoints(bytes.NewReader(text))
	if err != nil || len(found) != 3 || !found[0].Signed(key.Public()) {
		t.Fatalf("all: %v, %v", found, err)
	}
	// A power cut in the midst of the last line spoils that line alone.
	if err := os.WriteFile(all, text[:len(text)-9], 0o644); err != nil {
		t.Fatal(err)
	}
	if err := a.Keep(key.Checkpoint(3, Hash{3}, start)); err != nil {
		t.Fatal(err)
	}
	if text, err = os.ReadFile(all); err != nil {
		t.Fatal(err)
	}
	found, err = ReadCheckpoints(bytes.NewReader(text))
	if err == nil || len(found) != 3 || found[2].Seq != 3 {
		t.Errorf("after a torn line: %v, %v", found, err)
	}
}

// Checkpoints do not fill the disk: the older ones are put aside, and of those the older ones go. The newest is always there.
func TestArchiveBoundsCheckpoints(t *testing.T) {
	dir := t.TempDir()
	a, err := OpenArchive(dir)
	if err != nil {
		t.Fatal(err)
	}
	key := keyOf(t, 1)
	a.most = 10 * int64(len(key.Checkpoint(1, Hash{}, start).Line()))
	const n = 95
	for seq := range uint64(n) {
		if err := a.Keep(key.Checkpoint(seq+1, Hash{}, start)); err != nil {
			t.Fatal(err)
		}
	}
	var kept []uint64
	for _, name := range []string{OldFile, AllFile} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if int64(len(text)) > a.most+400 {
			t.Errorf("%s has %d bytes, want %d at most, and a line", name, len(text), a.most)
		}
		found, err := ReadCheckpoints(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range found {
			kept = append(kept, c.Seq)
		}
	}
	for i, seq := range kept {
		if want := uint64(n - len(kept) + i + 1); seq != want {
			t.Fatalf("checkpoint %d is kept in place %d, want %d: the last ones without a gap", seq, i, want)
		}
	}
	if len(kept) < 10 {
		t.Errorf("%d checkpoints are kept, want 10 at the least", len(kept))
	}
	if newest, err := a.Newest(); err != nil || newest.Seq != n {
		t.Errorf("the newest: %+v, %v", newest, err)
	}
}
