// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"io"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// wire answers etcd's KV calls. It stands below the stock client, at the place of the generated stubs, because only there
// an operation shows all its options: a clientv3.Op keeps its lease to itself.
type wire struct{ e *Engine }

var _ pb.KVClient = wire{}

func (w wire) Range(ctx context.Context, req *pb.RangeRequest, _ ...grpc.CallOption) (*pb.RangeResponse, error) {
	resp, err := w.e.read(ctx, req)
	return resp, wireError(err)
}

// RangeStream answers in one piece: a read that lasted as long as its reader is slow would keep every page that is
// replaced meanwhile from being used again. An error comes out of the stream, as it does from a server.
func (w wire) RangeStream(ctx context.Context, req *pb.RangeRequest, opts ...grpc.CallOption) (grpc.ServerStreamingClient[pb.RangeStreamResponse], error) {
	resp, err := w.Range(ctx, req, opts...)
	return &stream{ctx: ctx, resp: resp, err: err}, nil
}

func (w wire) Put(ctx context.Context, req *pb.PutRequest, opts ...grpc.CallOption) (*pb.PutResponse, error) {
	resp, err := w.one(ctx, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: req}}, opts...)
	return resp.GetResponsePut(), err
}

func (w wire) DeleteRange(ctx context.Context, req *pb.DeleteRangeRequest, opts ...grpc.CallOption) (*pb.DeleteRangeResponse, error) {
	resp, err := w.one(ctx, &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: req}}, opts...)
	return resp.GetResponseDeleteRange(), err
}

func (w wire) one(ctx context.Context, op *pb.RequestOp, opts ...grpc.CallOption) (*pb.ResponseOp, error) {
	resp, err := w.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{op}}, opts...)
	if err != nil {
		return nil, err
	}
	return resp.Responses[0], nil
}

func (w wire) Txn(ctx context.Context, req *pb.TxnRequest, _ ...grpc.CallOption) (*pb.TxnResponse, error) {
	resp, err := w.e.transact(ctx, req)
	return resp, wireError(err)
}

// Compact forgets history in memory; the file holds none.
func (w wire) Compact(_ context.Context, req *pb.CompactionRequest, _ ...grpc.CallOption) (*pb.CompactionResponse, error) {
	w.e.mu.Lock()
	defer w.e.mu.Unlock()
	if req.Revision > w.e.rev {
		return nil, rpctypes.ErrGRPCFutureRev
	}
	if req.Revision <= w.e.past.compacted {
		return nil, rpctypes.ErrGRPCCompacted
	}
	w.e.past.compact(req.Revision)
	w.e.wake()
	return &pb.CompactionResponse{Header: &pb.ResponseHeader{Revision: w.e.rev}}, nil
}

// stream is the client's half of a RangeStream with one answer.
type stream struct {
	grpc.ClientStream
	ctx  context.Context
	resp *pb.RangeResponse
	err  error
}

func (s *stream) Context() context.Context { return s.ctx }

func (s *stream) Recv() (*pb.RangeStreamResponse, error) {
	resp, err := s.resp, s.err
	s.resp, s.err = nil, io.EOF
	if err != nil {
		return nil, err
	}
	return &pb.RangeStreamResponse{RangeResponse: resp}, nil
}

// wireError says an engine's error in etcd's words, which the stock store knows how to handle.
func wireError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrFull):
		return rpctypes.ErrGRPCNoSpace
	case errors.Is(err, ErrCorrupt):
		return status.Error(codes.DataLoss, err.Error())
	case errors.Is(err, ErrClosed):
		return status.Error(codes.Unavailable, err.Error())
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, err.Error())
	}
	return err
}
