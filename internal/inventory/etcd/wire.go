// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

// wire puts the prefix before each key on its way out, takes it away on its way in, and has every write recorded. It stands
// below the stock client, because only there an operation shows all its options: a clientv3.Op keeps its lease to itself.
type wire struct{ b *Backend }

var _ pb.KVClient = wire{}

func (w wire) Range(ctx context.Context, req *pb.RangeRequest, opts ...grpc.CallOption) (*pb.RangeResponse, error) {
	limited, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	resp, err := w.b.kv.Range(limited, w.b.keys.fullRange(req), opts...)
	if err != nil {
		return nil, w.b.words(ctx, err)
	}
	w.b.keys.short(resp.Kvs...)
	return resp, nil
}

func (w wire) RangeStream(ctx context.Context, req *pb.RangeRequest, opts ...grpc.CallOption) (grpc.ServerStreamingClient[pb.RangeStreamResponse], error) {
	answers, err := w.b.kv.RangeStream(ctx, w.b.keys.fullRange(req), opts...)
	if err != nil {
		return nil, w.b.words(ctx, err)
	}
	return stream{answers, w.b.keys}, nil
}

// stream takes the prefix away.
type stream struct {
	grpc.ServerStreamingClient[pb.RangeStreamResponse]
	keys keys
}

func (s stream) Recv() (*pb.RangeStreamResponse, error) {
	resp, err := s.ServerStreamingClient.Recv()
	if err == nil {
		s.keys.short(resp.GetRangeResponse().GetKvs()...)
	}
	return resp, err
}

func (w wire) Put(ctx context.Context, req *pb.PutRequest, _ ...grpc.CallOption) (*pb.PutResponse, error) {
	resp, err := w.one(ctx, putOp(req))
	if err != nil {
		return nil, err
	}
	put := resp.Responses[0].GetResponsePut()
	put.Header = resp.Header
	return put, nil
}

func (w wire) DeleteRange(ctx context.Context, req *pb.DeleteRangeRequest, _ ...grpc.CallOption) (*pb.DeleteRangeResponse, error) {
	resp, err := w.one(ctx, deleteOp(req))
	if err != nil {
		return nil, err
	}
	deleted := resp.Responses[0].GetResponseDeleteRange()
	deleted.Header = resp.Header
	return deleted, nil
}

func (w wire) one(ctx context.Context, op *pb.RequestOp) (*pb.TxnResponse, error) {
	return w.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{op}})
}

func (w wire) Txn(ctx context.Context, req *pb.TxnRequest, _ ...grpc.CallOption) (*pb.TxnResponse, error) {
	full := &pb.TxnRequest{}
	for _, c := range req.Compare {
		full.Compare = append(full.Compare, w.b.keys.fullCompare(c))
	}
	for _, op := range req.Success {
		full.Success = append(full.Success, w.b.keys.fullOp(op))
	}
	for _, op := range req.Failure {
		full.Failure = append(full.Failure, w.b.keys.fullOp(op))
	}
	limited, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	resp, err := w.b.transact(limited, full)
	if err != nil {
		return nil, w.b.words(ctx, err)
	}
	for _, op := range resp.Responses {
		w.b.keys.shortOp(op)
	}
	return resp, nil
}

// Compact forgets the history of the whole etcd, not of the prefix alone.
func (w wire) Compact(ctx context.Context, req *pb.CompactionRequest, opts ...grpc.CallOption) (*pb.CompactionResponse, error) {
	resp, err := w.b.kv.Compact(ctx, req, opts...)
	return resp, w.b.words(ctx, err)
}
