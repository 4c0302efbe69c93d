// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/google/renameio/v2"
	bbolterrors "go.etcd.io/bbolt/errors"
	clientv3 "go.etcd.io/etcd/client/v3"

	"metald.io/metald/internal/inventory/audit"
	"metald.io/metald/internal/inventory/engine"
	"metald.io/metald/internal/inventory/etcd"
)

// backend is what keeps the inventory: package engine in a file, or package etcd in an etcd. Both are given the recorder's
// note, and put what it says into the transaction that it is about.
type backend interface {
	chainLog
	// Client is answered by the backend: for the stock store.
	Client() *clientv3.Client
	Records(bucket string) rows
	// Fatal yields why nothing more is acknowledged.
	Fatal() <-chan error
	Close() error
}

// chainLog is the record's place: entries that each hold the hash of the one before.
type chainLog interface {
	Append(ctx context.Context, payload []byte) (audit.Entry, error)
	Head() (seq uint64, hash [sha256.Size]byte)
	// Log answers at most max entries from one on, or from the first that is still kept.
	Log(from uint64, max int) ([]audit.Entry, error)
	// Trim removes the entries up to one; the chain goes on.
	Trim(ctx context.Context, upTo uint64) error
}

// rows are raw records, durable when a call returns.
type rows interface {
	Put(ctx context.Context, key string, value []byte) error
	Delete(ctx context.Context, key string) error
	Get(ctx context.Context, key string) ([]byte, error)
	All(ctx context.Context) (map[string][]byte, error)
}

// snapshotter is a backend that copies itself while it is written to.
type snapshotter interface {
	Snapshot(ctx context.Context, begin func(size, revision int64) (io.Writer, error)) error
}

// inFile is a backend in one file.
type inFile struct{ *engine.Engine }

func openFile(dir string, o Options, note noter) (backend, error) {
	if _, err := os.Stat(filepath.Join(dir, onEtcdFile)); err == nil {
		return nil, fmt.Errorf("%w: %s says so; configure storage.etcd", errOnEtcd, filepath.Join(dir, onEtcdFile))
	}
	e, err := engine.Open(filepath.Join(dir, "inventory.db"), engine.Options{Logger: o.Logger, Now: o.Now, NoSync: o.NoSync, Note: note})
	if errors.Is(err, bbolterrors.ErrTimeout) {
		err = fmt.Errorf("%w by a process that does not take its lock: %w", ErrHeld, err)
	}
	if err != nil {
		return nil, err
	}
	return inFile{e}, nil
}

func (f inFile) Append(ctx context.Context, payload []byte) (audit.Entry, error) {
	entry, err := f.Engine.Append(ctx, payload)
	return audit.Entry(entry), err
}

func (f inFile) Log(from uint64, max int) ([]audit.Entry, error) {
	log, err := f.Engine.Log(from, max)
	found := make([]audit.Entry, len(log))
	for i, e := range log {
		found[i] = audit.Entry(e)
	}
	return found, err
}

func (f inFile) Records(bucket string) rows { return fileRows{f.Engine.Records(bucket)} }

// fileRows are a file's records, which nobody waits for.
type fileRows struct{ engine.Records }

func (r fileRows) Get(_ context.Context, key string) ([]byte, error) { return r.Records.Get(key) }
func (r fileRows) All(context.Context) (map[string][]byte, error)    { return r.Records.All() }

// onEtcd is a backend in an etcd.
type onEtcd struct{ *etcd.Backend }

func (b onEtcd) Records(bucket string) rows { return b.Backend.Records(bucket) }

// onEtcdFile says in a data directory whose inventory is kept in etcd, which one. What else a data directory has (the keys,
// the record's old entries and its checkpoints) belongs to that one inventory.
const onEtcdFile = "inventory.etcd"

var (
	errOnEtcd  = errors.New("the inventory of this data directory is kept in etcd")
	errInFile  = errors.New("the inventory of this data directory is a file")
	errAnother = errors.New("this data directory belongs to another etcd")
)

// place is what onEtcdFile holds.
type place struct {
	Cluster string `json:"cluster"`
	Prefix  string `json:"prefix"`
}

func openEtcd(dir string, l *lock, o Options, note noter) (backend, error) {
	file := filepath.Join(dir, "inventory.db")
	if _, err := os.Stat(file); err == nil {
		return nil, fmt.Errorf("%w: %s; move it away to begin anew in etcd", errInFile, file)
	}
	known, err := placeIn(dir)
	if err != nil {
		return nil, err
	}
	me := etcd.Holder{Process: os.Getpid(), Lock: l.name()}
	if me.Host, err = os.Hostname(); err != nil {
		return nil, fmt.Errorf("reading this machine's name: %w", err)
	}
	b, err := etcd.Open(context.Background(), o.Etcd, etcd.Options{Logger: o.Logger, Now: o.Now, Me: me, Note: note})
	if err != nil {
		return nil, err
	}
	here := place{Cluster: b.Cluster(), Prefix: o.Etcd.Prefix}
	if here.Prefix == "" {
		here.Prefix = etcd.DefaultPrefix
	}
	switch {
	case known == nil:
		text, encodeErr := json.Marshal(here)
		if err = encodeErr; err == nil {
			err = renameio.WriteFile(filepath.Join(dir, onEtcdFile), append(text, '\n'), 0o600)
		}
	case *known != here:
		err = fmt.Errorf("%w: %s names cluster %s and prefix %s, this is cluster %s and prefix %s; remove that file if this etcd was restored",
			errAnother, filepath.Join(dir, onEtcdFile), known.Cluster, known.Prefix, here.Cluster, here.Prefix)
	}
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return onEtcd{b}, nil
}

func placeIn(dir string) (*place, error) {
	text, err := os.ReadFile(filepath.Join(dir, onEtcdFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var p place
	if err == nil {
		err = json.Unmarshal(text, &p)
	}
	if err != nil {
		return nil, fmt.Errorf("reading where the inventory is: %w", err)
	}
	return &p, nil
}

// name tells the lock from every other in the world: a machine's start, a file system and a file. Who holds it knows that
// whoever held it before is dead.
func (l *lock) name() string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	info, statErr := l.file.Stat()
	if err != nil || statErr != nil {
		return "" // then the next daemon waits for the end of the lease
	}
	at, ok := info.Sys().(*syscall.Stat_t)
	if !ok || len(boot) == 0 {
		return ""
	}
	return fmt.Sprintf("%.36s/%d/%d", boot, at.Dev, at.Ino)
}
