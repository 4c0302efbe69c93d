// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// Entry is one entry of the log. Sequence numbers start at 1 and have no gaps; Prev is the Hash of the entry before, all
// zeroes for the first. Hash is SHA-256 over Prev, the sequence number in 8 bytes big endian, and the payload.
type Entry struct {
	Seq        uint64
	Prev, Hash [sha256.Size]byte
	Payload    []byte
}

// trimChunk is how many entries one commit removes at most, so that it stays short.
const trimChunk = 1024

var errBeyondHead = errors.New("log does not reach that far")

// chain is a place in the log: an entry's number and its hash.
type chain struct {
	seq  uint64
	hash [sha256.Size]byte
}

func (c chain) next(payload []byte) Entry {
	e := Entry{Seq: c.seq + 1, Prev: c.hash, Payload: payload}
	h := sha256.New()
	h.Write(e.Prev[:])
	h.Write(binary.BigEndian.AppendUint64(nil, e.Seq))
	h.Write(payload)
	h.Sum(e.Hash[:0])
	return e
}

func (c chain) bytes() []byte { return append(binary.BigEndian.AppendUint64(nil, c.seq), c.hash[:]...) }

// chainAt reads a place that meta keeps; one that is not there is the place before the first entry.
func chainAt(tx *bbolt.Tx, key []byte) (c chain, err error) {
	b, err := metaRow(tx, key, 8+sha256.Size)
	if b != nil {
		c.seq = binary.BigEndian.Uint64(b)
		copy(c.hash[:], b[8:])
	}
	return c, err
}

type noteKey struct{}

// WithNote has the log carry a payload with what this context writes: a request that changes a key or a record appends it
// in the same commit; one that is refused or changes nothing does not. Each such request appends it again.
func WithNote(ctx context.Context, payload []byte) context.Context {
	return context.WithValue(ctx, noteKey{}, bytes.Clone(payload))
}

// Append returns when the entry is durable. If ctx ends first, whether it was appended is not known.
func (e *Engine) Append(ctx context.Context, payload []byte) (Entry, error) {
	if len(payload) > maxValue {
		return Entry{}, errBadRecord
	}
	payload = bytes.Clone(payload)
	var entry Entry
	err := e.submit(ctx, len(payload), func(b *batch) error {
		entry = b.append(payload)
		return nil
	})
	if err != nil {
		return Entry{}, err
	}
	return entry, nil
}

func (b *batch) append(payload []byte) Entry {
	entry := b.head.next(payload)
	b.head = chain{entry.Seq, entry.Hash}
	b.put(b.tx.Bucket(logBucket), logBucket, binary.BigEndian.AppendUint64(nil, entry.Seq), entry.Hash[:], payload)
	return entry
}

// note appends what goes with a request that was applied: first what Options.Note says of its events, then what its
// context carries.
func (e *Engine) note(b *batch, ctx context.Context, events []*mvccpb.Event) {
	if e.noter != nil && len(events) > 0 {
		if payload := e.noter(ctx, events); payload != nil {
			b.append(payload)
		}
	}
	if payload, ok := ctx.Value(noteKey{}).([]byte); ok && (len(events) > 0 || b.recorded) {
		b.append(payload)
	}
}

// Head is the newest durable entry's number and hash; zero for an empty log.
func (e *Engine) Head() (seq uint64, hash [sha256.Size]byte) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.head.seq, e.head.hash
}

// Log returns at most max entries from a sequence number on, or from the first that is still kept. Each one's hash was
// computed anew; one that does not fit the entry before it is an error that wraps ErrCorrupt.
func (e *Engine) Log(from uint64, max int) ([]Entry, error) {
	newest, _ := e.Head()
	var found []Entry
	err := e.view(func(tx *bbolt.Tx) error {
		prev, err := chainAt(tx, logBaseKey)
		if err != nil {
			return err
		}
		if from <= prev.seq {
			from = prev.seq + 1
		}
		cursor := tx.Bucket(logBucket).Cursor()
		key, row := cursor.Seek(binary.BigEndian.AppendUint64(nil, from))
		if from > prev.seq+1 && key != nil {
			before, last := cursor.Prev()
			hash, _, err := entryRow(before, last)
			if err != nil || number(before) != int64(from-1) {
				return corruptEntry(from - 1)
			}
			prev.seq = from - 1
			copy(prev.hash[:], hash)
			key, row = cursor.Next() // back to the entry asked for
		}
		// An entry past the head may not be on disk yet.
		for ; key != nil && len(found) < max && prev.seq < newest; key, row = cursor.Next() {
			hash, payload, err := entryRow(key, row)
			entry := prev.next(bytes.Clone(payload))
			if err != nil || number(key) != int64(entry.Seq) || !bytes.Equal(entry.Hash[:], hash) {
				return corruptEntry(prev.seq + 1)
			}
			found = append(found, entry)
			prev = chain{entry.Seq, entry.Hash}
		}
		if key == nil && len(found) < max && prev.seq < newest && from <= newest {
			return corruptEntry(prev.seq + 1)
		}
		return nil
	})
	return found, err
}

func entryRow(key, row []byte) (hash, payload []byte, err error) {
	body, err := unseal(logBucket, key, row)
	if err != nil || len(body) < sha256.Size {
		return nil, nil, ErrCorrupt
	}
	return body[:sha256.Size], body[sha256.Size:], nil
}

func corruptEntry(seq uint64) error {
	return fmt.Errorf("reading entry %d of the log: %w; restore a backup", seq, ErrCorrupt)
}

// Trim removes the entries up to and with upTo; the chain goes on. It returns when the removal is durable.
func (e *Engine) Trim(ctx context.Context, upTo uint64) error {
	for done := false; !done; {
		err := e.submit(ctx, trimChunk, func(b *batch) error {
			if upTo > b.head.seq {
				return fmt.Errorf("trimming the log up to %d of %d: %w", upTo, b.head.seq, errBeyondHead)
			}
			entries := b.tx.Bucket(logBucket)
			base, err := chainAt(b.tx, logBaseKey)
			if err != nil {
				return err
			}
			last := min(upTo, base.seq+trimChunk)
			done = last == upTo
			if last <= base.seq {
				done = true
				return nil
			}
			key := binary.BigEndian.AppendUint64(nil, last)
			hash, _, err := entryRow(key, entries.Get(key))
			if err != nil {
				return corruptEntry(last)
			}
			end := chain{seq: last}
			copy(end.hash[:], hash)
			for seq := base.seq + 1; seq <= last; seq++ {
				b.remove(entries, binary.BigEndian.AppendUint64(nil, seq))
			}
			b.putMeta(logBaseKey, end.bytes())
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

type expiryKey struct{}

// Expired tells whether what Options.Note is called with was nobody's wish: keys whose lease has ended.
func Expired(ctx context.Context) bool { return ctx.Value(expiryKey{}) != nil }
