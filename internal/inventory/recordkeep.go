// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"metald.io/metald/internal/inventory/audit"
)

const (
	// checkpointEvery is how old the newest checkpoint may be while records are written.
	checkpointEvery = 10 * time.Second
	// segmentLength is how many old records go into one file, and recordsKept how many stay in the database.
	segmentLength = 4096
	recordsKept   = 2 * segmentLength
	// readAtOnce is how many entries are read from the database in one go.
	readAtOnce = 512
)

// KeepRecord looks after the record until ctx ends: every few seconds in which it grew it signs a checkpoint, and it moves
// old records out of the database into files. First it compares the record with the newest checkpoint that it finds.
func (s *Store) KeepRecord(ctx context.Context) error {
	if err := s.compareRecord(ctx); err != nil {
		s.logger.Error("comparing the record with its newest checkpoint", "err", err)
	}
	tick := time.NewTicker(checkpointEvery)
	defer tick.Stop()
	for {
		s.keepRecord(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			s.keepRecord(ctx)
			return nil
		}
	}
}

// keepRecord does what is due. What fails is tried again: on a full disk the record stays in the database.
func (s *Store) keepRecord(ctx context.Context) {
	if err := s.checkpoint(); err != nil {
		s.logger.Warn("no checkpoint of the record was written", "err", err)
	}
	for ctx.Err() == nil {
		moved, err := s.archiveRecords(ctx)
		if err != nil {
			s.logger.Warn("old records were not moved out of the database", "err", err)
		}
		if err != nil || !moved {
			return
		}
	}
}

// checkpoint signs the head of the record, if it moved since the last time.
func (s *Store) checkpoint() error {
	seq, hash := s.backend.Head()
	if s.recorder.checkpointed != nil && s.recorder.checkpointed.Seq == seq && s.recorder.checkpointed.Hash == hash {
		return nil
	}
	c := s.recorder.key.Checkpoint(seq, hash, s.now())
	if err := s.recorder.archive.Keep(c); err != nil {
		return err
	}
	s.recorder.checkpointed = &c
	return nil
}

// archiveRecords moves the oldest records into a file once there are enough of them beyond those that stay. They are removed
// when the file is durable.
func (s *Store) archiveRecords(ctx context.Context) (moved bool, err error) {
	first, err := s.backend.Log(1, 1)
	if err != nil || len(first) == 0 {
		return false, err
	}
	if head, _ := s.backend.Head(); head-first[0].Seq+1 < recordsKept+segmentLength {
		return false, nil
	}
	var old []audit.Entry
	for len(old) < segmentLength {
		some, err := s.backend.Log(first[0].Seq+uint64(len(old)), min(readAtOnce, segmentLength-len(old)))
		if err != nil {
			return false, err
		}
		if len(some) == 0 {
			return false, errors.New("the log ends before its head")
		}
		old = append(old, some...)
	}
	if err := s.recorder.archive.Store(old); err != nil {
		return false, err
	}
	return true, s.backend.Trim(ctx, old[len(old)-1].Seq)
}

// compareRecord tells whether the record has forgotten what it had a checkpoint of: its database is older than the
// checkpoint, or another one. It goes on, as after a backup was restored, and says so in the record itself.
func (s *Store) compareRecord(ctx context.Context) error {
	c, err := s.recorder.archive.Newest()
	if err != nil || c == nil {
		return err
	}
	s.recorder.checkpointed = c
	problem, err := s.behind(c)
	if err != nil || problem == "" {
		return err
	}
	s.recorder.checkpointed = nil
	s.logger.Error("the record does not go on from its newest checkpoint: the inventory was restored from a backup, or replaced",
		"entry", c.Seq, "err", problem)
	_, err = s.Record(ctx, "", audit.Act{Verb: "go on after a rollback", Phase: audit.Done,
		Detail: fmt.Sprintf("the checkpoint of %s vouches for entry %d with hash %s: %s", c.Time.UTC().Format(time.RFC3339), c.Seq, c.Hash, problem)})
	return err
}

