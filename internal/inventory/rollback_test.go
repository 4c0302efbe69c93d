// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"metald.io/metald/internal/inventory/audit"
)

// records makes so many entries, each of its own words.
func (h *history) records(n int) {
	h.t.Helper()
	const writers = 64
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range n / writers {
				act := audit.Act{Verb: "x", Phase: audit.Done, Detail: fmt.Sprintf("%s %d %d", h.word, w, i)}
				if _, err := h.store.Record(context.Background(), "", act); err != nil {
					h.t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// history is a daemon's store over some starts, in fake time.
type history struct {
	t     *testing.T
	dir   string
	word  string // in each record of this time
	store *Store
	end   func()
}

// start opens the store and keeps its record as the daemon does.
func (h *history) start(word string) {
	h.t.Helper()
	s, err := Open(h.dir, Options{NoSync: true})
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.KeepRecord(ctx) }()
	h.word, h.store = word, s
	h.end = func() {
		h.t.Helper()
		cancel()
		if err := <-ended; err != nil {
			h.t.Error(err)
		}
		if err := s.Close(); err != nil {
			h.t.Error(err)
		}
	}
	synctest.Wait()
}

// newest is what a site copies off: the file of the newest checkpoint, once it is written.
func (h *history) newest() audit.Checkpoint {
	h.t.Helper()
	time.Sleep(2 * checkpointEvery)
	synctest.Wait()
	text, err := os.ReadFile(filepath.Join(h.dir, "audit", audit.NewestFile))
	if err != nil {
		h.t.Fatal(err)
	}
	found, err := audit.ReadCheckpoints(bytes.NewReader(text))
	if err != nil || len(found) != 1 {
		h.t.Fatalf("the newest checkpoint: %v, %v", found, err)
	}
	return found[0]
}

// verify exports the record and verifies it with the checkpoints of a site.
func (h *history) verify(given ...audit.Checkpoint) audit.Report {
	h.t.Helper()
	text, key := exported(h.t, h.store)
	report, err := audit.Verify(strings.NewReader(text), given, key)
	if err != nil {
		h.t.Fatal(err)
	}
	return report
}

func (h *history) segments() []string {
	h.t.Helper()
	files, err := filepath.Glob(filepath.Join(h.dir, "audit", "records-*"))
	if err != nil {
		h.t.Fatal(err)
	}
	return files
}

// A backup is older than the files that old records moved to since. The record goes on from the backup and verifies; that it
// went back is found by any checkpoint from after the backup, and told by the record itself; and what it forgot is lost nowhere.
func TestRestoreBehindTheArchive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &history{t: t, dir: t.TempDir()}
		h.start("first")
		h.records(recordsKept + segmentLength + 64)
		early := h.newest()
		copied := backup(t, h.store)
		h.records(3 * segmentLength)
		late := h.newest()
		if n := len(h.segments()); n != 4 {
			t.Fatalf("%d files of old records, want 4", n)
		}
		if r := h.verify(early, late); len(r.Findings) > 0 || r.Matched != 2 || len(r.Turns) > 0 {
			t.Fatalf("before the restore: %+v", r)
		}
		forgotten, _ := exported(t, h.store)
		h.end()

		who := WithReason(WithActor(t.Context(), audit.Actor{User: "ops1", Via: audit.ViaOffline}, ""), "the disk died")
		if _, err := Restore(who, h.dir, bytes.NewReader(copied), time.Now()); err != nil {
			t.Fatal(err)
		}
		h.start("second")
		fresh := h.newest()
		for round := range 2 { // before, and after the record has grown over the files of the time that is gone
			r := h.verify(early, fresh)
			if len(r.Findings) > 0 || r.Matched != 2 {
				t.Errorf("round %d: the record does not go on from the backup: %+v", round, r.Findings)
			}
			var turns []string
			for _, turn := range r.Turns {
				turns = append(turns, turn.Record.Actor.User+" "+turn.Record.Act.Verb+" "+turn.Record.Reason)
			}
			if got, want := strings.Join(turns, "; "), "ops1 restore backup the disk died; metald go on after a rollback "; got != want {
				t.Errorf("round %d: the record says that %q, want %q", round, got, want)
			}
			if !strings.Contains(r.Turns[1].Record.Act.Detail, fmt.Sprintf("vouches for entry %d with hash %s", late.Seq, late.Hash)) {
				t.Errorf("round %d: the entry does not name the checkpoint: %q", round, r.Turns[1].Record.Act.Detail)
			}
			r = h.verify(early, late)
			want := "vouches for entry" // beyond the end of the record
			if round > 0 {
				want = "has another hash for it"
			}
			if len(r.Findings) != 1 || !strings.Contains(r.Findings[0].Problem, want) {
				t.Errorf("round %d: with the checkpoint of what was forgotten: %v, want %q", round, r.Findings, want)
			}
			h.records(2*segmentLength + 4096)
			fresh = h.newest()
		}
		if head := h.verify().Entries; head <= late.Seq {
			t.Fatalf("the record ends at %d, and must have grown past %d", head, late.Seq)
		}
		var aside []string
		for _, f := range h.segments() {
			if !strings.HasSuffix(f, ".jsonl") {
				aside = append(aside, f)
			}
		}
		if len(aside) != 1 {
			t.Errorf("put aside: %v, want the one file that said something else", aside)
		}
		before := h.verify().Entries
		h.end()
		h.start("third") // nothing was rolled back since
		h.newest()
		if r := h.verify(early, fresh); len(r.Findings) > 0 || r.Entries != before || len(r.Turns) != 2 {
			t.Errorf("after a start that restored nothing: %d entries, want %d; %+v", r.Entries, before, r)
		}
		h.end()

		// What was forgotten can be read: the old file, and what was put aside in its place.
		other := &history{t: t, dir: t.TempDir()}
		if err := os.CopyFS(other.dir, os.DirFS(h.dir)); err != nil {
			t.Fatal(err)
		}
		for _, f := range aside {
			name := filepath.Join(other.dir, "audit", filepath.Base(f))
			if err := os.Rename(name, name[:strings.Index(name, ".jsonl")+len(".jsonl")]); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Rename(filepath.Join(other.dir, beforeRestore), filepath.Join(other.dir, "inventory.db")); err != nil {
			t.Fatal(err)
		}
		var err error
		if other.store, err = Open(other.dir, Options{NoSync: true}); err != nil {
			t.Fatal(err)
		}
		if r := other.verify(early, late); len(r.Findings) > 0 || r.Matched != 2 {
			t.Errorf("what was forgotten: %+v", r.Findings)
		}
		text, _ := exported(t, other.store)
		if got, want := text[:strings.LastIndex(text, `{"checkpoint"`)], forgotten[:strings.LastIndex(forgotten, `{"checkpoint"`)]; got != want {
			t.Errorf("what was forgotten has %d bytes now, and had %d", len(got), len(want))
		}
		if err := other.store.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// On another machine the backup and the keys alone are not the record: what was moved to files must come along, and its lack is
// told and not passed over.
func TestRestoreWithoutTheArchive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &history{t: t, dir: t.TempDir()}
		h.start("first")
		h.records(recordsKept + segmentLength + 64)
		early := h.newest()
		copied := backup(t, h.store)
		h.end()
		other := &history{t: t, dir: t.TempDir()}
		if err := os.CopyFS(filepath.Join(other.dir, "pki"), os.DirFS(filepath.Join(h.dir, "pki"))); err != nil {
			t.Fatal(err)
		}
		if _, err := Restore(t.Context(), other.dir, bytes.NewReader(copied), time.Now()); err != nil {
			t.Fatal(err)
		}
		key, err := os.ReadFile(filepath.Join(h.dir, "encryption.yaml"))
		if err == nil {
			err = os.WriteFile(filepath.Join(other.dir, "encryption.yaml"), key, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		other.start("second")
		if err := other.store.ExportRecord(t.Context(), &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "entry 1 of the record") {
			t.Errorf("an export without the files of old records: got %v, want an error that names the entry", err)
		}
		for _, f := range h.segments() {
			text, err := os.ReadFile(f)
			if err == nil {
				err = os.WriteFile(filepath.Join(other.dir, "audit", filepath.Base(f)), text, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if r := other.verify(early); len(r.Findings) > 0 || r.Matched != 1 || len(r.Turns) != 1 {
			t.Errorf("with them: %+v, %d turns", r.Findings, len(r.Turns))
		}
		other.end()
	})
}
