// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"metald.io/metald/internal/inventory/engine"
	"metald.io/metald/internal/inventory/etcd"
)

var (
	// ErrHeld is wrapped by Open's error when another process has the inventory open.
	ErrHeld = etcd.ErrHeld
	// ErrFull is wrapped by the error of a write that found no room on the disk. Nothing was changed; it works again as soon
	// as there is room.
	ErrFull = engine.ErrFull
	// ErrClosed is wrapped by errors after Close, and after an I/O error.
	ErrClosed = engine.ErrClosed
	// ErrUnavailable is wrapped by the error of what etcd did not answer in time: try again. A write may have been done.
	ErrUnavailable = etcd.ErrAway
	// ErrNewerSchema is wrapped by Open's error for a file that a newer metald has written.
	ErrNewerSchema = engine.ErrNewerSchema
)

// Options are Open's. The zero value is good.
type Options struct {
	Logger *slog.Logger
	// Now gives the times that are stored; nil is time.Now.
	Now func() time.Time
	// NoSync skips fsync: for tests only.
	NoSync bool
	// Encryption is the path of an EncryptionConfiguration; empty is the data directory's own, made at first.
	Encryption string
	// Etcd says in which etcd the inventory is kept; without endpoints it is a file in the data directory.
	Etcd EtcdConfig
}

// EtcdConfig says which etcd, and how it is reached.
type EtcdConfig = etcd.Config

// noter says what the record holds of the keys that one request changed; nil where that is nothing.
type noter = func(ctx context.Context, events []*mvccpb.Event) []byte

// Store is the open inventory of a data directory.
type Store struct {
	backend backend
	lock    *lock
	logger  *slog.Logger
	now     func() time.Time
	sealer  *sealer
	// recorder writes the record of what is done, see KeepRecord.
	recorder *recorder
	stores
}

// Open opens or makes dir/inventory.db, or what o.Etcd says. While another process has it open, it waits a moment for that one to end, then
// returns an error that wraps ErrHeld and names the other's process id; an etcd may be held by a process on another machine.
func Open(dir string, o Options) (*Store, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the data directory: %w", err)
	}
	l, err := acquire(filepath.Join(dir, "inventory.lock"))
	if err != nil {
		return nil, fmt.Errorf("opening the inventory in %s: %w", dir, err)
	}
	r, err := openRecorder(dir, o.Now)
	if err != nil {
		l.release()
		return nil, fmt.Errorf("opening the inventory in %s: %w", dir, err)
	}
	var b backend
	if o.Etcd.Used() {
		b, err = openEtcd(dir, l, o, r.note)
	} else {
		b, err = openFile(dir, o, r.note)
	}
	if err != nil {
		l.release()
		return nil, fmt.Errorf("opening the inventory in %s: %w", dir, err)
	}
	s := &Store{backend: b, lock: l, logger: o.Logger, now: o.Now, recorder: r}
	if s.sealer, err = openSealer(b.Client(), dir, o.Encryption); err == nil {
		if err = errors.Join(s.open(), s.markRollback(context.Background())); err != nil {
			s.sealer.end()
		}
	}
	if err != nil {
		b.Close()
		l.release()
		return nil, fmt.Errorf("opening the inventory in %s: %w", dir, err)
	}
	return s, nil
}

// Etcd returns a client that is answered by this store and never dials: for apiserver's stock etcd3 store.
func (s *Store) Etcd() *clientv3.Client { return s.backend.Client() }

// Fatal yields the I/O error after which nothing more is acknowledged: the process must exit non-zero.
func (s *Store) Fatal() <-chan error { return s.backend.Fatal() }

// Close finishes the writes that were accepted, ends all watches and lets go of the file.
func (s *Store) Close() error {
	err := s.backend.Close()
	s.sealer.end()
	s.lock.release()
	return err
}
