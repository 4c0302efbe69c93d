// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"cmp"
	"context"
	"slices"

	"go.etcd.io/bbolt"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// read answers a range request from a snapshot, at its revision where it names one.
func (e *Engine) read(ctx context.Context, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	var resp *pb.RangeResponse
	err := e.view(func(tx *bbolt.Tx) error {
		current, err := revisionOf(tx)
		if err != nil {
			return err
		}
		// bbolt shows a commit from the moment its last page is written, before that page is on disk. Nobody may see what
		// a power failure could still take back: its revision would be given out again.
		if err := e.await(ctx, current); err != nil {
			return err
		}
		var old map[string]*mvccpb.KeyValue
		if req.Revision > 0 && req.Revision != current {
			if old, err = e.undo(req, current); err != nil {
				return err
			}
		}
		resp, err = rangeIn(tx, req, old)
		if err == nil {
			resp.Header = &pb.ResponseHeader{Revision: current}
		}
		return err
	})
	return resp, err
}

// undo returns how the requested keys differed at the requested revision from a snapshot at revision current.
func (e *Engine) undo(req *pb.RangeRequest, current int64) (map[string]*mvccpb.KeyValue, error) {
	if req.Revision > current {
		return nil, rpctypes.ErrGRPCFutureRev
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	if req.Revision < e.past.compacted {
		return nil, rpctypes.ErrGRPCCompacted
	}
	return e.past.undo(keyRange{req.Key, req.RangeEnd}, req.Revision, current), nil
}

// rangeIn reads in key order from tx, with old laid over it. Count is of all keys in the range, also past the limit.
func rangeIn(tx *bbolt.Tx, req *pb.RangeRequest, old map[string]*mvccpb.KeyValue) (*pb.RangeResponse, error) {
	resp := &pb.RangeResponse{}
	sorted := req.SortOrder != pb.RangeRequest_NONE && !(req.SortTarget == pb.RangeRequest_KEY && req.SortOrder == pb.RangeRequest_ASCEND)
	limit := int(req.Limit)
	var bad error
	walk(tx, keyRange{req.Key, req.RangeEnd}, old, func(key, row []byte, was *mvccpb.KeyValue) bool {
		if filtered(req) {
			kv, err := pick(key, row, was, false)
			if err != nil {
				bad = err
				return false
			}
			if !inRevisions(req, kv) {
				return true
			}
		}
		resp.Count++
		if req.CountOnly || (!sorted && limit > 0 && len(resp.Kvs) == limit) {
			return true
		}
		kv, err := pick(key, row, was, !req.KeysOnly)
		if err != nil {
			bad = err
			return false
		}
		resp.Kvs = append(resp.Kvs, kv)
		return true
	})
	if bad != nil {
		return nil, bad
	}
	if sorted {
		sortKeys(resp.Kvs, req)
		if limit > 0 && len(resp.Kvs) > limit {
			resp.Kvs = resp.Kvs[:limit]
		}
	}
	resp.More = !req.CountOnly && resp.Count > int64(len(resp.Kvs))
	return resp, nil
}

// walk visits the keys of r in order until visit returns false: those of the file, replaced by what old says of them.
func walk(tx *bbolt.Tx, r keyRange, old map[string]*mvccpb.KeyValue, visit func(key, row []byte, was *mvccpb.KeyValue) bool) {
	if r.single() {
		if was, changed := old[string(r.key)]; changed {
			if was != nil {
				visit(r.key, nil, was)
			}
		} else if row := tx.Bucket(keysBucket).Get(r.key); row != nil {
			visit(r.key, row, nil)
		}
		return
	}
	gone := make([]string, 0, len(old))
	for key, was := range old {
		if was != nil {
			gone = append(gone, key)
		}
	}
	slices.Sort(gone)
	cursor := tx.Bucket(keysBucket).Cursor()
	for key, row := cursor.Seek(r.key); key != nil && r.has(key); key, row = cursor.Next() {
		for len(gone) > 0 && gone[0] < string(key) {
			if !visit([]byte(gone[0]), nil, old[gone[0]]) {
				return
			}
			gone = gone[1:]
		}
		was, changed := old[string(key)]
		switch {
		case changed && was == nil:
			continue
		case changed:
			gone = gone[1:]
			row = nil
		}
		if !visit(key, row, was) {
			return
		}
	}
	for _, key := range gone {
		if !visit([]byte(key), nil, old[key]) {
			return
		}
	}
}

func pick(key, row []byte, was *mvccpb.KeyValue, withValue bool) (*mvccpb.KeyValue, error) {
	if was == nil {
		return decodeRow(key, row, withValue)
	}
	kv := &mvccpb.KeyValue{Key: was.Key, CreateRevision: was.CreateRevision, ModRevision: was.ModRevision, Version: was.Version, Lease: was.Lease}
	if withValue {
		kv.Value = was.Value
	}
	return kv, nil
}

func filtered(req *pb.RangeRequest) bool {
	return req.MinModRevision != 0 || req.MaxModRevision != 0 || req.MinCreateRevision != 0 || req.MaxCreateRevision != 0
}

func inRevisions(req *pb.RangeRequest, kv *mvccpb.KeyValue) bool {
	within := func(n, low, high int64) bool { return n >= low && (high == 0 || n <= high) }
	return within(kv.ModRevision, req.MinModRevision, req.MaxModRevision) &&
		within(kv.CreateRevision, req.MinCreateRevision, req.MaxCreateRevision)
}

func sortKeys(kvs []*mvccpb.KeyValue, req *pb.RangeRequest) {
	slices.SortStableFunc(kvs, func(a, b *mvccpb.KeyValue) int {
		order := 0
		switch req.SortTarget {
		case pb.RangeRequest_KEY:
			order = bytes.Compare(a.Key, b.Key)
		case pb.RangeRequest_VERSION:
			order = cmp.Compare(a.Version, b.Version)
		case pb.RangeRequest_CREATE:
			order = cmp.Compare(a.CreateRevision, b.CreateRevision)
		case pb.RangeRequest_MOD:
			order = cmp.Compare(a.ModRevision, b.ModRevision)
		case pb.RangeRequest_VALUE:
			order = bytes.Compare(a.Value, b.Value)
		}
		if req.SortOrder == pb.RangeRequest_DESCEND {
			return -order
		}
		return order
	})
}
