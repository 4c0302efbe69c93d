// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
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
