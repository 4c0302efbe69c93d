// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	clientv3 "go.etcd.io/etcd/client/v3"

	"metald.io/metald/internal/inventory/audit"
)

func backup(t *testing.T, s *Store) []byte {
	t.Helper()
	var b bytes.Buffer
	n, err := s.Backup(t.Context(), &b)
	if err != nil || n != int64(b.Len()) {
		t.Fatalf("backup of %d bytes, want %d; %v", n, b.Len(), err)
	}
	return b.Bytes()
}

// A backup taken while others write holds all that was acknowledged before it began, and one moment of the rest: each
// writer's two keys always change together, and the record has an entry of each change, in a chain that verifies.
func TestBackupUnderLoad(t *testing.T) {
	s := open(t, t.TempDir())
	ctx, stop := context.WithCancel(t.Context())
	const writers = 64
	var acknowledged [writers]atomic.Int64
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := int64(1); ctx.Err() == nil; i++ {
				value := fmt.Sprint(i, strings.Repeat("x", 700))
				_, err := s.Etcd().Txn(t.Context()).Then(clientv3.OpPut(fmt.Sprintf("/a/%d", w), value), clientv3.OpPut(fmt.Sprintf("/b/%d", w), value)).Commit()
				if err == nil {
					err = s.Records("dhcp").Put(t.Context(), fmt.Sprint(w), []byte(fmt.Sprint(i)))
				}
				if err != nil {
					t.Error(err)
					return
				}
				acknowledged[w].Store(i)
			}
		})
	}
	for range 3 {
		for w := range writers { // each writer moves on
			for before := acknowledged[w].Load(); acknowledged[w].Load() == before && !t.Failed(); {
				time.Sleep(time.Millisecond)
			}
		}
		var before [writers]int64
		for w := range writers {
			before[w] = acknowledged[w].Load()
		}
		copied := backup(t, s)
		dir := t.TempDir()
		if _, err := Restore(t.Context(), dir, bytes.NewReader(copied), start); err != nil {
			t.Fatal(err)
		}
		restored := open(t, dir)
		all, err := restored.Records("dhcp").All(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		wellFormed(t, restored)
		entries := map[string]int64{} // of each key
		err = restored.ReadRecord(t.Context(), time.Time{}, func(_ audit.Entry, r audit.Record) (bool, error) {
			for _, c := range r.Changes {
				entries[c.Object.Name]++
			}
			return true, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for w := range writers {
			var values []int64
			for _, key := range []string{"/a/%d", "/b/%d"} {
				resp, err := restored.Etcd().Get(t.Context(), fmt.Sprintf(key, w))
				if err != nil || len(resp.Kvs) != 1 {
					t.Fatalf("reading %s of the restored: %v, %v", fmt.Sprintf(key, w), resp, err)
				}
				var n int64
				fmt.Sscan(strings.TrimRight(string(resp.Kvs[0].Value), "x"), &n)
				values = append(values, n)
			}
			var n int64
			fmt.Sscan(string(all[fmt.Sprint(w)]), &n)
			if values[0] != values[1] || values[0] < before[w] || n < before[w] || n > values[0] {
				t.Errorf("writer %d: restored keys %v and record %d; want equal ones from %d on", w, values, n, before[w])
			}
			if a, b := entries[fmt.Sprintf("/a/%d", w)], entries[fmt.Sprintf("/b/%d", w)]; a != values[0] || b != values[0] {
				t.Errorf("writer %d: %d and %d entries in the record of keys that were written %d times", w, a, b, values[0])
			}
		}
		restored.Close()
	}
	stop()
	wg.Wait()
}

func TestRestoreReplacesAndMarks(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if _, ok, err := s.Restored(); ok || err != nil {
		t.Errorf("a fresh inventory says it was restored: %v, %v", ok, err)
	}
	if _, err := s.Events().Create(t.Context(), newEvent("old")); err != nil {
		t.Fatal(err)
	}
	copied := backup(t, s)
	if _, err := s.Events().Create(t.Context(), newEvent("new")); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), dir, bytes.NewReader(copied), start); !errors.Is(err, ErrHeld) {
		t.Errorf("while a daemon runs: got %v, want ErrHeld", err)
	}
	s.Close()
	before, err := os.ReadFile(filepath.Join(dir, "inventory.db"))
	if err != nil {
		t.Fatal(err)
	}

	at := start.Add(time.Hour)
	ctx := WithReason(WithActor(t.Context(), audit.Actor{User: "ops1", Via: audit.ViaConsole}, ""), "the disk died")
	got, err := Restore(ctx, dir, bytes.NewReader(copied), at)
	if err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	mark, ok, err := s.Restored()
	if err != nil || !ok || mark != got || !mark.At.Equal(at) || !mark.BackupOf.Equal(start) || mark.Epochs() != at.Unix() {
		t.Errorf("mark: got %+v, %v, %v; want %v of %v", mark, ok, err, at, start)
	}
	events, err := s.Events().List(t.Context(), "")
	if err != nil || len(events) != 1 || events[0].Name != "old" {
		t.Errorf("restored events: got %v, %v; want the old one", events, err)
	}
	entries, err := s.backend.Log(0, 1000)
	if err != nil || len(entries) == 0 {
		t.Fatalf("the record is empty: %v", err)
	}
	if last := string(entries[len(entries)-1].Payload); !strings.Contains(last, `"restore backup"`) || !strings.Contains(last, `"ops1"`) || !strings.Contains(last, "the disk died") {
		t.Errorf("the newest record is %s, want the restore with who and why", last)
	}
	s.Close()
	if kept, err := os.ReadFile(filepath.Join(dir, beforeRestore)); err != nil || !bytes.Equal(kept, before) {
		t.Errorf("the old file was not kept as it was: %v", err)
	}
	if _, err := Restore(t.Context(), dir, bytes.NewReader(copied), at.Add(time.Hour)); err != nil {
		t.Errorf("a second restore: %v", err)
	}
}

