// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/storage"
)

// EventType says what happened to an object.
type EventType string

// The types of an Event.
const (
	Added    EventType = "Added"
	Modified EventType = "Modified"
	Deleted  EventType = "Deleted"
	// Synced comes once, after the objects that were there at the start; its Object is nil.
	Synced EventType = "Synced"
)

// Event is one change. Object is shared with the watch that delivered it and must not be changed; for Deleted it is the
// last that was seen of it.
type Event[T Object] struct {
	Type   EventType
	Object T
}

// relistDelay is the pause before a watch that broke lists again.
const relistDelay = time.Second

// errExpired ends a watch that fell behind the history: the answer is to list again.
var errExpired = errors.New("watch fell behind")

// Watch calls handle, one call at a time, for each object that is there and then for each change, until ctx ends, and
// returns nil then. It lists again where the history does not reach back far enough, and tells then what changed and what
// went meanwhile: a handler may miss steps between, never the outcome. It returns an error only when the store is closed.
func (o *Objects[T]) Watch(ctx context.Context, handle func(Event[T])) error {
	f := &followed[T]{objects: o, handle: handle, known: map[types.NamespacedName]T{}}
	if o.watched.CompareAndSwap(nil, f) { // of several the first: each would do
		defer o.watched.CompareAndSwap(f, nil)
	}
	for {
		err := f.round(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, ErrClosed):
			return fmt.Errorf("watching %s: %w", o.kind.plural, err)
		case errors.Is(err, errExpired):
			continue
		case err != nil:
			o.logger.Warn("watching the inventory", "kind", o.kind.kind, "err", err)
		}
		select {
		case <-time.After(relistDelay):
		case <-ctx.Done():
			return nil
		}
	}
}

// followed is what one Watch knows.
type followed[T Object] struct {
	objects *Objects[T]
	handle  func(Event[T])
	synced  bool

	mu    sync.RWMutex // known is written by the watch alone, and read by Newest
	known map[types.NamespacedName]T
}

// last is what was seen of an object last.
func (f *followed[T]) last(name types.NamespacedName) (T, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	object, known := f.known[name]
	return object, known
}

// round lists, tells the difference to what is known, and follows until the watch breaks.
func (f *followed[T]) round(ctx context.Context) error {
	list, err := f.objects.list(ctx, "")
	if err != nil {
		return err
	}
	there := make(map[types.NamespacedName]bool, len(list.Items))
	for i := range list.Items {
		there[nameOf(list.Items[i].object)] = true
	}
	for name, last := range f.known {
		if !there[name] {
			f.gone(last)
		}
	}
	for i := range list.Items {
		f.here(list.Items[i].object)
	}
	if !f.synced {
		f.synced = true
		f.handle(Event[T]{Type: Synced})
	}

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := f.objects.store.Watch(ctx, f.objects.kind.prefix()+"/", storage.ListOptions{
		ResourceVersion: list.ResourceVersion, Recursive: true, Predicate: storage.Everything,
	})
	if err != nil {
		return explain(err)
	}
	defer w.Stop()
	for ev := range w.ResultChan() {
		switch ev.Type {
		case watch.Added, watch.Modified:
			f.here(ev.Object.(*record[T]).object)
		case watch.Deleted:
			f.gone(ev.Object.(*record[T]).object)
		case watch.Error:
			err := apierrors.FromObject(ev.Object)
			if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
				return errExpired
			}
			return err
		}
	}
	return errors.New("watch ended")
}

func (f *followed[T]) here(object T) {
	name := nameOf(object)
	last, known := f.known[name]
	if known && last.GetUID() != object.GetUID() {
		f.gone(last)
		known = false
	}
	if known && last.GetResourceVersion() == object.GetResourceVersion() {
		return
	}
	f.mu.Lock()
	f.known[name] = object
	f.mu.Unlock()
	if known {
		f.handle(Event[T]{Modified, object})
		return
	}
	f.handle(Event[T]{Added, object})
}

func (f *followed[T]) gone(object T) {
	name := nameOf(object)
	if _, known := f.known[name]; !known {
		return
	}
	f.mu.Lock()
	delete(f.known, name)
	f.mu.Unlock()
	f.handle(Event[T]{Deleted, object})
}

func nameOf(object Object) types.NamespacedName {
	return types.NamespacedName{Namespace: object.GetNamespace(), Name: object.GetName()}
}
