// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// holdLife is how long a hold outlives its last renewal, in seconds.
	holdLife = 9
	// A second opener tries for so long: a daemon that is being restarted may still be closing.
	holdWait  = 1200 * time.Millisecond
	holdRetry = 100 * time.Millisecond
)

// Holder says who writes, for the one who is refused.
type Holder struct {
	Process int       `json:"process"`
	Host    string    `json:"host"`
	Since   time.Time `json:"since"`
	// Lock names a lock of the holder's machine that it holds as long as it lives. Whoever has that lock knows that the holder
	// is dead, and need not wait for the end of its lease.
	Lock string `json:"lock"`
}

func (h Holder) String() string {
	return fmt.Sprintf("process %d on %s since %s", h.Process, h.Host, h.Since.UTC().Format(time.RFC3339))
}

// hold is the right to write.
type hold struct {
	lease   clientv3.LeaseID
	created int64 // the revision that made the holder's key: each transaction compares it
	term    int64 // the revision that changed the term's key
}

var errTaken = errors.New("another daemon has held the inventory meanwhile")

// acquire becomes the holder, or says who is.
func (b *Backend) acquire(ctx context.Context) error {
	for end := time.Now().Add(holdWait); ; {
		held, taken, err := b.take(ctx, nil)
		if err != nil || taken == nil {
			b.held.Store(held)
			return err
		}
		var other Holder
		if err := json.Unmarshal(taken.Value, &other); err != nil {
			return fmt.Errorf("%w by somebody whose name cannot be read: %w", ErrHeld, err)
		}
		switch {
		case b.me.Lock != "" && other.Lock == b.me.Lock:
			// Our own lock is proof that this one is dead. Its lease takes its key along.
			if _, err := b.raw.Revoke(ctx, clientv3.LeaseID(taken.Lease)); err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
				return fmt.Errorf("ending the hold of %s: %w", other, err)
			}
		case time.Now().After(end):
			return fmt.Errorf("%w by %s", ErrHeld, other)
		default:
			if err := sleep(ctx, holdRetry); err != nil {
				return err
			}
		}
	}
}

// take makes the holder's key under a new lease. Where somebody has it, taken is that key; with last, it is taken only if
// nobody held it since.
func (b *Backend) take(ctx context.Context, last *hold) (_ *hold, taken *mvccpb.KeyValue, err error) {
	b.me.Since = b.now().UTC().Truncate(time.Second)
	value, err := json.Marshal(b.me)
	if err != nil {
		return nil, nil, err
	}
	lease, err := b.raw.Grant(ctx, holdLife)
	if err != nil {
		return nil, nil, fmt.Errorf("asking for a lease: %w", explain(err))
	}
	req := &pb.TxnRequest{
		Compare: []*pb.Compare{createIs(b.keys.holder, 0)},
		Success: []*pb.RequestOp{
			putOp(&pb.PutRequest{Key: []byte(b.keys.holder), Value: value, Lease: int64(lease.ID)}),
			put(b.keys.term, value),
		},
		Failure: []*pb.RequestOp{get(b.keys.holder)},
	}
	if last != nil {
		req.Compare = append(req.Compare, modIs([]byte(b.keys.term), last.term))
	}
	resp, err := b.kv.Txn(ctx, req)
	if err == nil && resp.Succeeded {
		return &hold{lease: lease.ID, created: resp.Header.Revision, term: resp.Header.Revision}, nil, nil
	}
	_, _ = b.raw.Revoke(ctx, lease.ID) // else it ends by itself
	if err != nil {
		return nil, nil, fmt.Errorf("becoming the holder: %w", explain(err))
	}
	if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 {
		return nil, kvs[0], nil
	}
	return nil, nil, errTaken
}

// regain takes the hold again after its lease has ended, for instance because etcd was out of reach. Where another daemon held
// it meanwhile, what we know of the world may be old: then this backend ends.
func (b *Backend) regain(ctx context.Context, lost *hold) error {
	b.holding.Lock()
	defer b.holding.Unlock()
	if b.held.Load() != lost {
		return nil // somebody was quicker
	}
	held, taken, err := b.take(ctx, lost)
	switch {
	case taken != nil:
		var other Holder
		_ = json.Unmarshal(taken.Value, &other) // an empty name is told, too
		if other.Process == b.me.Process && other.Lock == b.me.Lock && clientv3.LeaseID(taken.Lease) == lost.lease {
			return nil // it is ours yet: what asked for this was late
		}
		return b.fail(fmt.Errorf("%w: %s", errTaken, other))
	case errors.Is(err, errTaken):
		return b.fail(err)
	case err != nil:
		return err
	}
	b.held.Store(held)
	b.logger.Warn("the hold on the inventory had ended and was taken again; nobody else had it")
	return nil
}

// keepHold renews the lease until the end.
func (b *Backend) keepHold() {
	defer b.wg.Done()
	warned := false
	for wait := time.Duration(holdLife) * time.Second / 3; ; {
		select {
		case <-time.After(wait):
		case <-b.stop:
			return
		}
		held := b.held.Load()
		ctx, cancel := context.WithTimeout(b.ctx, 3*time.Second)
		_, err := b.raw.KeepAliveOnce(ctx, held.lease)
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			err = b.regain(ctx, held)
		}
		cancel()
		switch {
		case err == nil:
			warned, wait = false, time.Duration(holdLife)*time.Second/3
		case b.ctx.Err() == nil:
			if !warned {
				b.logger.Warn("renewing the hold on the inventory: nothing can be written before etcd answers", "err", err)
			}
			warned, wait = true, time.Second
		}
	}
}

// letGo ends the hold, so that the next daemon need not wait.
func (b *Backend) letGo() {
	held := b.held.Load()
	if held == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if _, err := b.raw.Revoke(ctx, held.lease); err != nil {
		b.logger.Warn("ending the hold on the inventory: the next daemon waits for the end of its lease", "err", err)
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
