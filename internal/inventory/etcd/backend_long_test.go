// SPDX-License-Identifier: Apache-2.0

//go:build long

package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"metald.io/metald/internal/inventory/engine"
	"metald.io/metald/internal/inventory/etcd/etcdtest"
)

// put writes a key and fails the test where that is not acknowledged.
func mustPut(t *testing.T, b *Backend, key, value string) {
	t.Helper()
	if _, err := b.Client().Put(t.Context(), key, value); err != nil {
		t.Fatalf("writing %s: %v", key, err)
	}
}

// texts are the payloads of the log, which Log has checked.
func texts(t *testing.T, b *Backend) (all []string) {
	t.Helper()
	log, err := b.Log(1, 100000)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range log {
		all = append(all, string(e.Payload))
	}
	return all
}

// Each write that changes a key has its entry at the key's own revision; what changes nothing has none.
func TestEntryIsInTheTransaction(t *testing.T) {
	s := etcdtest.Start(t)
	b := open(t, s)
	c := b.Client()
	ctx := t.Context()
	compared := func(rev int64, then ...clientv3.Op) func() error {
		return func() error {
			_, err := c.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision("/a"), "=", rev)).Then(then...).Else(clientv3.OpGet("/a")).Commit()
			return err
		}
	}
	for _, test := range []struct {
		name string
		do   func() error
		want []string
	}{
		{"a put", func() error { _, err := c.Put(ctx, "/a", "1"); return err }, []string{"PUT /a;"}},
		{"a comparison that does not hold", compared(1, clientv3.OpPut("/a", "2")), nil},
		{"two keys", compared(0, clientv3.OpPut("/b", "1"), clientv3.OpPut("/c", "1")), nil},
		{"two keys at once", func() error {
			_, err := c.Txn(ctx).Then(clientv3.OpPut("/b", "1"), clientv3.OpGet("/a"), clientv3.OpPut("/c", "1")).Commit()
			return err
		}, []string{"PUT /b;PUT /c;"}},
		{"a removal", func() error { _, err := c.Delete(ctx, "/b"); return err }, []string{"DELETE /b;"}},
		{"a removal of nothing", func() error { _, err := c.Delete(ctx, "/b"); return err }, nil},
		{"all keys", func() error {
			resp, err := c.Delete(ctx, "/", clientv3.WithPrefix(), clientv3.WithPrevKV())
			if err == nil && (resp.Deleted != 2 || string(resp.PrevKvs[0].Key) != "/a") {
				err = fmt.Errorf("removed %v", resp)
			}
			return err
		}, []string{"DELETE /a;DELETE /c;"}},
		{"a read", func() error { _, err := c.Get(ctx, "\x00", clientv3.WithFromKey()); return err }, nil},
	} {
		before := len(texts(t, b))
		if err := test.do(); err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		if got := texts(t, b)[before:]; !slices.Equal(got, test.want) {
			t.Errorf("%s: the log has %q, want %q", test.name, got, test.want)
		}
	}
	mustPut(t, b, "/a", "1")
	everything := s.Client(t)
	defer everything.Close()
	resp, err := everything.Get(ctx, "/metald/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]int64{}
	for _, kv := range resp.Kvs {
		at[string(kv.Key)] = kv.ModRevision
	}
	seq, _ := b.Head()
	if a := at["/metald/keys/a"]; a == 0 || a != at["/metald/log/head"] || a != at[b.keys.entry(seq)] {
		t.Errorf("a key and its entry are not of one revision: %v", at)
	}
	if seq != 5 {
		t.Errorf("the log has %d entries, want 5", seq)
	}
}

