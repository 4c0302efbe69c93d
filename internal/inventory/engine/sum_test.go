// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// flip changes one bit of what a row holds.
func flip(bucket *bbolt.Bucket, key []byte, at int) error {
	row := bytes.Clone(bucket.Get(key))
	row[at] ^= 4
	return bucket.Put(key, row)
}

// A row that the disk has changed is refused by name, and so is every list that it is in; the others are served, and it can
// only be deleted.
func TestDamagedRowIsNotServed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	e := open(t, path)
	for _, key := range []string{"/a/1", "/a/2", "/b/1"} {
		put(t, e.Client(), key, "value of "+key)
	}
	for _, key := range []string{"x", "y"} {
		if err := e.Records("dhcp").Put(t.Context(), key, []byte("lease")); err != nil {
			t.Fatal(err)
		}
	}
	e.Close()
	spoil(t, path, func(tx *bbolt.Tx) error {
		return errors.Join(flip(tx.Bucket(keysBucket), []byte("/a/2"), sumSize+headerSize+3),
			flip(tx.Bucket(recordsBucket).Bucket([]byte("dhcp")), []byte("x"), sumSize))
	})
	var log bytes.Buffer
	e = open(t, path, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	for _, want := range []string{`keys \"/a/2\"`, `records/dhcp \"x\"`} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("Open logged %q, want it to name %s", log.String(), want)
		}
	}
	ctx, c := t.Context(), e.Client()
	put2 := clientv3.OpPut("/a/2", "new")
	for name, do := range map[string]func() error{
		"get":        func() error { _, err := c.Get(ctx, "/a/2"); return err },
		"keys only":  func() error { _, err := c.Get(ctx, "/a/2", clientv3.WithKeysOnly()); return err },
		"list":       func() error { _, err := c.Get(ctx, "/a/", clientv3.WithPrefix()); return err },
		"put":        func() error { _, err := c.Put(ctx, "/a/2", "new"); return err },
		"second put": func() error { _, err := c.Txn(ctx).Then(clientv3.OpPut("/b/1", "new"), put2).Commit(); return err },
		"compare": func() error {
			_, err := c.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision("/a/2"), "=", 3)).Then(put2).Commit()
			return err
		},
		"read in txn": func() error { _, err := c.Txn(ctx).Then(clientv3.OpGet("/a/2")).Commit(); return err },
	} {
		err := do()
		if status.Code(err) != codes.DataLoss || !strings.Contains(err.Error(), `keys "/a/2"`) || !strings.Contains(err.Error(), "restore a backup") {
			t.Errorf("%s: got %v, want DataLoss that names the row and what to do", name, err)
		}
	}
	resp, err := c.Get(ctx, "/b/1")
	if err != nil || string(resp.Kvs[0].Value) != "value of /b/1" || resp.Header.Revision != 4 {
		t.Errorf("another key: got %v, %v; want it as it was", resp, err)
	}
	if _, err := e.Records("dhcp").Get("x"); !errors.Is(err, ErrCorrupt) {
		t.Errorf("record: got %v, want ErrCorrupt", err)
	}
	if _, err := e.Records("dhcp").All(); !errors.Is(err, ErrCorrupt) {
		t.Errorf("all records: got %v, want ErrCorrupt", err)
	}
	if value, err := e.Records("dhcp").Get("y"); err != nil || string(value) != "lease" {
		t.Errorf("another record: got %q, %v", value, err)
	}

	watch := c.Watch(ctx, "/a/", clientv3.WithPrefix(), clientv3.WithRev(5), clientv3.WithPrevKV())
	if deleted, err := c.Delete(ctx, "/a/2"); err != nil || deleted.Deleted != 1 {
		t.Fatalf("delete: got %v, %v", deleted, err)
	}
	if got := <-watch; got.CompactRevision != 5 {
		t.Errorf("watch: got %v, want that it must list again", got)
	}
	if err := e.Records("dhcp").Delete(ctx, "x"); err != nil {
		t.Fatal(err)
	}
	put(t, c, "/a/2", "new")
	e.Close()
	e = open(t, path)
	list, err := e.Client().Get(ctx, "/", clientv3.WithPrefix())
	if err != nil || len(list.Kvs) != 3 || list.Header.Revision != 6 {
		t.Errorf("after the row was replaced: got %v, %v; want 3 keys at revision 6", list, err)
	}
}

