// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"sync"

	"metald.io/metald/internal/inventory"
)

// mirror is one kind of object in memory, kept up to date by its watch. It serves look-ups that must not read the disk
// (a boot answer) and tells who should be looked at again. Decisions that switch something read the store itself.
type mirror[T inventory.Object] struct {
	mu     sync.RWMutex
	items  map[string]T
	synced chan struct{}
	// changed is called after each change, without the lock; gone is true for a deletion.
	changed func(object T, gone bool)
}

func newMirror[T inventory.Object](changed func(T, bool)) *mirror[T] {
	return &mirror[T]{items: map[string]T{}, synced: make(chan struct{}), changed: changed}
}

// keyOf names an object inside its kind.
func keyOf(o inventory.Object) string {
	if o.GetNamespace() == "" {
		return o.GetName()
	}
	return o.GetNamespace() + "/" + o.GetName()
}

func (m *mirror[T]) run(ctx context.Context, objects *inventory.Objects[T]) error {
	var once sync.Once
	return objects.Watch(ctx, func(e inventory.Event[T]) {
		if e.Type == inventory.Synced {
			once.Do(func() { close(m.synced) })
			return
		}
		gone := e.Type == inventory.Deleted
		m.mu.Lock()
		if gone {
			delete(m.items, keyOf(e.Object))
		} else {
			m.items[keyOf(e.Object)] = e.Object
		}
		m.mu.Unlock()
		m.changed(e.Object, gone)
	})
}

// get answers a shared object: read it, never write it.
func (m *mirror[T]) get(key string) (T, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	o, ok := m.items[key]
	return o, ok
}

// all answers the shared objects, in no order.
func (m *mirror[T]) all() []T {
	m.mu.RLock()
	defer m.mu.RUnlock()
	list := make([]T, 0, len(m.items))
	for _, o := range m.items {
		list = append(list, o)
	}
	return list
}

// index finds hosts by evidence of who they are. One value may name two hosts: that is a conflict for the caller to see.
type index struct {
	mu     sync.RWMutex
	byWord map[string]map[string]bool // evidence -> host keys
	words  map[string][]string        // host key -> its evidence
}

func newIndex() *index {
	return &index{byWord: map[string]map[string]bool{}, words: map[string][]string{}}
}

// set replaces a host's evidence; empty words are left out.
func (x *index) set(key string, words ...string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, w := range x.words[key] {
		delete(x.byWord[w], key)
		if len(x.byWord[w]) == 0 {
			delete(x.byWord, w)
		}
	}
	delete(x.words, key)
	for _, w := range words {
		if w == "" {
			continue
		}
		if x.byWord[w] == nil {
			x.byWord[w] = map[string]bool{}
		}
		x.byWord[w][key] = true
		x.words[key] = append(x.words[key], w)
	}
}

// find answers the hosts that show this evidence.
func (x *index) find(word string) []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var keys []string
	for k := range x.byWord[word] {
		keys = append(keys, k)
	}
	return keys
}
