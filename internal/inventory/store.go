// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	bbolterrors "go.etcd.io/bbolt/errors"
	clientv3 "go.etcd.io/etcd/client/v3"

	"metald.io/metald/internal/inventory/engine"
)

var (
	// ErrHeld is wrapped by Open's error when another process has the inventory open.
	ErrHeld = errors.New("inventory is in use")
	// ErrFull is wrapped by the error of a write that found no room on the disk. Nothing was changed; it works again as soon
	// as there is room.
	ErrFull = engine.ErrFull
	// ErrClosed is wrapped by errors after Close, and after an I/O error.
	ErrClosed = engine.ErrClosed
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
}

// Store is the open inventory of a data directory.
type Store struct {
	engine *engine.Engine
	lock   *lock
	logger *slog.Logger
	now    func() time.Time
	sealer *sealer
	// recorder writes the record of what is done, see KeepRecord.
	recorder *recorder
	stores
}

// Open opens or makes dir/inventory.db. While another process has it open, it waits a moment for that one to end, then
// returns an error that wraps ErrHeld and names the other's process id.
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
	e, err := engine.Open(filepath.Join(dir, "inventory.db"), engine.Options{Logger: o.Logger, Now: o.Now, NoSync: o.NoSync, Note: r.note})
	if err != nil {
		l.release()
		if errors.Is(err, bbolterrors.ErrTimeout) {
			err = fmt.Errorf("%w by a process that does not take its lock: %w", ErrHeld, err)
		}
		return nil, fmt.Errorf("opening the inventory in %s: %w", dir, err)
	}
	s := &Store{engine: e, lock: l, logger: o.Logger, now: o.Now, recorder: r}
	if s.sealer, err = openSealer(e.Client(), dir, o.Encryption); err == nil {
		if err = s.open(); err != nil {
			s.sealer.end()
		}
	}
	if err != nil {
		e.Close()
		l.release()
		return nil, fmt.Errorf("opening the inventory in %s: %w", dir, err)
	}
	return s, nil
}

// Etcd returns a client that is answered by this store and never dials: for apiserver's stock etcd3 store.
func (s *Store) Etcd() *clientv3.Client { return s.engine.Client() }

// Fatal yields the I/O error after which nothing more is acknowledged: the process must exit non-zero.
func (s *Store) Fatal() <-chan error { return s.engine.Fatal() }

// Close finishes the writes that were accepted, ends all watches and lets go of the file.
func (s *Store) Close() error {
	err := s.engine.Close()
	s.sealer.end()
	s.lock.release()
	return err
}