// What is no whole backup changes nothing.
func TestBadBackupsAreRefused(t *testing.T) {
	s := open(t, t.TempDir())
	if _, err := s.Events().Create(t.Context(), newEvent("old")); err != nil {
		t.Fatal(err)
	}
	good := backup(t, s)
	head := bytes.IndexByte(good[len(backupMagic):], '\n') + len(backupMagic) + 1
	edit := func(change func(b []byte) []byte) []byte { return change(slices.Clone(good)) }
	resum := func(b []byte) []byte {
		body := b[:len(b)-sha256.Size]
		sum := sha256.Sum256(body)
		return append(body, sum[:]...)
	}
	inside := func(change func(tx *bbolt.Tx) error) []byte { // another file, with a right digest
		path := filepath.Join(t.TempDir(), "a.db")
		if err := os.WriteFile(path, good[head:len(good)-sha256.Size], 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := bbolt.Open(path, 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(db.Update(change), db.Close()); err != nil {
			t.Fatal(err)
		}
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b := fmt.Appendf(nil, "%s{\"time\":\"2026-01-02T03:04:05Z\",\"revision\":2,\"size\":%d}\n%s", backupMagic, len(file), file)
		return resum(append(b, make([]byte, sha256.Size)...))
	}
	for name, c := range map[string]struct {
		backup []byte
		want   error
	}{
		"empty":            {nil, ErrCorrupt},
		"a bare file":      {good[head : len(good)-sha256.Size], ErrCorrupt},
		"no head":          {[]byte(backupMagic + "none\n"), ErrCorrupt},
		"an endless head":  {append([]byte(backupMagic), bytes.Repeat([]byte("{"), 1<<20)...), ErrCorrupt},
		"cut in the head":  {good[:head-3], ErrCorrupt},
		"cut in the file":  {good[:head+5000], ErrCorrupt},
		"without a digest": {good[:len(good)-sha256.Size], ErrCorrupt},
		"cut by one byte":  {good[:len(good)-1], ErrCorrupt},
		"one byte more":    {edit(func(b []byte) []byte { return append(b, 0) }), ErrCorrupt},
		"a flipped bit":    {edit(func(b []byte) []byte { b[head+9000] ^= 1; return b }), ErrCorrupt},
		"a wrong digest":   {edit(func(b []byte) []byte { b[len(b)-1] ^= 1; return b }), ErrCorrupt},
		"a newer schema": {inside(func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte("meta")).Put([]byte("schema"), []byte{0, 0, 0, 0, 0, 0, 0, 99})
		}), ErrNewerSchema},
		"a file with a lost row": {inside(func(tx *bbolt.Tx) error {
			keys := tx.Bucket([]byte("keys"))
			key, _ := keys.Cursor().First()
			return keys.Delete(key)
		}), ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			into := open(t, dir)
			if _, err := into.Events().Create(t.Context(), newEvent("mine")); err != nil {
				t.Fatal(err)
			}
			into.Close()
			if _, err := Restore(t.Context(), dir, bytes.NewReader(c.backup), start); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if left, err := filepath.Glob(filepath.Join(dir, "inventory.db?*")); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
			into = open(t, dir)
			if _, err := into.Events().Get(t.Context(), "default", "mine"); err != nil {
				t.Errorf("what was there before: %v", err)
			}
		})
	}
}

