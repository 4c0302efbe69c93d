// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"cmp"
	"context"

	"go.etcd.io/bbolt"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// maxValue is the longest value taken. apiserver itself refuses request bodies above 3 MiB.
const maxValue = 8 << 20

// transact runs an etcd transaction: durable when it returns.
func (e *Engine) transact(ctx context.Context, req *pb.TxnRequest) (*pb.TxnResponse, error) {
	size, err := check(req)
	if err != nil {
		return nil, err
	}
	var resp *pb.TxnResponse
	err = e.submit(ctx, size, func(b *batch) error {
		var err error
		resp, err = b.transact(req)
		return err
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// check refuses what could fail halfway through, and returns the bytes that the larger branch writes.
func check(req *pb.TxnRequest) (int, error) {
	size := 0
	for _, ops := range [][]*pb.RequestOp{req.Success, req.Failure} {
		seen := map[string]bool{}
		n := 0
		for _, op := range ops {
			put := op.GetRequestPut()
			switch {
			case op.GetRequestTxn() != nil:
				return 0, status.Error(codes.Unimplemented, "a transaction inside a transaction")
			case op.GetRequestRange() != nil && op.GetRequestRange().Revision != 0:
				return 0, status.Error(codes.Unimplemented, "reading an old revision inside a transaction")
			case put == nil:
				continue
			case len(put.Key) == 0:
				return 0, rpctypes.ErrGRPCEmptyKey
			case len(put.Key) > bbolt.MaxKeySize || len(put.Value) > maxValue:
				return 0, rpctypes.ErrGRPCRequestTooLarge
			case put.IgnoreValue && len(put.Value) > 0:
				return 0, rpctypes.ErrGRPCValueProvided
			case put.IgnoreLease && put.Lease != 0:
				return 0, rpctypes.ErrGRPCLeaseProvided
			case seen[string(put.Key)]:
				return 0, rpctypes.ErrGRPCDuplicateKey
			}
			seen[string(put.Key)] = true
			n += len(put.Key) + len(put.Value)
		}
		size = max(size, n)
	}
	return size, nil
}

// transact applies req to the batch. All its changes share one revision.
func (b *batch) transact(req *pb.TxnRequest) (*pb.TxnResponse, error) {
	resp := &pb.TxnResponse{Succeeded: true}
	for _, c := range req.Compare {
		ok, err := b.holds(c)
		if err != nil {
			return nil, err
		}
		if !ok {
			resp.Succeeded = false
			break
		}
	}
	ops := req.Success
	if !resp.Succeeded {
		ops = req.Failure
	}
	for _, op := range ops {
		if put := op.GetRequestPut(); put != nil {
			if err := b.allows(put); err != nil {
				return nil, err
			}
		}
	}
	before := len(b.events)
	rev := b.rev + 1
	for _, op := range ops {
		r, err := b.apply(op, rev)
		if err != nil {
			return nil, err
		}
		resp.Responses = append(resp.Responses, r)
	}
	if len(b.events) > before {
		b.rev = rev
	}
	resp.Header = b.header()
	return resp, nil
}

func (b *batch) header() *pb.ResponseHeader { return &pb.ResponseHeader{Revision: b.rev} }

// allows tells whether a put can be done, before anything is written.
func (b *batch) allows(put *pb.PutRequest) error {
	if put.Lease != 0 && b.tx.Bucket(leasesBucket).Get(numberBytes(put.Lease)) == nil {
		return rpctypes.ErrGRPCLeaseNotFound
	}
	if (put.IgnoreValue || put.IgnoreLease) && b.tx.Bucket(keysBucket).Get(put.Key) == nil {
		return rpctypes.ErrGRPCKeyNotFound
	}
	return nil
}

func (b *batch) apply(op *pb.RequestOp, rev int64) (*pb.ResponseOp, error) {
	switch {
	case op.GetRequestRange() != nil:
		r, err := rangeIn(b.tx, op.GetRequestRange(), nil)
		if err != nil {
			return nil, err
		}
		r.Header = &pb.ResponseHeader{Revision: rev}
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: r}}, nil
	case op.GetRequestPut() != nil:
		r, err := b.set(op.GetRequestPut(), rev)
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: r}}, err
	case op.GetRequestDeleteRange() != nil:
		r, err := b.deleteRange(op.GetRequestDeleteRange(), rev)
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: r}}, err
	}
	return nil, status.Error(codes.InvalidArgument, "an operation of no known kind")
}

