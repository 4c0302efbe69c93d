// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// The shortest and the longest life of a lease are etcd's, in seconds: clients take care to be quick enough for them.
const (
	minTTL = 2
	maxTTL = 9_000_000_000
)

// leaseTable is what is known of the leases in memory: when each ends. Which keys hang on a lease stands in the file.
type leaseTable struct {
	mu     sync.Mutex
	leases map[int64]lease
	moved  chan struct{} // has room for one: the earliest end may have changed
}

type lease struct {
	ttl int64     // seconds, as granted
	end time.Time // with the monotonic clock's reading
}

func loadLeases(tx *bbolt.Tx, now time.Time) (*leaseTable, error) {
	t := &leaseTable{leases: map[int64]lease{}, moved: make(chan struct{}, 1)}
	err := tx.Bucket(leasesBucket).ForEach(func(key, row []byte) error {
		row, err := unseal(leasesBucket, key, row)
		if err != nil || len(key) != 8 || len(row) != 16 {
			return corrupt(leasesBucket, key)
		}
		ttl := time.Duration(number(row[:8])) * time.Second
		left := time.Unix(0, number(row[8:])).Sub(now)
		// The wall clock may have been set while we were away: nothing lives longer than it was granted, and what seems
		// long dead gets a minute, in which a person or NTP may mend the clock.
		left = min(max(left, min(ttl, time.Minute)), ttl)
		t.leases[number(key)] = lease{ttl: number(row[:8]), end: time.Now().Add(left)}
		return nil
	})
	return t, err
}

func (t *leaseTable) set(id int64, l lease) {
	t.mu.Lock()
	t.leases[id] = l
	t.mu.Unlock()
	select {
	case t.moved <- struct{}{}:
	default:
	}
}

func (t *leaseTable) drop(id int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.leases, id)
}

func (t *leaseTable) lease(id int64) (lease, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l, ok := t.leases[id]
	return l, ok
}

// due returns the leases that have ended and how long until the next one does; -1 where there is none.
func (t *leaseTable) due(now time.Time) (ended []int64, next time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next = -1
	for id, l := range t.leases {
		left := l.end.Sub(now)
		switch {
		case left <= 0:
			ended = append(ended, id)
		case next < 0 || left < next:
			next = left
		}
	}
	slices.Sort(ended)
	return ended, next
}

// reapLoop revokes leases when they end.
func (e *Engine) reapLoop() {
	defer e.wg.Done()
	ctx := context.WithValue(context.Background(), expiryKey{}, true)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-e.leases.moved:
		case <-e.stop:
			return
		}
		ended, next := e.leases.due(time.Now())
		for _, id := range ended {
			if err := e.revoke(ctx, id); err != nil && err != rpctypes.ErrGRPCLeaseNotFound {
				e.logger.Warn("removing expired keys", "err", err)
				next = time.Second
			}
		}
		if next >= 0 {
			timer.Reset(next)
		}
	}
}

// attachment is the row that hangs key on a lease.
func attachment(id int64, key []byte) []byte {
	return append(binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(key)), uint64(id)), key...)
}

func (e *Engine) grant(ctx context.Context, ttl int64) (int64, error) {
	if ttl > maxTTL {
		return 0, rpctypes.ErrGRPCLeaseTTLTooLarge
	}
	ttl = max(ttl, minTTL)
	id := rand.Int64N(1<<62) + 1
	return id, e.extend(ctx, id, ttl)
}

// extend writes a lease that lasts ttl seconds from now.
func (e *Engine) extend(ctx context.Context, id, ttl int64) error {
	return e.submit(ctx, 24, func(b *batch) error {
		life := time.Duration(ttl) * time.Second
		b.put(b.tx.Bucket(leasesBucket), leasesBucket, numberBytes(id), numberBytes(ttl), numberBytes(e.now().Add(life).UnixNano()))
		b.after = append(b.after, func() { e.leases.set(id, lease{ttl: ttl, end: time.Now().Add(life)}) })
		return nil
	})
}

func (e *Engine) renew(ctx context.Context, id int64) (int64, error) {
	l, ok := e.leases.lease(id)
	if !ok {
		return 0, rpctypes.ErrGRPCLeaseNotFound
	}
	return l.ttl, e.extend(ctx, id, l.ttl)
}

// revoke removes a lease and its keys, all at one revision.
func (e *Engine) revoke(ctx context.Context, id int64) error {
	return e.submit(ctx, 0, func(b *batch) error {
		if b.tx.Bucket(leasesBucket).Get(numberBytes(id)) == nil {
			return rpctypes.ErrGRPCLeaseNotFound
		}
		keys, err := attached(b.tx, id)
		if err != nil {
			return err
		}
		for _, key := range keys {
			if row := b.tx.Bucket(keysBucket).Get(key); row != nil {
				b.delete(key, row, b.rev+1)
			}
			b.remove(b.tx.Bucket(attachments), attachment(id, key))
		}
		if len(keys) > 0 {
			b.rev++
		}
		b.remove(b.tx.Bucket(leasesBucket), numberBytes(id))
		b.after = append(b.after, func() { e.leases.drop(id) })
		return nil
	})
}

func attached(tx *bbolt.Tx, id int64) (keys [][]byte, err error) {
	prefix := numberBytes(id)
	cursor := tx.Bucket(attachments).Cursor()
	for key, row := cursor.Seek(prefix); bytes.HasPrefix(key, prefix); key, row = cursor.Next() {
		if _, err := unseal(attachments, key, row); err != nil {
			return nil, err
		}
		keys = append(keys, bytes.Clone(key[len(prefix):]))
	}
	return keys, nil
}
