// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"metald.io/metald/internal/inventory/audit"
	"metald.io/metald/internal/inventory/engine"
)

// beforeRestore is what a restored file's forerunner is called, beside it.
const beforeRestore = "inventory.db.before-restore"

// The one record that says where a restored file came from.
const (
	restoredBucket = "restored"
	restoredKey    = "last"
)

// Restored says that the inventory was put back from a backup, so that what it says of the world may be old.
type Restored struct {
	At       time.Time `json:"at"`
	BackupOf time.Time `json:"backupOf"`
	Revision int64     `json:"revision"` // that the backup had
}

// Epochs is what every epoch given out since then is beyond. Epochs count up one by one, and the backup does not know those
// that were given out after it; the time in seconds is beyond all of them, and beyond those after an earlier restore.
func (r Restored) Epochs() int64 { return r.At.Unix() }

// Restore puts a backup in the place of dir/inventory.db, while no daemon has that open (else its error wraps ErrHeld). Until
// the backup is found whole and is on disk, nothing is changed; the old file stays beside, as inventory.db.before-restore.
func Restore(ctx context.Context, dir string, r io.Reader, now time.Time) (Restored, error) {
	got := Restored{At: now.UTC()}
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = restore(ctx, dir, r, &got)
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) {
		err = fmt.Errorf("%w: %w", ErrFull, err)
	}
	if err != nil {
		return Restored{}, fmt.Errorf("restoring the inventory in %s: %w", dir, err)
	}
	return got, nil
}

func restore(ctx context.Context, dir string, r io.Reader, got *Restored) error {
	l, err := acquire(filepath.Join(dir, "inventory.lock"))
	if err != nil {
		return err
	}
	defer l.release()
	if known, err := placeIn(dir); err != nil || known != nil {
		return errors.Join(err, fmt.Errorf("%w: restore that with etcdutl snapshot restore", errOnEtcd))
	}
	copied, err := os.CreateTemp(dir, "inventory.db.restoring-*")
	if err != nil {
		return fmt.Errorf("making a file for the backup: %w", err)
	}
	defer os.Remove(copied.Name())
	head, err := readBackup(r, copied)
	if err = errors.Join(err, copied.Sync(), copied.Close()); err != nil {
		return err
	}
	got.BackupOf, got.Revision = head.Time, head.Revision
	if err := mark(ctx, copied.Name(), *got); err != nil {
		return err
	}
	path, kept := filepath.Join(dir, "inventory.db"), filepath.Join(dir, beforeRestore)
	if err := os.Remove(kept); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("making room for the old file: %w", err)
	}
	// With a second name for the old file, there is an inventory.db at every moment.
	if err := os.Link(path, kept); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("keeping the old file: %w", err)
	}
	if err := os.Rename(copied.Name(), path); err != nil {
		return fmt.Errorf("putting the backup in its place: %w", err)
	}
	return syncDir(dir)
}

// mark opens the file, which checks and migrates it, and writes what it is: the mark and its entry in the record are one
// commit.
func mark(ctx context.Context, path string, got Restored) error {
	e, err := engine.Open(path, engine.Options{Logger: slog.New(slog.DiscardHandler), Now: time.Now})
	if err != nil {
		return fmt.Errorf("reading the backup: %w", err)
	}
	text, err := json.Marshal(got)
	if err == nil {
		say := saidIn(ctx)
		var note []byte
		note, err = audit.Record{Time: got.At, Actor: say.actor, Reason: say.reason, Act: &audit.Act{
			Verb: "restore backup", Phase: audit.Done, Detail: "of " + got.BackupOf.UTC().Format(time.RFC3339Nano),
		}}.Encode()
		if err == nil {
			err = e.Records(restoredBucket).Put(engine.WithNote(ctx, note), restoredKey, text)
		}
	}
	if err = errors.Join(err, e.Close()); err != nil {
		return fmt.Errorf("marking the backup as restored: %w", err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("opening %s: %w", dir, err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("syncing %s: %w", dir, err)
	}
	return nil
}

// Restored tells whether, and when, the inventory was last put back from a backup.
func (s *Store) Restored() (r Restored, ok bool, err error) {
	text, err := s.backend.Records(restoredBucket).Get(context.Background(), restoredKey)
	if err == nil && text != nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		return Restored{}, false, fmt.Errorf("reading whether the inventory was restored: %w", err)
	}
	return r, text != nil, nil
}

// markRollback marks an inventory in etcd as restored where it is behind the newest checkpoint of this data directory: etcd's
// own tools put it back, and they do not tell. It runs before anybody asks Restored.
func (s *Store) markRollback(ctx context.Context) error {
	if _, own := s.backend.(snapshotter); own {
		return nil // Restore has marked it
	}
	newest, err := s.recorder.archive.Newest()
	if err != nil || newest == nil {
		return err
	}
	problem, err := s.behind(newest)
	if err != nil || problem == "" {
		return err
	}
	got := Restored{At: s.now().UTC()}
	if head, _ := s.backend.Head(); head > 0 {
		last, err := s.entries(head)
		if err != nil {
			return err
		}
		if r, err := audit.DecodeRecord(last[0].Payload); err == nil {
			got.BackupOf = r.Time
		}
	}
	text, err := json.Marshal(got)
	if err == nil {
		err = s.backend.Records(restoredBucket).Put(ctx, restoredKey, text)
	}
	if err != nil {
		return fmt.Errorf("marking the inventory as restored: %w", err)
	}
	return nil
}
