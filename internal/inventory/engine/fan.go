// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// fan sends what is published to every watch that is in step, from one goroutine: a watch is woken once an event, and what
// several are to be told alike is made once. It never waits for a watch. One whose channel is full is let go of, to catch up
// by itself.
type fan struct {
	mu     sync.Mutex // whoever has it may send to those in step
	inStep map[*follow]struct{}
	sent   int64 // the revision up to which all of them have their events
	asked  int64 // the progress requests that all of them have answered
}

// fanLoop ends with the engine.
func (e *Engine) fanLoop() {
	defer e.wg.Done()
	for {
		e.mu.RLock()
		changed := e.changed
		e.mu.RUnlock()
		e.fan.mu.Lock()
		for e.fan.step(e) {
		}
		e.fan.mu.Unlock()
		select {
		case <-changed:
		case <-e.stop:
			return
		}
	}
}

// step sends the next events, or answers requests for progress, and returns whether there may be more to send. The caller holds
// mu.
func (n *fan) step(e *Engine) bool {
	e.mu.RLock()
	rev, asked, lost := e.rev, e.asked, n.sent < e.past.compacted
	var events []*mvccpb.Event
	upTo := rev
	if !lost && n.sent < rev {
		events, upTo = e.past.chunk(n.sent+1, watchChunk)
		upTo--
	}
	e.mu.RUnlock()

	switch {
	case lost: // the events were forgotten before they were sent; each watch is told so by its own goroutine
		for f := range n.inStep {
			n.drop(f)
		}
		n.sent, n.asked = rev, asked
	case n.sent < rev:
		n.send(events, upTo)
	case n.asked != asked:
		progress := clientv3.WatchResponse{Header: &pb.ResponseHeader{Revision: n.sent}}
		for f := range n.inStep {
			if f.asked < asked && n.offer(f, progress) {
				f.asked = asked
			}
		}
		n.asked = asked
	default:
		return false
	}
	return true
}

// send sends the events after n.sent up to a revision.
func (n *fan) send(events []*mvccpb.Event, upTo int64) {
	header := &pb.ResponseHeader{Revision: upTo}
	made := map[choice][]*mvccpb.Event{}
	for f := range n.inStep {
		chosen, ok := made[f.choice]
		switch {
		case f.next > upTo:
			continue // it has them, or waits for a revision that is to come
		case f.next > n.sent+1:
			chosen = f.of(since(events, f.next))
		case !ok:
			chosen = f.of(events)
			made[f.choice] = chosen
		}
		if len(chosen) == 0 || n.offer(f, clientv3.WatchResponse{Header: header, Events: chosen}) {
			f.next = upTo + 1
		}
	}
	n.sent = upTo
}

// since returns the events from a revision on.
func since(events []*mvccpb.Event, rev int64) []*mvccpb.Event {
	for i, ev := range events {
		if ev.Kv.ModRevision >= rev {
			return events[i:]
		}
	}
	return nil
}

// offer sends if there is room, and else lets go of the watch.
func (n *fan) offer(f *follow, resp clientv3.WatchResponse) bool {
	select {
	case f.out <- resp:
		return true
	default:
		n.drop(f)
		return false
	}
}

func (n *fan) drop(f *follow) {
	delete(n.inStep, f)
	f.behind <- struct{}{} // it has room for the one time between joining and leaving
}

// join takes a watch that has nothing more to send by itself. It is false where something has come since.
func (n *fan) join(f *follow) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if f.next <= n.sent || f.asked < n.asked {
		return false
	}
	n.inStep[f] = struct{}{}
	return true
}

// leave lets go of a watch that ends.
func (n *fan) leave(f *follow) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.inStep, f)
}

// progress tells a watch up to which revision it has its events. A watch whose channel is full needs no telling.
func (n *fan) progress(f *follow) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.inStep[f]; !ok {
		return
	}
	select {
	case f.out <- clientv3.WatchResponse{Header: &pb.ResponseHeader{Revision: max(n.sent, f.seen)}}:
	default:
	}
}
