// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"metald.io/metald/internal/inventory/audit"
	"metald.io/metald/internal/inventory/engine"
)

var (
	// errStale says that what a write was made from is not so any more.
	errStale = errors.New("somebody else was quicker")
	// errForged ends the backend: the log's head was written by nobody who may.
	errForged = errors.New("the head of the record was changed by somebody else than metald")
)

// transact runs a transaction on full keys. One that writes is first tried as a reading one, which tells what the keys are
// before it, and with that what the log will say; then it is done, on the condition that they are the same still.
func (b *Backend) transact(ctx context.Context, req *pb.TxnRequest) (*pb.TxnResponse, error) {
	if writes(req.Failure) {
		return nil, status.Error(codes.Unimplemented, "a transaction that writes where its comparisons do not hold")
	}
	if !writes(req.Success) {
		return b.kv.Txn(ctx, req)
	}
	turned := false
	for {
		before, err := b.kv.Txn(ctx, &pb.TxnRequest{Compare: req.Compare, Success: reads(req.Success), Failure: req.Failure})
		if err != nil || !before.Succeeded {
			return before, err
		}
		events, conditions := b.effects(req.Success, before)
		payload, err := b.note(ctx, events)
		if err != nil {
			return nil, err
		}
		if payload != nil && !turned {
			if err := b.takeTurn(ctx); err != nil {
				return nil, err
			}
			turned = true
			defer b.endTurn()
		}
		resp, _, err := b.commit(ctx, append(conditions, req.Compare...), req.Success, payload)
		if !errors.Is(err, errStale) {
			return resp, err
		}
	}
}

func writes(ops []*pb.RequestOp) bool {
	for _, op := range ops {
		if op.GetRequestRange() == nil {
			return true
		}
	}
	return false
}

// reads has for each operation one that reads the keys that it changes.
func reads(ops []*pb.RequestOp) []*pb.RequestOp {
	read := make([]*pb.RequestOp, len(ops))
	for i, op := range ops {
		switch {
		case op.GetRequestPut() != nil:
			read[i] = rangeOp(&pb.RangeRequest{Key: op.GetRequestPut().Key})
		case op.GetRequestDeleteRange() != nil:
			read[i] = rangeOp(&pb.RangeRequest{Key: op.GetRequestDeleteRange().Key, RangeEnd: op.GetRequestDeleteRange().RangeEnd})
		default:
			read[i] = op
		}
	}
	return read
}

// effects are the events that the operations make where the keys are as before tells, and the conditions that they are. A key
// that goes by itself in between, as its lease ends, is told as removed by this one if it was to be.
func (b *Backend) effects(ops []*pb.RequestOp, before *pb.TxnResponse) (events []*mvccpb.Event, conditions []*pb.Compare) {
	for i, op := range ops {
		found := before.Responses[i].GetResponseRange().GetKvs()
		switch put, del := op.GetRequestPut(), op.GetRequestDeleteRange(); {
		case put != nil:
			kv := &mvccpb.KeyValue{Key: put.Key, Value: put.Value, Lease: put.Lease}
			event := &mvccpb.Event{Type: mvccpb.Event_PUT, Kv: kv}
			rev := int64(0)
			if len(found) > 0 {
				event.PrevKv, rev = found[0], found[0].ModRevision
				if put.IgnoreValue {
					kv.Value = found[0].Value
				}
			}
			events = append(events, event)
			conditions = append(conditions, modIs(put.Key, rev))
		case del != nil:
			for _, kv := range found {
				events = append(events, &mvccpb.Event{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: kv.Key}, PrevKv: kv})
			}
			conditions = append(conditions, unchangedSince(del.Key, del.RangeEnd, before.Header.Revision))
		}
	}
	for _, e := range events {
		short := &mvccpb.KeyValue{Key: bytes.TrimPrefix(e.Kv.Key, []byte(b.keys.objects)), Value: e.Kv.Value, Lease: e.Kv.Lease}
		e.Kv = short
		if e.PrevKv != nil {
			e.PrevKv = &mvccpb.KeyValue{Key: short.Key, Value: e.PrevKv.Value, Lease: e.PrevKv.Lease,
				CreateRevision: e.PrevKv.CreateRevision, ModRevision: e.PrevKv.ModRevision, Version: e.PrevKv.Version}
		}
	}
	return events, conditions
}

// note asks what the log is to say. A panic there refuses the write.
func (b *Backend) note(ctx context.Context, events []*mvccpb.Event) (payload []byte, err error) {
	if b.noter == nil || len(events) == 0 {
		return nil, nil
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("writing to the inventory: panic: %v", p)
			b.logger.Error("inventory refused a write that panicked", "err", p, "stack", string(debug.Stack()))
		}
	}()
	return b.noter(ctx, events), nil
}

// takeTurn waits for the one place from which the log grows. Who keeps it while he looks again is not overtaken for ever.
func (b *Backend) takeTurn(ctx context.Context) error {
	select {
	case b.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-b.stop:
		return engine.ErrClosed
	}
}

func (b *Backend) endTurn() { <-b.turn }

// commit does the operations, with an entry of the log if there is a payload and we have the turn, while the conditions hold
// and we are the holder. It answers errStale where a condition did not hold.
func (b *Backend) commit(ctx context.Context, conditions []*pb.Compare, ops []*pb.RequestOp, payload []byte) (_ *pb.TxnResponse, entry audit.Entry, _ error) {
	for {
		select {
		case <-b.stop:
			return nil, entry, engine.ErrClosed
		default:
		}
		held := b.held.Load()
		req := &pb.TxnRequest{
			Compare: append([]*pb.Compare{createIs(b.keys.holder, held.created)}, conditions...),
			Success: ops,
			Failure: []*pb.RequestOp{get(b.keys.holder), get(b.keys.head)},
		}
		last := b.chain.Load()
		if payload != nil {
			entry = b.link(req, *last, payload)
		}
		resp, err := b.kv.Txn(ctx, req)
		switch {
		case err != nil:
			if payload != nil && !refused(err) {
				b.unsure = true
			}
			return nil, entry, err
		case resp.Succeeded && payload == nil:
			return resp, entry, nil
		case resp.Succeeded:
			b.chain.Store(&chain{seq: entry.Seq, hash: entry.Hash, mod: resp.Header.Revision})
			b.unsure = false
			resp.Responses = resp.Responses[:len(ops)]
			return resp, entry, nil
		}
		holder, head := resp.Responses[0].GetResponseRange().Kvs, resp.Responses[1].GetResponseRange().Kvs
		switch {
		case len(holder) == 0 || holder[0].CreateRevision != held.created:
			if err := b.regain(ctx, held); err != nil {
				return nil, entry, err
			}
		case payload != nil && modOf(head) != last.mod && b.unsure:
			// A write of ours that we had lost sight of was done after all.
			if err := b.setHead(head); err != nil {
				return nil, entry, b.fail(err)
			}
		case payload != nil && modOf(head) != last.mod:
			return nil, entry, b.fail(errForged)
		default:
			return nil, entry, errStale
		}
	}
}

func modOf(kvs []*mvccpb.KeyValue) int64 {
	if len(kvs) == 0 {
		return 0
	}
	return kvs[0].ModRevision
}