// behind says in which way the record is not what a checkpoint vouches for; empty where it is.
func (s *Store) behind(c *audit.Checkpoint) (string, error) {
	head, hash := s.backend.Head()
	switch {
	case !c.Signed(s.recorder.key.Public()):
		return "it is not signed by this daemon's key", nil
	case c.Seq > head:
		return fmt.Sprintf("the record ends at entry %d", head), nil
	case c.Seq == head && c.Hash == hash || c.Seq == 0:
		return "", nil
	}
	found, err := s.entries(c.Seq)
	if err != nil || len(found) > 0 && found[0].Hash == [32]byte(c.Hash) {
		return "", err
	}
	return "the record has another entry of that number", nil
}

// entries answers some entries from one on, from the database or, where it has them no more, from a file; none past the head.
func (s *Store) entries(from uint64) ([]audit.Entry, error) {
	if head, _ := s.backend.Head(); from > head {
		return nil, nil
	}
	log, err := s.backend.Log(from, readAtOnce)
	if err != nil {
		return nil, err
	}
	if len(log) > 0 && log[0].Seq == from {
		return log, nil
	}
	found, err := s.recorder.archive.Read(from)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 || found[0].Seq != from {
		return nil, fmt.Errorf("reading entry %d of the record: it is neither in the database nor in a file", from)
	}
	if len(log) > 0 && found[len(found)-1].Seq >= log[0].Seq { // a file of a time before a backup was restored
		found = found[:log[0].Seq-from]
	}
	return found, nil
}

// ExportRecord writes all of the record up to now in the form that audit.Verify reads, under a fresh checkpoint.
func (s *Store) ExportRecord(ctx context.Context, w io.Writer) error {
	head, _ := s.backend.Head()
	next := uint64(1)
	key := s.recorder.key
	return audit.Export(w, key.Origin(), func() ([]audit.Entry, error) {
		if next > head || ctx.Err() != nil {
			return nil, ctx.Err()
		}
		some, err := s.entries(next)
		if err != nil {
			return nil, err
		}
		some = some[:min(uint64(len(some)), head-next+1)]
		next += uint64(len(some))
		return some, nil
	}, func(seq uint64, hash audit.Hash) (audit.Checkpoint, error) {
		return key.Checkpoint(seq, hash, s.now()), nil
	})
}

// ReadRecord calls each with the entries of a time and of later ones, oldest first, until it answers false. An entry whose
// clock was wrong may come with its neighbours.
func (s *Store) ReadRecord(ctx context.Context, since time.Time, each func(audit.Entry, audit.Record) (bool, error)) error {
	from, err := s.recordFrom(since)
	for err == nil && ctx.Err() == nil {
		var some []audit.Entry
		if some, err = s.entries(from); err != nil || len(some) == 0 {
			return err
		}
		for _, e := range some {
			r, err := audit.DecodeRecord(e.Payload)
			if err != nil {
				return fmt.Errorf("reading entry %d of the record: %w", e.Seq, err)
			}
			if r.Time.Before(since) {
				continue
			}
			if more, err := each(e, r); err != nil || !more {
				return err
			}
		}
		from += uint64(len(some))
	}
	return errors.Join(err, ctx.Err())
}

// recordFrom is an entry before which there is none of that time or later: the first of the newest piece that begins before.
func (s *Store) recordFrom(since time.Time) (uint64, error) {
	log, err := s.backend.Log(1, 1)
	if err != nil || len(log) == 0 {
		return 1, err
	}
	for from := log[0].Seq; ; from -= min(from-1, segmentLength) {
		some, err := s.entries(from)
		if err != nil || len(some) == 0 {
			return from, err
		}
		r, err := audit.DecodeRecord(some[0].Payload)
		if err != nil || from == 1 || r.Time.Before(since) {
			return from, err
		}
	}
}
