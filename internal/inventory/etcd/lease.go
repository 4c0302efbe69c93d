// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// lessor says in the store's words that a lease could not be had in time. The rest is etcd's own.
type lessor struct {
	clientv3.Lease
	b *Backend
}

func (l lessor) Grant(ctx context.Context, ttl int64) (*clientv3.LeaseGrantResponse, error) {
	limited, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	resp, err := l.Lease.Grant(limited, ttl)
	return resp, l.b.words(ctx, err)
}
