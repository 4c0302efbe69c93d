// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// watchBuffer is how many answers wait in a watch's channel. Beyond them a slow watcher falls behind in the history,
	// and past the history's end it is told to list again: nothing is buffered for it without bound.
	watchBuffer = 16
	// watchChunk is about how many events one answer carries.
	watchChunk = 256
)

// watcher is the client's way to the events.
type watcher struct{ e *Engine }

// follow is one watch.
type follow struct {
	e        *Engine
	r        keyRange
	next     int64 // the first revision not yet sent
	asked    int64 // the progress requests answered
	prev     bool
	progress bool
	noPut    bool
	noDelete bool
	out      chan clientv3.WatchResponse
}

// Watch starts at once: it misses no event that comes after its return.
func (w watcher) Watch(ctx context.Context, key string, opts ...clientv3.OpOption) clientv3.WatchChan {
	op := clientv3.OpGet(key)
	for _, opt := range opts {
		opt(&op)
	}
	f := &follow{
		e:        w.e,
		r:        keyRange{[]byte(key), op.RangeBytes()},
		next:     op.Rev(),
		prev:     op.IsPrevKV(),
		progress: op.IsProgressNotify(),
		noPut:    op.IsFilterPut(),
		noDelete: op.IsFilterDelete(),
		out:      make(chan clientv3.WatchResponse, watchBuffer),
	}
	w.e.mu.RLock()
	if f.next <= 0 {
		f.next = w.e.rev + 1
	}
	f.asked = w.e.asked
	if op.IsCreatedNotify() {
		f.out <- clientv3.WatchResponse{Header: &pb.ResponseHeader{Revision: w.e.rev}, Created: true}
	}
	w.e.mu.RUnlock()
	go f.run(ctx)
	return f.out
}

func (f *follow) run(ctx context.Context) {
	defer close(f.out)
	var tick <-chan time.Time
	if f.progress {
		ticker := time.NewTicker(f.e.progressInterval)
		defer ticker.Stop()
		tick = ticker.C
	}
	idle := false
	for {
		resp, changed := f.poll(idle)
		idle = false
		if resp == nil {
			select {
			case <-changed:
			case <-tick:
				idle = true
			case <-ctx.Done():
				return
			case <-f.e.stop:
				return
			}
			continue
		}
		select {
		case f.out <- *resp:
		case <-ctx.Done():
			return
		case <-f.e.stop:
			return
		}
		if resp.Canceled {
			return
		}
	}
}

// poll returns what is to be sent now, or what to wait on. With idle it tells the revision where there is nothing else.
func (f *follow) poll(idle bool) (*clientv3.WatchResponse, <-chan struct{}) {
	f.e.mu.RLock()
	defer f.e.mu.RUnlock()
	header := &pb.ResponseHeader{Revision: f.e.rev}
	if f.next <= f.e.past.compacted {
		return &clientv3.WatchResponse{Header: header, CompactRevision: f.e.past.compacted, Canceled: true}, nil
	}
	for f.next <= f.e.rev {
		var events []*mvccpb.Event
		events, f.next = f.e.past.collect(f.r, f.next, watchChunk)
		if events = f.wanted(events); len(events) > 0 {
			return &clientv3.WatchResponse{Header: header, Events: events}, nil
		}
	}
	if f.asked != f.e.asked || idle {
		f.asked = f.e.asked
		return &clientv3.WatchResponse{Header: header}, nil
	}
	return nil, f.e.changed
}

func (f *follow) wanted(events []*mvccpb.Event) []*mvccpb.Event {
	if f.noPut || f.noDelete {
		events = slices.DeleteFunc(events, func(ev *mvccpb.Event) bool {
			return ev.Type == mvccpb.Event_PUT && f.noPut || ev.Type == mvccpb.Event_DELETE && f.noDelete
		})
	}
	if !f.prev {
		for i, ev := range events {
			events[i] = &mvccpb.Event{Type: ev.Type, Kv: ev.Kv}
		}
	}
	return events
}

// RequestProgress has every watch tell the current revision once it has sent all events up to it.
func (w watcher) RequestProgress(context.Context) error {
	w.e.mu.Lock()
	defer w.e.mu.Unlock()
	w.e.asked++
	w.e.wake()
	return nil
}

func (w watcher) Close() error { return nil }
