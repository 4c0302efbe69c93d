// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"io"

	"go.etcd.io/bbolt"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/feature"
)

// etcdVersion is the etcd whose behaviour this package has. Clients turn abilities on by it.
const etcdVersion = "3.7.3"

// endpoint names this engine to the check below, which remembers its answer by it.
const endpoint = "metald-inventory"

func (e *Engine) newClient() *clientv3.Client {
	// A context client has no connection and starts nothing.
	c := clientv3.NewCtxClient(context.Background())
	c.KV = clientv3.NewKVFromKVClient(wire{e}, c)
	c.Watcher = watcher{e}
	c.Lease = lessor{e}
	c.Maintenance = maintenance{e}
	// The stock store asks each endpoint of its client whether it reports progress on demand, without which lists are not
	// served from the watch cache. This client has no endpoints; so it is told here.
	feature.DefaultFeatureSupportChecker.CheckClient(c.Ctx(), self{c}, storage.RequestWatchProgress)
	return c
}

type self struct{ *clientv3.Client }

func (self) Endpoints() []string { return []string{endpoint} }

func (e *Engine) header() *pb.ResponseHeader {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return &pb.ResponseHeader{Revision: e.rev}
}

// maintenance answers what a single file can say; the care of a cluster has no meaning here.
type maintenance struct{ e *Engine }

func (m maintenance) Status(context.Context, string) (*clientv3.StatusResponse, error) {
	resp := &pb.StatusResponse{Header: m.e.header(), Version: etcdVersion, StorageVersion: "3.7.0"}
	err := m.e.view(func(tx *bbolt.Tx) error {
		resp.DbSize = tx.Size()
		resp.DbSizeInUse = tx.Size() - int64(m.e.db.Stats().FreeAlloc)
		return nil
	})
	return (*clientv3.StatusResponse)(resp), wireError(err)
}

// SnapshotWithVersion streams a consistent copy of the file, which a later Open takes. The copy ends with an error if ctx
// does.
func (m maintenance) SnapshotWithVersion(ctx context.Context) (*clientv3.SnapshotResponse, error) {
	r, err := m.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	return &clientv3.SnapshotResponse{Header: m.e.header(), Snapshot: r, Version: etcdVersion}, nil
}

func (m maintenance) Snapshot(ctx context.Context) (io.ReadCloser, error) {
	tx, err := m.e.db.Begin(false)
	if err != nil {
		return nil, wireError(ErrClosed)
	}
	r, w := io.Pipe()
	cut := context.AfterFunc(ctx, func() { w.CloseWithError(ctx.Err()) })
	go func() {
		defer cut()
		_, err := tx.WriteTo(w)
		tx.Rollback() //nolint:errcheck // a read transaction has nothing to lose
		w.CloseWithError(err)
	}()
	return r, nil
}

func (maintenance) AlarmList(context.Context) (*clientv3.AlarmResponse, error) {
	return &clientv3.AlarmResponse{}, nil
}

func (maintenance) AlarmDisarm(context.Context, *clientv3.AlarmMember) (*clientv3.AlarmResponse, error) {
	return nil, errNoCluster
}

func (maintenance) Defragment(context.Context, string) (*clientv3.DefragmentResponse, error) {
	return nil, errNoCluster
}

func (maintenance) HashKV(context.Context, string, int64) (*clientv3.HashKVResponse, error) {
	return nil, errNoCluster
}

func (maintenance) MoveLeader(context.Context, uint64) (*clientv3.MoveLeaderResponse, error) {
	return nil, errNoCluster
}

func (maintenance) Downgrade(context.Context, clientv3.DowngradeAction, string) (*clientv3.DowngradeResponse, error) {
	return nil, errNoCluster
}

var errNoCluster = status.Error(codes.Unimplemented, "the inventory is one file, not an etcd cluster")
