// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"sort"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// eventOverhead is what an event costs beside its keys and values.
const eventOverhead = 400

// history holds the newest events, oldest first. It forgets from the old end when it grows past its limit. An event is
// immutable once it is in: watchers share it.
type history struct {
	events []*mvccpb.Event
	// compacted is the newest revision whose events may be missing. A read at it is answered, an older one is not.
	compacted int64
	size      int
	limit     int
}

func (h *history) add(events []*mvccpb.Event) {
	for _, ev := range events {
		h.size += eventSize(ev)
	}
	h.events = append(h.events, events...)
	if h.size <= h.limit {
		return
	}
	// Forget an eighth more than needed, so that the shift below is rare.
	rev, size := h.compacted, h.size
	for _, ev := range h.events {
		// Events of one revision go together, and the newest revision always stays.
		if ev.Kv.ModRevision != rev && (size <= h.limit*7/8 || ev.Kv.ModRevision == h.newest()) {
			break
		}
		rev = ev.Kv.ModRevision
		size -= eventSize(ev)
	}
	h.compact(rev)
}

// compact forgets the events up to and with rev.
func (h *history) compact(rev int64) {
	if rev <= h.compacted {
		return
	}
	n := h.after(rev)
	for _, ev := range h.events[:n] {
		h.size -= eventSize(ev)
	}
	// A new array lets go of the old events; a reader may hold the old one for as long as it sends.
	h.events = append(make([]*mvccpb.Event, 0, len(h.events)-n+64), h.events[n:]...)
	h.compacted = rev
}

func (h *history) newest() int64 {
	if len(h.events) == 0 {
		return h.compacted
	}
	return h.events[len(h.events)-1].Kv.ModRevision
}

// after returns the index of the first event younger than rev.
func (h *history) after(rev int64) int {
	return sort.Search(len(h.events), func(i int) bool { return h.events[i].Kv.ModRevision > rev })
}

// undo returns what the keys of r were at revision rev, for those that changed in (rev, upTo]; nil is a key that was not
// there.
func (h *history) undo(r keyRange, rev, upTo int64) map[string]*mvccpb.KeyValue {
	old := map[string]*mvccpb.KeyValue{}
	for _, ev := range h.events[h.after(rev):] {
		if ev.Kv.ModRevision > upTo {
			break
		}
		if !r.has(ev.Kv.Key) {
			continue
		}
		if _, seen := old[string(ev.Kv.Key)]; !seen {
			old[string(ev.Kv.Key)] = ev.PrevKv
		}
	}
	return old
}

// chunk returns the events from revision next on, whole revisions only, about max of them, and the first revision that it has
// not looked at. They are the history's own: read only.
func (h *history) chunk(next int64, max int) ([]*mvccpb.Event, int64) {
	events := h.events[h.after(next-1):]
	if len(events) <= max {
		return events[:len(events):len(events)], h.newest() + 1
	}
	n := max
	for n < len(events) && events[n].Kv.ModRevision == events[n-1].Kv.ModRevision {
		n++
	}
	if n == len(events) {
		return events[:n:n], h.newest() + 1
	}
	return events[:n:n], events[n].Kv.ModRevision
}

func eventSize(ev *mvccpb.Event) int {
	n := eventOverhead + len(ev.Kv.Key) + len(ev.Kv.Value)
	if ev.PrevKv != nil {
		n += len(ev.PrevKv.Value)
	}
	return n
}

// keyRange is etcd's: an empty end means the one key, end "\x00" everything from key on, otherwise [key, end).
type keyRange struct{ key, end []byte }

func (r keyRange) single() bool { return len(r.end) == 0 }

func (r keyRange) open() bool { return len(r.end) == 1 && r.end[0] == 0 }

func (r keyRange) has(key []byte) bool {
	if r.single() {
		return bytes.Equal(key, r.key)
	}
	return bytes.Compare(key, r.key) >= 0 && (r.open() || bytes.Compare(key, r.end) < 0)
}