// The value that a write replaces is the one that its entry tells of, however many write at once, and all of them are there.
func TestManyWritersOneChain(t *testing.T) {
	s := etcdtest.Start(t)
	b := open(t, s, func(_ *Config, o *Options) {
		o.Note = func(_ context.Context, events []*mvccpb.Event) []byte {
			if strings.HasPrefix(string(events[0].Kv.Key), "/quiet") {
				return nil
			}
			before := ""
			if events[0].PrevKv != nil {
				before = string(events[0].PrevKv.Value)
			}
			return []byte(before + ">" + string(events[0].Kv.Value))
		}
	})
	const writers, times = 16, 30
	errs := make(chan error, writers)
	for w := range writers {
		go func() {
			var err error
			for i := range times {
				_, e := b.Client().Put(t.Context(), "/a", fmt.Sprintf("%d.%d", w, i))
				_, q := b.Client().Put(t.Context(), fmt.Sprintf("/quiet/%d", w), "x")
				_, a := b.Append(t.Context(), []byte("act"))
				err = errors.Join(err, e, q, a)
			}
			errs <- err
		}()
	}
	for range writers {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	last, changes, acts := "", 0, 0
	for _, line := range texts(t, b) {
		if line == "act" {
			acts++
			continue
		}
		before, after, _ := strings.Cut(line, ">")
		if before != last {
			t.Fatalf("entry %q follows a value of %q", line, last)
		}
		last = after
		changes++
	}
	if changes != writers*times || acts != writers*times {
		t.Errorf("%d changes and %d acts in the log, want %d of each", changes, acts, writers*times)
	}
}

func TestLogIsTrimmedAndGoesOn(t *testing.T) {
	s := etcdtest.Start(t)
	b := open(t, s)
	for i := range 10 {
		mustPut(t, b, "/a", fmt.Sprint(i))
	}
	for _, upTo := range []uint64{0, 4, 3, 7} {
		if err := b.Trim(t.Context(), upTo); err != nil {
			t.Fatalf("trimming up to %d: %v", upTo, err)
		}
	}
	if err := b.Trim(t.Context(), 11); !errors.Is(err, errBeyondHead) {
		t.Errorf("trimming beyond the head: %v", err)
	}
	for _, test := range []struct {
		from uint64
		max  int
		want []uint64
	}{{1, 10, []uint64{8, 9, 10}}, {8, 1, []uint64{8}}, {9, 10, []uint64{9, 10}}, {10, 10, []uint64{10}}, {11, 10, nil}, {0, 2, []uint64{8, 9}}} {
		log, err := b.Log(test.from, test.max)
		var got []uint64
		for _, e := range log {
			got = append(got, e.Seq)
		}
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("Log(%d, %d) = %v, %v, want %v", test.from, test.max, got, err, test.want)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = open(t, s)
	if entry, err := b.Append(t.Context(), []byte("more")); err != nil || entry.Seq != 11 || entry.Hash != entry.Sum() {
		t.Errorf("after opening again: %+v, %v", entry, err)
	}
	if n := len(texts(t, b)); n != 4 {
		t.Errorf("%d entries, want 4", n)
	}
}

// What somebody changes in etcd past metald is found when it is read, or when the chain is to grow.
func TestForgedLogIsFound(t *testing.T) {
	for name, forge := range map[string]func(b *Backend) clientv3.Op{
		"a payload":   func(b *Backend) clientv3.Op { return clientv3.OpPut(b.keys.entry(2), strings.Repeat("x", 40)) },
		"a removal":   func(b *Backend) clientv3.Op { return clientv3.OpDelete(b.keys.entry(2)) },
		"a short row": func(b *Backend) clientv3.Op { return clientv3.OpPut(b.keys.entry(3), "x") },
		"the base":    func(b *Backend) clientv3.Op { return clientv3.OpPut(b.keys.base, "x") },
	} {
		t.Run(name, func(t *testing.T) {
			s := etcdtest.Start(t)
			b := open(t, s)
			for i := range 3 {
				mustPut(t, b, "/a", fmt.Sprint(i))
			}
			stranger := s.Client(t)
			defer stranger.Close()
			if _, err := stranger.Do(t.Context(), forge(b)); err != nil {
				t.Fatal(err)
			}
			if log, err := b.Log(1, 10); !errors.Is(err, engine.ErrCorrupt) {
				t.Errorf("read %v, %v, want ErrCorrupt", log, err)
			}
		})
	}
	t.Run("the head", func(t *testing.T) {
		s := etcdtest.Start(t)
		b := open(t, s)
		mustPut(t, b, "/a", "1")
		stranger := s.Client(t)
		defer stranger.Close()
		if _, err := stranger.Put(t.Context(), b.keys.head, string(chain{seq: 7}.bytes())); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Client().Put(t.Context(), "/a", "2"); !errors.Is(err, engine.ErrClosed) {
			t.Errorf("a write to a forked chain: %v, want ErrClosed", err)
		}
		if err := <-b.Fatal(); !errors.Is(err, errForged) {
			t.Errorf("ended with %v", err)
		}
		if resp, err := stranger.Get(t.Context(), "/metald/keys/a"); err != nil || string(resp.Kvs[0].Value) != "1" {
			t.Errorf("what was refused was written: %v, %v", resp, err)
		}
	})
}

// Keys whose lease ends go by themselves, and without an entry, as in a file.
func TestExpiryIsNotRecorded(t *testing.T) {
	s := etcdtest.Start(t)
	b := open(t, s)
	lease, err := b.Client().Grant(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Client().Put(t.Context(), "/a", "1", clientv3.WithLease(lease.ID)); err != nil {
		t.Fatal(err)
	}
	watch := b.Client().Watch(t.Context(), "/a")
	select {
	case resp := <-watch:
		if len(resp.Events) != 1 || resp.Events[0].Type != clientv3.EventTypeDelete || string(resp.Events[0].Kv.Key) != "/a" {
			t.Errorf("got %+v, want /a removed", resp)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it did not go")
	}
	if got, want := texts(t, b), []string{"PUT /a;"}; !slices.Equal(got, want) {
		t.Errorf("the log has %q, want %q", got, want)
	}
	mustPut(t, b, "/a", "2")
}

func TestRecordsAreApart(t *testing.T) {
	s := etcdtest.Start(t)
	b := open(t, s)
	one, other := b.Records("a"), b.Records("a/b")
	for _, err := range []error{one.Put(t.Context(), "b/k", []byte("1")), other.Put(t.Context(), "k", nil), one.Delete(t.Context(), "none")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	all, err := one.All(t.Context())
	if err != nil || len(all) != 1 || string(all["b/k"]) != "1" {
		t.Errorf("one bucket holds %q, %v", all, err)
	}
	if got, err := other.Get(t.Context(), "k"); err != nil || got == nil || len(got) != 0 {
		t.Errorf("an empty value: %v, %v", got, err)
	}
	if got, err := one.Get(t.Context(), "k"); err != nil || got != nil {
		t.Errorf("no value: %v, %v", got, err)
	}
	if resp, err := b.Client().Get(t.Context(), "", clientv3.WithFromKey()); err != nil || len(resp.Kvs) != 0 {
		t.Errorf("the client sees %v, %v", resp, err)
	}
}

// History is cut; a watch that is older is told so.
func TestHistoryIsCut(t *testing.T) {
	s := etcdtest.Start(t)
	b := open(t, s, func(_ *Config, o *Options) { o.History = 200 * time.Millisecond })
	first, err := b.Client().Put(t.Context(), "/a", "1")
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; {
		mustPut(t, b, "/a", "2")
		_, err := b.Client().Get(t.Context(), "/a", clientv3.WithRev(first.Header.Revision))
		if errors.Is(err, rpctypes.ErrCompacted) {
			break
		}
		if err != nil || time.Now().After(end) {
			t.Fatalf("an old revision is still read: %v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	watch := b.Client().Watch(t.Context(), "/a", clientv3.WithRev(first.Header.Revision))
	if resp := <-watch; resp.CompactRevision == 0 {
		t.Errorf("a watch from the past got %+v", resp)
	}
}
