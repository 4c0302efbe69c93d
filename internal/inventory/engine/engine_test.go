// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"
	clientv3 "go.etcd.io/etcd/client/v3"
)

var discard = slog.New(slog.DiscardHandler)

func open(t *testing.T, path string, change ...func(*Options)) *Engine {
	t.Helper()
	o := Options{Logger: discard, Now: time.Now, NoSync: true}
	for _, c := range change {
		c(&o)
	}
	e, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func put(t *testing.T, c *clientv3.Client, key, value string) int64 {
	t.Helper()
	resp, err := c.Put(context.Background(), key, value)
	if err != nil {
		t.Fatal(err)
	}
	return resp.Header.Revision
}

func TestReopenKeepsKeysAndRevisions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	e := open(t, path)
	put(t, e.Client(), "/a", "1")
	put(t, e.Client(), "/a", "2")
	put(t, e.Client(), "/b", "3")
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = open(t, path)
	resp, err := e.Client().Get(context.Background(), "/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		Key, Value           string
		Create, Mod, Version int64
	}
	var got []row
	for _, kv := range resp.Kvs {
		got = append(got, row{string(kv.Key), string(kv.Value), kv.CreateRevision, kv.ModRevision, kv.Version})
	}
	want := []row{{"/a", "2", 2, 3, 2}, {"/b", "3", 4, 4, 1}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("keys after reopening (-want +got):\n%s", diff)
	}
	if got, want := put(t, e.Client(), "/c", "4"), int64(5); got != want {
		t.Errorf("next revision: got %d, want %d", got, want)
	}
}

// What is written but not yet known to be durable is not shown.
func TestReadsWaitForDurability(t *testing.T) {
	e := open(t, filepath.Join(t.TempDir(), "a.db"))
	e.mu.RLock() // holds the committer up between its commit and telling of it
	wrote, read := make(chan error, 1), make(chan int64, 1)
	go func() {
		_, err := e.Client().Put(context.Background(), "/a", "1")
		wrote <- err
	}()
	for rev := int64(0); rev != 2; {
		e.view(func(tx *bbolt.Tx) (err error) { rev, err = revisionOf(tx); return err })
	}
	go func() {
		resp, err := e.Client().Get(context.Background(), "/a")
		if err != nil {
			t.Error(err)
		}
		read <- resp.Header.Revision
	}()
	select {
	case rev := <-read:
		t.Errorf("read revision %d before it was acknowledged", rev)
		read <- rev
	case <-time.After(100 * time.Millisecond):
	}
	e.mu.RUnlock()
	if err := <-wrote; err != nil {
		t.Fatal(err)
	}
	if rev := <-read; rev != 2 {
		t.Errorf("then read revision %d, want 2", rev)
	}
}
