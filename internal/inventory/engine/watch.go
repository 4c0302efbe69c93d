// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
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

// follow is one watch. While it is in step, the fan sends it each event as it is published; once it is behind, its own
// goroutine sends what the history still has of them, until it is in step again.
type follow struct {
	e *Engine
	choice
	progress bool
	out      chan clientv3.WatchResponse
	behind   chan struct{} // told by the fan, with room for one, when out was full

	// Whoever sends has these: the fan, under its mutex, while the watch is in step, else the watch's goroutine.
	next  int64 // the first revision not yet sent
	seen  int64 // where its goroutine found nothing more to send: the fan may not be there yet
	asked int64 // the progress requests answered
}

// choice is which events a watch is told, and how. It is comparable: those who choose the same share what they are sent.
type choice struct {
	key, end              string
	prev, noPut, noDelete bool
}

// Watch starts at once: it misses no event that comes after its return.
func (w watcher) Watch(ctx context.Context, key string, opts ...clientv3.OpOption) clientv3.WatchChan {
	op := clientv3.OpGet(key)
	for _, opt := range opts {
		opt(&op)
	}
	f := &follow{
		e:        w.e,
		choice:   choice{key, string(op.RangeBytes()), op.IsPrevKV(), op.IsFilterPut(), op.IsFilterDelete()},
		progress: op.IsProgressNotify(),
		out:      make(chan clientv3.WatchResponse, watchBuffer),
		behind:   make(chan struct{}, 1),
		next:     op.Rev(),
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
	for {
		resp := f.poll()
		if resp == nil {
			if f.e.fan.join(f) && !f.inStep(ctx, tick) {
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

// inStep waits while the fan sends. It returns whether there is more to send, now by the watch itself.
func (f *follow) inStep(ctx context.Context, tick <-chan time.Time) bool {
	for {
		select {
		case <-f.behind:
			return true
		case <-tick:
			f.e.fan.progress(f)
		case <-ctx.Done():
			f.e.fan.leave(f)
			return false
		case <-f.e.stop:
			f.e.fan.leave(f)
			return false
		}
	}
}

// poll returns what a watch that is behind is to be sent now; nil is nothing.
func (f *follow) poll() *clientv3.WatchResponse {
	f.e.mu.RLock()
	defer f.e.mu.RUnlock()
	header := &pb.ResponseHeader{Revision: f.e.rev}
	if f.next <= f.e.past.compacted {
		return &clientv3.WatchResponse{Header: header, CompactRevision: f.e.past.compacted, Canceled: true}
	}
	for f.next <= f.e.rev {
		var events []*mvccpb.Event
		events, f.next = f.e.past.chunk(f.next, watchChunk)
		if events = f.of(events); len(events) > 0 {
			return &clientv3.WatchResponse{Header: header, Events: events}
		}
	}
	if f.asked != f.e.asked {
		f.asked = f.e.asked
		return &clientv3.WatchResponse{Header: header}
	}
	f.seen = f.e.rev
	return nil
}

// of returns those of some events that are chosen, as they are told.
func (c choice) of(events []*mvccpb.Event) (chosen []*mvccpb.Event) {
	r := keyRange{[]byte(c.key), []byte(c.end)}
	for _, ev := range events {
		if !r.has(ev.Kv.Key) || ev.Type == mvccpb.Event_PUT && c.noPut || ev.Type == mvccpb.Event_DELETE && c.noDelete {
			continue
		}
		if !c.prev {
			ev = &mvccpb.Event{Type: ev.Type, Kv: ev.Kv}
		}
		chosen = append(chosen, ev)
	}
	return chosen
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