func (b *batch) set(req *pb.PutRequest, rev int64) (*pb.PutResponse, error) {
	prev, err := lookup(b.tx, req.Key)
	if err != nil {
		return nil, err
	}
	kv := &mvccpb.KeyValue{Key: req.Key, Value: req.Value, Lease: req.Lease, CreateRevision: rev, ModRevision: rev, Version: 1}
	if prev != nil {
		kv.CreateRevision, kv.Version = prev.CreateRevision, prev.Version+1
		if req.IgnoreValue {
			kv.Value = prev.Value
		}
		if req.IgnoreLease {
			kv.Lease = prev.Lease
		}
		if prev.Lease != 0 && prev.Lease != kv.Lease {
			b.remove(b.tx.Bucket(attachments), attachment(prev.Lease, kv.Key))
		}
	}
	if kv.Lease != 0 && (prev == nil || prev.Lease != kv.Lease) {
		b.put(b.tx.Bucket(attachments), attachments, attachment(kv.Lease, kv.Key))
	}
	b.put(b.tx.Bucket(keysBucket), keysBucket, kv.Key, header(kv), kv.Value)
	b.events = append(b.events, &mvccpb.Event{Type: mvccpb.Event_PUT, Kv: kv, PrevKv: prev})
	resp := &pb.PutResponse{Header: &pb.ResponseHeader{Revision: rev}}
	if req.PrevKv {
		resp.PrevKv = prev
	}
	return resp, nil
}

func (b *batch) deleteRange(req *pb.DeleteRangeRequest, rev int64) (*pb.DeleteRangeResponse, error) {
	var keys, rows [][]byte
	walk(b.tx, keyRange{req.Key, req.RangeEnd}, nil, func(key, row []byte, _ *mvccpb.KeyValue) bool {
		// The file's memory may move while it is written to.
		keys, rows = append(keys, bytes.Clone(key)), append(rows, bytes.Clone(row))
		return true
	})
	resp := &pb.DeleteRangeResponse{Header: &pb.ResponseHeader{Revision: rev}, Deleted: int64(len(keys))}
	for i, key := range keys {
		if kv := b.delete(key, rows[i], rev); req.PrevKv && kv != nil {
			resp.PrevKvs = append(resp.PrevKvs, kv)
		}
	}
	return resp, nil
}

// delete removes a key and returns what it was. A damaged row can be removed too, as the one thing that can be done with
// it: then nobody knows what it was, and watchers must list again.
func (b *batch) delete(key, row []byte, rev int64) *mvccpb.KeyValue {
	kv, err := decodeRow(key, row, true)
	if err != nil {
		kv, b.forget = nil, true
	} else if kv.Lease != 0 {
		b.remove(b.tx.Bucket(attachments), attachment(kv.Lease, key))
	}
	b.remove(b.tx.Bucket(keysBucket), key)
	b.events = append(b.events, &mvccpb.Event{
		Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: key, ModRevision: rev}, PrevKv: kv,
	})
	return kv
}

// holds evaluates one comparison. A key that is not there compares as all zeroes, and its value as nothing at all.
func (b *batch) holds(c *pb.Compare) (bool, error) {
	if len(c.RangeEnd) == 0 {
		kv, err := lookup(b.tx, c.Key)
		if err != nil {
			return false, err
		}
		return compare(c, kv), nil
	}
	found, err := rangeIn(b.tx, &pb.RangeRequest{Key: c.Key, RangeEnd: c.RangeEnd}, nil)
	if err != nil {
		return false, err
	}
	for _, kv := range found.Kvs {
		if !compare(c, kv) {
			return false, nil
		}
	}
	return len(found.Kvs) > 0 || compare(c, nil), nil
}

func compare(c *pb.Compare, kv *mvccpb.KeyValue) bool {
	if kv == nil {
		if c.Target == pb.Compare_VALUE {
			return false
		}
		kv = &mvccpb.KeyValue{}
	}
	order := 0
	switch c.Target {
	case pb.Compare_VALUE:
		order = bytes.Compare(kv.Value, c.GetValue())
	case pb.Compare_CREATE:
		order = cmp.Compare(kv.CreateRevision, c.GetCreateRevision())
	case pb.Compare_MOD:
		order = cmp.Compare(kv.ModRevision, c.GetModRevision())
	case pb.Compare_VERSION:
		order = cmp.Compare(kv.Version, c.GetVersion())
	case pb.Compare_LEASE:
		order = cmp.Compare(kv.Lease, c.GetLease())
	}
	switch c.Result {
	case pb.Compare_EQUAL:
		return order == 0
	case pb.Compare_NOT_EQUAL:
		return order != 0
	case pb.Compare_GREATER:
		return order > 0
	case pb.Compare_LESS:
		return order < 0
	}
	return false
}
