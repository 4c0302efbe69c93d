// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"hash"
	"hash/maphash"

	"golang.org/x/sync/errgroup"
)

// digest reads the spans in order and returns the digest of their bytes in hex. The disk is read ahead of the hashing.
func (t *target) digest(ctx context.Context, h hash.Hash, spans ...span) (string, error) {
	group, ctx := errgroup.WithContext(ctx)
	full := make(chan []byte, 2)
	group.Go(func() error {
		defer close(full)
		for _, s := range spans {
			for at := int64(0); at < s.size; at += bufferSize {
				if err := context.Cause(ctx); err != nil {
					return err
				}
				n := min(bufferSize, s.size-at)
				b := t.buffer()
				if _, err := t.ReadAt(b[:roundUp(n, t.sector)], s.off+at); err != nil {
					t.pool <- b
					return fmt.Errorf("reading back %s at byte %d: %w", t.name, s.off+at, err)
				}
				full <- b[:n]
			}
		}
		return nil
	})
	group.Go(func() error {
		for b := range full {
			h.Write(b)
			t.meter.add(int64(len(b)))
			t.pool <- b
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// follow reads back what was written while more is: what a record has when the disk is flushed can be asked for. The last
// part is left to compare.
func (t *target) follow(ctx context.Context, written <-chan struct{}, rec *record) error {
	for range written {
		pieces, _ := rec.take(t.behind)
		if pieces == nil {
			continue
		}
		if err := t.Flush(); err != nil {
			return err
		}
		for _, p := range pieces {
			if _, err := t.comparePiece(ctx, rec, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// compare reads back what a record says was written and nobody has read since.
func (t *target) compare(ctx context.Context, rec *record) error {
	pieces, n := rec.take(0)
	t.meter.begin("verifying "+t.name, n)
	group, ctx := errgroup.WithContext(ctx)
	todo := make(chan piece)
	group.Go(func() error {
		defer close(todo)
		for _, p := range pieces {
			select {
			case todo <- p:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	for range writers {
		group.Go(func() error {
			for p := range todo {
				n, err := t.comparePiece(ctx, rec, p)
				if err != nil {
					return err
				}
				t.meter.add(n)
			}
			return nil
		})
	}
	return group.Wait()
}

// comparePiece returns the number of bytes it compared.
func (t *target) comparePiece(ctx context.Context, rec *record, p piece) (int64, error) {
	b := t.buffer()
	defer func() { t.pool <- b }()
	for at := int64(0); at < p.size; at += bufferSize {
		if err := context.Cause(ctx); err != nil {
			return 0, err
		}
		got := b[:min(bufferSize, p.size-at)] // only zeros are longer than a buffer
		if _, err := t.ReadAt(got, p.off+at); err != nil {
			return 0, fmt.Errorf("reading back %s at byte %d: %w", t.name, p.off+at, err)
		}
		if p.zero && !isZero(got) || !p.zero && maphash.Bytes(rec.seed, got) != p.sum {
			return 0, &ReadBackError{Disk: t.name, What: fmt.Sprintf("the %d bytes at %d differ", len(got), p.off+at)}
		}
	}
	return p.size, nil
}

func isZero(b []byte) bool {
	for len(b) > 0 {
		n := min(len(b), len(zeros))
		if !bytes.Equal(b[:n], zeros[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}
