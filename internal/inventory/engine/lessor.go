// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"time"

	"go.etcd.io/bbolt"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// lessor is the client's way to the leases.
type lessor struct{ e *Engine }

func (l lessor) Grant(ctx context.Context, ttl int64) (*clientv3.LeaseGrantResponse, error) {
	id, err := l.e.grant(ctx, ttl)
	if err != nil {
		return nil, clientv3.ContextError(ctx, wireError(err))
	}
	granted, _ := l.e.leases.lease(id)
	return &clientv3.LeaseGrantResponse{ResponseHeader: l.e.header(), ID: clientv3.LeaseID(id), TTL: granted.ttl}, nil
}

func (l lessor) Revoke(ctx context.Context, id clientv3.LeaseID) (*clientv3.LeaseRevokeResponse, error) {
	if err := l.e.revoke(ctx, int64(id)); err != nil {
		return nil, clientv3.ContextError(ctx, wireError(err))
	}
	return (*clientv3.LeaseRevokeResponse)(&pb.LeaseRevokeResponse{Header: l.e.header()}), nil
}

func (l lessor) TimeToLive(_ context.Context, id clientv3.LeaseID, _ ...clientv3.LeaseOption) (*clientv3.LeaseTimeToLiveResponse, error) {
	resp := &clientv3.LeaseTimeToLiveResponse{ResponseHeader: l.e.header(), ID: id, TTL: -1}
	known, ok := l.e.leases.lease(int64(id))
	if !ok {
		return resp, nil
	}
	resp.TTL, resp.GrantedTTL = int64(max(time.Until(known.end), 0)/time.Second), known.ttl
	// The keys are few and cheap to read: they are always told.
	err := l.e.view(func(tx *bbolt.Tx) (err error) {
		resp.Keys, err = attached(tx, int64(id))
		return err
	})
	return resp, wireError(err)
}

func (l lessor) Leases(context.Context) (*clientv3.LeaseLeasesResponse, error) {
	t := l.e.leases
	t.mu.Lock()
	defer t.mu.Unlock()
	resp := &clientv3.LeaseLeasesResponse{ResponseHeader: l.e.header()}
	for id := range t.leases {
		resp.Leases = append(resp.Leases, clientv3.LeaseStatus{ID: clientv3.LeaseID(id)})
	}
	return resp, nil
}

func (l lessor) KeepAliveOnce(ctx context.Context, id clientv3.LeaseID) (*clientv3.LeaseKeepAliveResponse, error) {
	ttl, err := l.e.renew(ctx, int64(id))
	if err != nil {
		return nil, clientv3.ContextError(ctx, wireError(err))
	}
	return &clientv3.LeaseKeepAliveResponse{ResponseHeader: l.e.header(), ID: id, TTL: ttl}, nil
}

// KeepAlive renews at a third of the lease's life until ctx ends or the lease is gone.
func (l lessor) KeepAlive(ctx context.Context, id clientv3.LeaseID) (<-chan *clientv3.LeaseKeepAliveResponse, error) {
	first, err := l.KeepAliveOnce(ctx, id)
	if err != nil {
		return nil, err
	}
	answers := make(chan *clientv3.LeaseKeepAliveResponse, clientv3.LeaseResponseChSize)
	answers <- first
	go func() {
		defer close(answers)
		tick := time.NewTicker(time.Duration(first.TTL) * time.Second / 3)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			case <-l.e.stop:
				return
			}
			answer, err := l.KeepAliveOnce(ctx, id)
			if err != nil {
				return
			}
			select {
			case answers <- answer:
			default: // a reader that does not read loses answers, not its lease
			}
		}
	}()
	return answers, nil
}

func (l lessor) Close() error { return nil }