// A backup whose reader goes away, or runs out of room, is an error.
func TestBackupThatCannotBeWritten(t *testing.T) {
	s := open(t, t.TempDir())
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	if _, err := s.Backup(t.Context(), full); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a backup to a full disk: got %v, want ENOSPC", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Backup(ctx, &bytes.Buffer{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a backup that nobody waits for: got %v, want Canceled", err)
	}
}

// Without room for the backup nothing is changed, and nothing is left behind. It is tried in a process of its own: the limit that
// stands for the full disk also holds for what the go command has a test write down.
func TestRestoreWithoutRoom(t *testing.T) {
	const alone = "METALD_TEST_WITHOUT_ROOM"
	if os.Getenv(alone) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRestoreWithoutRoom$", "-test.v")
		cmd.Env = append(os.Environ(), alone+"=1")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestRestoreWithoutRoom") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	dir := t.TempDir()
	s := open(t, dir)
	if _, err := s.Events().Create(t.Context(), newEvent("mine")); err != nil {
		t.Fatal(err)
	}
	copied := backup(t, s)
	s.Close()
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 4096, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	_, err := Restore(t.Context(), dir, bytes.NewReader(copied), start)
	if back := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old); back != nil {
		t.Fatal(back)
	}
	if !errors.Is(err, ErrFull) {
		t.Errorf("got %v, want ErrFull", err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "inventory.db?*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	s = open(t, dir)
	if _, err := s.Events().Get(t.Context(), "default", "mine"); err != nil {
		t.Errorf("what was there before: %v", err)
	}
}

// An object whose row the disk has changed is refused, the others are served.
func TestDamagedObject(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for _, name := range []string{"bad", "good"} {
		if _, err := s.Events().Create(t.Context(), newEvent(name)); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	db, err := bbolt.Open(filepath.Join(dir, "inventory.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		keys, key := tx.Bucket([]byte("keys")), []byte("/registry/core/events/default/bad")
		row := slices.Clone(keys.Get(key))
		row[len(row)/2] ^= 1
		return keys.Put(key, row)
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	if _, err := s.Events().Get(t.Context(), "default", "bad"); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "restore a backup") {
		t.Errorf("the damaged one: got %v, want ErrCorrupt that says what to do", err)
	}
	if _, err := s.Events().List(t.Context(), "default"); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a list with it: got %v, want ErrCorrupt", err)
	}
	if _, err := s.Events().Get(t.Context(), "default", "good"); err != nil {
		t.Errorf("another: %v", err)
	}
}
