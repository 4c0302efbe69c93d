// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// payloads reads the whole log, checks its chain by the formula of Entry's comment, and returns what the entries carry.
func payloads(t *testing.T, e *Engine) []string {
	t.Helper()
	entries, err := e.Log(0, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for i, entry := range entries {
		if i > 0 && (entry.Seq != entries[i-1].Seq+1 || entry.Prev != entries[i-1].Hash) {
			t.Errorf("entry %d does not follow entry %d", entry.Seq, entries[i-1].Seq)
		}
		sum := sha256.Sum256(fmt.Appendf(nil, "%s%s%s", entry.Prev[:], binary.BigEndian.AppendUint64(nil, entry.Seq), entry.Payload))
		if entry.Hash != sum {
			t.Errorf("entry %d: hash %x, want %x", entry.Seq, entry.Hash, sum)
		}
		all = append(all, string(entry.Payload))
	}
	if n := len(entries); n > 0 {
		if seq, hash := e.Head(); seq != entries[n-1].Seq || hash != entries[n-1].Hash {
			t.Errorf("head: got %d %x, want the last entry's %d %x", seq, hash, entries[n-1].Seq, entries[n-1].Hash)
		}
	}
	return all
}

// say notes revision and key of each event, and who wrote it.
func say(ctx context.Context, events []*mvccpb.Event) []byte {
	var b strings.Builder
	for _, ev := range events {
		fmt.Fprintf(&b, "%d %s %s", ev.Kv.ModRevision, strings.ToLower(ev.Type.String()), ev.Kv.Key)
		if ev.PrevKv != nil {
			fmt.Fprintf(&b, " was %s", ev.PrevKv.Value)
		}
		b.WriteString(";")
	}
	if Expired(ctx) {
		b.WriteString(" expired")
	}
	return []byte(b.String())
}

func TestNotesGoWithWhatTookEffect(t *testing.T) {
	e := open(t, filepath.Join(t.TempDir(), "a.db"), func(o *Options) {
		o.Note = func(ctx context.Context, events []*mvccpb.Event) []byte {
			if bytes.HasPrefix(events[0].Kv.Key, []byte("/quiet")) {
				return nil
			}
			return say(ctx, events)
		}
	})
	ctx, c := t.Context(), e.Client()
	dhcp := e.Records("dhcp")
	lease, err := c.Grant(WithNote(ctx, []byte("a lease alone")), 100)
	if err != nil {
		t.Fatal(err)
	}
	absent := clientv3.Compare(clientv3.ModRevision("/a"), "=", 0)
	steps := []struct {
		do   func(context.Context) error
		want []string
	}{
		{func(ctx context.Context) error { _, err := c.Put(ctx, "/a", "1"); return err }, []string{"2 put /a;", "note 0"}},
		{func(ctx context.Context) error { _, err := c.Put(ctx, "/quiet", "1"); return err }, []string{"note 1"}},
		{func(ctx context.Context) error { // the comparison fails, and there is no other branch
			_, err := c.Txn(ctx).If(absent).Then(clientv3.OpPut("/a", "2")).Commit()
			return err
		}, nil},
		{func(ctx context.Context) error { // the other branch only reads
			_, err := c.Txn(ctx).If(absent).Then(clientv3.OpPut("/a", "2")).Else(clientv3.OpGet("/a")).Commit()
			return err
		}, nil},
		{func(ctx context.Context) error { // the other branch writes, two keys
			_, err := c.Txn(ctx).If(absent).Else(clientv3.OpPut("/a", "2"), clientv3.OpPut("/b", "2")).Commit()
			return err
		}, []string{"4 put /a was 1;4 put /b;", "note 4"}},
		{func(ctx context.Context) error { // refused
			if _, err := c.Put(ctx, "/c", "1", clientv3.WithLease(12345)); err == nil {
				return errors.New("a lease that is not there was taken")
			}
			return nil
		}, nil},
		{func(ctx context.Context) error { _, err := c.Delete(ctx, "/none"); return err }, nil},
		{func(ctx context.Context) error { _, err := c.Delete(ctx, "/a"); return err }, []string{"5 delete /a was 2;", "note 7"}},
		{func(ctx context.Context) error { return dhcp.Put(ctx, "x", []byte("1")) }, []string{"note 8"}},
		{func(ctx context.Context) error { return dhcp.Delete(ctx, "x") }, []string{"note 9"}},
		{func(ctx context.Context) error { return dhcp.Delete(ctx, "x") }, nil},
		{func(ctx context.Context) error { _, err := c.Get(ctx, "/b"); return err }, nil},
		{func(ctx context.Context) error { _, err := e.Append(ctx, []byte("alone")); return err }, []string{"alone"}},
		{func(ctx context.Context) error {
			_, err := c.Put(ctx, "/l", "1", clientv3.WithLease(lease.ID))
			return err
		}, []string{"6 put /l;", "note 13"}},
		{func(ctx context.Context) error { _, err := c.Revoke(ctx, lease.ID); return err }, []string{"7 delete /l was 1;", "note 14"}},
	}
	var want []string
	for i, step := range steps {
		if err := step.do(WithNote(ctx, fmt.Append(nil, "note ", i))); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		want = append(want, step.want...)
		if diff := cmp.Diff(want, payloads(t, e)); diff != "" {
			t.Fatalf("log after step %d (-want +got):\n%s", i, diff)
		}
	}
}

func TestExpiryIsNoted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	synctest.Test(t, func(t *testing.T) {
		e := open(t, path, func(o *Options) { o.Note = say })
		lease, err := e.Client().Grant(t.Context(), 10)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.Client().Put(t.Context(), "/a", "1", clientv3.WithLease(lease.ID)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(11 * time.Second)
		synctest.Wait()
		want := []string{"2 put /a;", "3 delete /a was 1; expired"}
		if diff := cmp.Diff(want, payloads(t, e)); diff != "" {
			t.Errorf("log (-want +got):\n%s", diff)
		}
		e.Close()
	})
}

// Many writers at once: the log has no gap, and its order is that of the revisions.
func TestLogOrderIsRevisionOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	e := open(t, path, func(o *Options) { o.Note = say })
	const writers, each = 16, 60
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if _, err := e.Client().Put(t.Context(), fmt.Sprintf("/%d/%d", w, i), "1"); err != nil {
					t.Error(err)
				}
				if _, err := e.Append(t.Context(), []byte("between")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	check := func() {
		t.Helper()
		rev, between := 1, 0
		for _, p := range payloads(t, e) {
			if p == "between" {
				between++
				continue
			}
			var got int
			fmt.Sscan(p, &got)
			if rev++; got != rev {
				t.Fatalf("the log tells of revision %d where %d is next", got, rev)
			}
		}
		if rev != 1+writers*each || between != writers*each {
			t.Errorf("the log ends at revision %d with %d entries between, want %d and %d", rev, between, 1+writers*each, writers*each)
		}
	}
	check()
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = open(t, path)
	check()
}

func TestTrimKeepsTheChain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	e := open(t, path)
	const n = 2*trimChunk + 10
	var all []Entry
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if _, err := e.Append(t.Context(), fmt.Append(nil, i)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	all, err := e.Log(1, n)
	if err != nil || len(all) != n {
		t.Fatalf("log holds %d entries, %v; want %d", len(all), err, n)
	}
	if err := e.Trim(t.Context(), n+1); !errors.Is(err, errBeyondHead) {
		t.Errorf("trimming past the head: got %v, want errBeyondHead", err)
	}
	for _, upTo := range []uint64{5, 5, 3, n - 2, n} {
		if err := e.Trim(t.Context(), upTo); err != nil {
			t.Fatal(err)
		}
		upTo = max(upTo, 5)
		got, err := e.Log(0, n)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(all[upTo:], append([]Entry{}, got...)); diff != "" {
			t.Fatalf("trimmed up to %d (-want +got):\n%s", upTo, diff)
		}
		if mid, err := e.Log(n-1, 1); upTo < n-2 && (err != nil || len(mid) != 1 || mid[0].Seq != n-1) {
			t.Errorf("one entry from %d: got %v, %v", n-1, mid, err)
		}
	}
	e.Close()
	e = open(t, path)
	next, err := e.Append(t.Context(), []byte("next"))
	if err != nil {
		t.Fatal(err)
	}
	if next.Seq != n+1 || next.Prev != all[n-1].Hash {
		t.Errorf("the entry after a trimmed log is %d after %x, want %d after %x", next.Seq, next.Prev, n+1, all[n-1].Hash)
	}
	if got, want := payloads(t, e), []string{"next"}; !cmp.Equal(got, want) {
		t.Errorf("log: got %v, want %v", got, want)
	}
}

// A panic of Note loses its own request, and nothing else.
func TestNoteThatPanics(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	e := open(t, path, func(o *Options) {
		o.Note = func(ctx context.Context, events []*mvccpb.Event) []byte {
			if string(events[0].Kv.Value) == "bad" {
				panic("a value that cannot be noted")
			}
			return say(ctx, events)
		}
	})
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			value := "good"
			if i%10 == 0 {
				value = "bad"
			}
			_, err := e.Client().Put(t.Context(), fmt.Sprint("/", i), value)
			if bad := value == "bad"; bad != (err != nil) {
				t.Errorf("writing a %s value: %v", value, err)
			} else if bad && !strings.Contains(err.Error(), "cannot be noted") {
				t.Errorf("got %q, want it to say what the panic said", err)
			}
		})
	}
	wg.Wait()
	resp, err := e.Client().Get(t.Context(), "/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Kvs) != 90 || resp.Header.Revision != 91 || len(payloads(t, e)) != 90 {
		t.Errorf("%d keys at revision %d with %d entries, want 90 at 91 with 90", len(resp.Kvs), resp.Header.Revision, len(payloads(t, e)))
	}
	select {
	case err := <-e.Fatal():
		t.Errorf("it took the engine out of service: %v", err)
	default:
	}
}

