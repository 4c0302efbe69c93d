// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"context"
	"errors"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// compact has etcd forget what is older than the history that is kept, as Kubernetes does with its own: without that it
// grows with each write. It forgets for everybody who uses this etcd.
func (b *Backend) compact(history time.Duration) {
	defer b.wg.Done()
	tick := time.NewTicker(history)
	defer tick.Stop()
	for last := int64(0); ; {
		select {
		case <-tick.C:
		case <-b.stop:
			return
		}
		ctx, cancel := context.WithTimeout(b.ctx, answerLimit)
		resp, err := b.kv.Range(ctx, &pb.RangeRequest{Key: []byte(b.keys.holder), CountOnly: true})
		if err == nil {
			if last > 0 && last < resp.Header.Revision {
				_, err = b.kv.Compact(ctx, &pb.CompactionRequest{Revision: last})
			}
			last = resp.Header.Revision
		}
		cancel()
		if err = rpctypes.Error(err); err != nil && !errors.Is(err, rpctypes.ErrCompacted) && b.ctx.Err() == nil {
			b.logger.Warn("etcd's history was not cut", "err", err)
		}
	}
}