// Rows that are sound but not the ones that were written last are found by the tally.
func TestLostRowsAreRefused(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(tx *bbolt.Tx, old []byte) error
	}{
		{"a key is gone", func(tx *bbolt.Tx, _ []byte) error { return tx.Bucket(keysBucket).Delete([]byte("/b")) }},
		{"a key is an older one", func(tx *bbolt.Tx, old []byte) error { return tx.Bucket(keysBucket).Put([]byte("/a"), old) }},
		{"a key has appeared", func(tx *bbolt.Tx, _ []byte) error {
			return tx.Bucket(keysBucket).Put([]byte("/c"), seal(keysBucket, []byte("/c"), make([]byte, headerSize)))
		}},
		{"a record is gone", func(tx *bbolt.Tx, _ []byte) error {
			return tx.Bucket(recordsBucket).Bucket([]byte("dhcp")).Delete([]byte("x"))
		}},
		{"records are gone", func(tx *bbolt.Tx, _ []byte) error { return tx.Bucket(recordsBucket).DeleteBucket([]byte("dhcp")) }},
		{"an entry of the log is gone", func(tx *bbolt.Tx, _ []byte) error { return tx.Bucket(logBucket).Delete(numberBytes(1)) }},
		{"the revision is another", func(tx *bbolt.Tx, _ []byte) error { return flip(tx.Bucket(metaBucket), revisionKey, 9) }},
		{"the tally is another", func(tx *bbolt.Tx, _ []byte) error { return flip(tx.Bucket(metaBucket), tallyKey, 9) }},
		{"the schema is gone", func(tx *bbolt.Tx, _ []byte) error { return tx.Bucket(metaBucket).Delete(schemaKey) }},
		{"the schema is 0", func(tx *bbolt.Tx, _ []byte) error { return tx.Bucket(metaBucket).Put(schemaKey, numberBytes(0)) }},
		{"the schema is 1", func(tx *bbolt.Tx, _ []byte) error { return tx.Bucket(metaBucket).Put(schemaKey, numberBytes(1)) }},
		{"meta is gone", func(tx *bbolt.Tx, _ []byte) error { return tx.DeleteBucket(metaBucket) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.db")
			e := open(t, path)
			put(t, e.Client(), "/a", "1")
			var old []byte
			e.view(func(tx *bbolt.Tx) error { //nolint:errcheck // it returns nil
				old = bytes.Clone(tx.Bucket(keysBucket).Get([]byte("/a")))
				return nil
			})
			put(t, e.Client(), "/a", "2")
			put(t, e.Client(), "/b", "3")
			if err := e.Records("dhcp").Put(t.Context(), "x", []byte("lease")); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if _, err := e.Append(t.Context(), []byte("entry")); err != nil {
					t.Fatal(err)
				}
			}
			e.Close()
			spoil(t, path, func(tx *bbolt.Tx) error { return c.spoil(tx, old) })
			e, err := Open(path, Options{Logger: discard, Now: time.Now, NoSync: true})
			if err == nil {
				e.Close()
			}
			if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "restore a backup") {
				t.Errorf("got %v, want ErrCorrupt that says what to do", err)
			}
		})
	}
}

// A file of schema 1, as the first release wrote it, is brought up once and keeps what it held.
func TestMigrationFromSchema1(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	be := func(numbers ...uint64) (b []byte) {
		for _, n := range numbers {
			b = binary.BigEndian.AppendUint64(b, n)
		}
		return b
	}
	end := time.Now().Add(time.Hour)
	write := func(schema uint64) {
		spoil(t, path, func(tx *bbolt.Tx) error {
			for bucket, rows := range map[string]map[string][]byte{
				"meta":   {"schema": be(schema), "revision": be(7)},
				"keys":   {"/a": append(be(2, 6, 5, 0), "one"...), "/b": append(be(7, 7, 1, 99), "two"...), "/empty": be(3, 3, 1, 0)},
				"leases": {string(be(99)): be(3600, uint64(end.UnixNano()))}, "leasekeys": {string(be(99)) + "/b": {}}, "records": {},
			} {
				b, err := tx.CreateBucketIfNotExists([]byte(bucket))
				for key, row := range rows {
					err = errors.Join(err, b.Put([]byte(key), row))
				}
				if err != nil {
					return err
				}
			}
			dhcp, err := tx.Bucket([]byte("records")).CreateBucketIfNotExists([]byte("dhcp"))
			return errors.Join(err, dhcp.Put([]byte("x"), []byte("lease")))
		})
	}
	write(1)
	for range 2 { // the second time there is nothing to bring up
		e := open(t, path)
		resp, err := e.Client().Get(t.Context(), "/", clientv3.WithPrefix())
		if err != nil {
			t.Fatal(err)
		}
		got := map[string][]any{}
		for _, kv := range resp.Kvs {
			got[string(kv.Key)] = []any{string(kv.Value), kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease}
		}
		want := map[string][]any{"/a": {"one", int64(2), int64(6), int64(5), int64(0)},
			"/b": {"two", int64(7), int64(7), int64(1), int64(99)}, "/empty": {"", int64(3), int64(3), int64(1), int64(0)}}
		if diff := cmp.Diff(want, got); diff != "" || resp.Header.Revision != 7 {
			t.Errorf("keys at revision %d, want 7 (-want +got):\n%s", resp.Header.Revision, diff)
		}
		if value, err := e.Records("dhcp").Get("x"); err != nil || string(value) != "lease" {
			t.Errorf("record: got %q, %v", value, err)
		}
		lease, err := e.Client().TimeToLive(t.Context(), 99, clientv3.WithAttachedKeys())
		if err != nil || lease.GrantedTTL != 3600 || len(lease.Keys) != 1 || string(lease.Keys[0]) != "/b" {
			t.Errorf("lease: got %v, %v; want 3600 s with /b", lease, err)
		}
		e.Close()
	}
	e := open(t, path)
	if got := put(t, e.Client(), "/c", "3"); got != 8 {
		t.Errorf("next revision: got %d, want 8", got)
	}
	e.Close()

	// Where the old rows are not what schema 1 has, nothing is changed.
	path = filepath.Join(t.TempDir(), "b.db")
	write(1)
	spoil(t, path, func(tx *bbolt.Tx) error { return tx.Bucket(metaBucket).Put(revisionKey, []byte("seven")) })
	if _, err := Open(path, Options{Logger: discard, Now: time.Now}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("schema 1 with a bad revision: got %v, want ErrCorrupt", err)
	}
	spoil(t, path, func(tx *bbolt.Tx) error {
		if got := tx.Bucket(metaBucket).Get(schemaKey); !bytes.Equal(got, be(1)) {
			t.Errorf("a migration that failed left schema %x", got)
		}
		return tx.Bucket(metaBucket).Put(schemaKey, be(schemaVersion+1))
	})
	if _, err := Open(path, Options{Logger: discard, Now: time.Now}); !errors.Is(err, ErrNewerSchema) {
		t.Errorf("a newer schema: got %v, want ErrNewerSchema", err)
	}
}