// An entry that somebody changed below the engine, with all checksums made to fit, is not served, nor is the one after it
// where its chain is broken.
func TestForgedEntryIsNotServed(t *testing.T) {
	for _, c := range []struct {
		name  string
		forge func(row []byte) []byte
		bad   []uint64
	}{
		{"payload", func(row []byte) []byte { return append(row[:len(row)-1:len(row)-1], 'X') }, []uint64{3}},
		{"hash", func(row []byte) []byte { return append([]byte{^row[0]}, row[1:]...) }, []uint64{3, 4}},
		{"gone", func([]byte) []byte { return nil }, []uint64{3, 4}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.db")
			e := open(t, path)
			for i := range 5 {
				if _, err := e.Append(t.Context(), fmt.Append(nil, i)); err != nil {
					t.Fatal(err)
				}
			}
			e.Close()
			spoil(t, path, func(tx *bbolt.Tx) error {
				log, key := tx.Bucket(logBucket), numberBytes(3)
				all, err := tallyAt(tx)
				row := log.Get(key)
				all.remove(row)
				if forged := c.forge(row[sumSize:]); forged == nil {
					err = errors.Join(err, log.Delete(key))
				} else {
					row = seal(logBucket, key, forged)
					all.add(row)
					err = errors.Join(err, log.Put(key, row))
				}
				return errors.Join(err, putMeta(tx, tallyKey, all.bytes()))
			})
			e = open(t, path)
			for seq := uint64(1); seq <= 5; seq++ {
				bad := seq == c.bad[0] || seq == c.bad[len(c.bad)-1]
				if got, err := e.Log(seq, 1); bad != errors.Is(err, ErrCorrupt) || !bad && (err != nil || got[0].Seq != seq) {
					t.Errorf("reading entry %d: got %v, %v; want it refused: %v", seq, got, err, bad)
				}
			}
			if _, err := e.Log(1, 5); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "entry 3 of the log") {
				t.Errorf("reading all: got %v, want an error that names entry 3", err)
			}
		})
	}
}

// spoil changes a closed file behind the engine's back.
func spoil(t *testing.T, path string, change func(*bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(change), db.Close()); err != nil {
		t.Fatal(err)
	}
}
