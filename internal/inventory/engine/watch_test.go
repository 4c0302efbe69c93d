// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// A watcher that does not read is cut off at the end of the history, whose size in memory stays bounded.
func TestSlowWatcherIsCutOff(t *testing.T) {
	const bound = 64 << 10
	e := open(t, filepath.Join(t.TempDir(), "a.db"), func(o *Options) { o.History = bound })
	slow := e.Client().Watch(t.Context(), "/", clientv3.WithPrefix())
	for i := range 500 {
		put(t, e.Client(), "/a", strings.Repeat("x", 1000)+fmt.Sprint(i))
	}
	e.mu.RLock()
	if size := e.past.size; size > bound {
		t.Errorf("history of %d bytes, want at most %d", size, bound)
	}
	counted := 0
	for _, ev := range e.past.events {
		counted += eventSize(ev)
	}
	if counted != e.past.size {
		t.Errorf("history counts %d bytes, holds %d", e.past.size, counted)
	}
	e.mu.RUnlock()
	last := int64(1)
	for resp := range slow {
		if errors.Is(resp.Err(), rpctypes.ErrCompacted) {
			if _, open := <-slow; open {
				t.Error("the watch went on after its end")
			}
			return
		}
		for _, ev := range resp.Events {
			if ev.Kv.ModRevision != last+1 {
				t.Fatalf("revision %d after %d", ev.Kv.ModRevision, last)
			}
			last = ev.Kv.ModRevision
		}
	}
	t.Errorf("the watch ended at revision %d without saying why", last)
}

func TestWatchOptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := open(t, filepath.Join(t.TempDir(), "a.db"))
		defer e.Close()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		c := e.Client()
		puts := c.Watch(ctx, "/a", clientv3.WithFilterDelete(), clientv3.WithCreatedNotify())
		deletes := c.Watch(ctx, "/", clientv3.WithPrefix(), clientv3.WithFilterPut())
		if resp := <-puts; !resp.Created {
			t.Errorf("first answer: got %+v, want Created", resp)
		}
		put(t, c, "/a", "1")
		put(t, c, "/b", "2")
		if _, err := c.Delete(ctx, "/", clientv3.WithPrefix()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if resp := <-puts; len(resp.Events) != 1 || resp.Events[0].PrevKv != nil || string(resp.Events[0].Kv.Value) != "1" {
			t.Errorf("puts: got %v", resp.Events)
		}
		if resp := <-deletes; len(resp.Events) != 2 || resp.Events[0].Kv.ModRevision != 4 || resp.Events[1].Kv.ModRevision != 4 {
			t.Errorf("deletes: got %v, want two at revision 4", resp.Events)
		}
		// Asked for progress, a watch with nothing to tell tells the revision.
		if err := c.RequestProgress(ctx); err != nil {
			t.Fatal(err)
		}
		if resp := <-deletes; !resp.IsProgressNotify() || resp.Header.Revision != 4 {
			t.Errorf("progress: got %+v, want revision 4", resp)
		}
	})
}

func TestLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "a.db")
		e := open(t, path)
		ctx, c := t.Context(), e.Client()
		grant := func(ttl int64) clientv3.LeaseID {
			resp, err := c.Grant(ctx, ttl)
			if err != nil {
				t.Fatal(err)
			}
			return resp.ID
		}
		short, long := grant(60), grant(600)
		for key, id := range map[string]clientv3.LeaseID{"/short": short, "/moved": short, "/long": long} {
			if _, err := c.Put(ctx, key, "", clientv3.WithLease(id)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := c.Put(ctx, "/moved", "", clientv3.WithLease(long)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Put(ctx, "/none", "", clientv3.WithLease(12345)); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			t.Errorf("a lease that is not there: got %v, want ErrLeaseNotFound", err)
		}
		keys := func() string {
			resp, err := c.Get(ctx, "/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, kv := range resp.Kvs {
				names = append(names, string(kv.Key))
			}
			return strings.Join(names, " ")
		}
		time.Sleep(59 * time.Second)
		if got, want := keys(), "/long /moved /short"; got != want {
			t.Errorf("after 59s: got %s, want %s", got, want)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got, want := keys(), "/long /moved"; got != want {
			t.Errorf("after 61s: got %s, want %s", got, want)
		}
		if _, err := c.KeepAliveOnce(ctx, long); err != nil {
			t.Fatal(err)
		}
		if resp, err := c.TimeToLive(ctx, long); err != nil || resp.TTL != 600 || len(resp.Keys) != 2 {
			t.Errorf("after renewal: got %+v, %v, want 600 seconds and 2 keys", resp, err)
		}
		e.Close()

		// The wall clock jumps ten years ahead while the engine is away: nothing goes at once, and nothing stays for ever.
		e = open(t, path, func(o *Options) { o.Now = func() time.Time { return time.Now().AddDate(10, 0, 0) } })
		defer e.Close()
		c = e.Client()
		time.Sleep(50 * time.Second)
		if got, want := keys(), "/long /moved"; got != want {
			t.Errorf("50s after the jump: got %s, want %s", got, want)
		}
		if _, err := c.Revoke(ctx, long); err != nil {
			t.Fatal(err)
		}
		if got := keys(); got != "" {
			t.Errorf("after revocation: got %s", got)
		}
		if resp, err := c.TimeToLive(ctx, long); err != nil || resp.TTL != -1 {
			t.Errorf("a lease that is gone: got %+v, %v, want -1", resp, err)
		}
	})
}

func TestSnapshotOpens(t *testing.T) {
	dir := t.TempDir()
	e := open(t, filepath.Join(dir, "a.db"))
	put(t, e.Client(), "/a", "1")
	r, err := e.Client().Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	put(t, e.Client(), "/a", "2")
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(dir, "b.db")
	if err := os.WriteFile(copied, data, 0o600); err != nil {
		t.Fatal(err)
	}
	resp, err := open(t, copied).Client().Get(t.Context(), "/a")
	if err != nil {
		t.Fatal(err)
	}
	if got := string(resp.Kvs[0].Value); got != "1" {
		t.Errorf("the copy holds %q, want %q", got, "1")
	}
}

func TestBadRequests(t *testing.T) {
	e := open(t, filepath.Join(t.TempDir(), "a.db"))
	c, ctx := e.Client(), t.Context()
	put(t, c, "/a", "1")
	txn := func(ops ...clientv3.Op) error { _, err := c.Txn(ctx).Then(ops...).Commit(); return err }
	for _, tt := range []struct {
		name string
		err  error
		want string
	}{
		{"no key", txn(clientv3.OpPut("", "x")), "key is not provided"},
		{"twice the same key", txn(clientv3.OpPut("/b", "1"), clientv3.OpPut("/b", "2")), "duplicate key"},
		{"a value too long", txn(clientv3.OpPut("/b", strings.Repeat("x", maxValue+1))), "too large"},
		{"a key too long", txn(clientv3.OpPut(strings.Repeat("k", 40_000), "x")), "too large"},
		{"the old value of nothing", txn(clientv3.OpPut("/b", "x"), clientv3.OpPut("/none", "", clientv3.WithIgnoreValue())), "key not found"},
		{"an old revision in a transaction", txn(clientv3.OpGet("/a", clientv3.WithRev(2))), "old revision"},
	} {
		if tt.err == nil || !strings.Contains(tt.err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, tt.err, tt.want)
		}
	}
	resp, err := c.Get(ctx, "/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	if resp.Count != 1 || resp.Header.Revision != 2 {
		t.Errorf("a refused request wrote: %d keys at revision %d, want 1 at 2", resp.Count, resp.Header.Revision)
	}
}

func TestSubmitAfterClose(t *testing.T) {
	e := open(t, filepath.Join(t.TempDir(), "a.db"))
	done := make(chan error, 64)
	for range cap(done) {
		go func() {
			_, err := e.Client().Put(context.Background(), "/a", "1")
			done <- err
		}()
	}
	e.Close()
	for range cap(done) {
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			t.Fatal("a writer hangs after Close")
		}
	}
	if _, err := e.Client().Get(context.Background(), "/a"); err == nil {
		t.Error("read from a closed engine")
	}
}
