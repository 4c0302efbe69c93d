// SPDX-License-Identifier: Apache-2.0

package shelf

import (
	"context"
	"fmt"
	"path"
	"strconv"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/cacher"
)

// Config is what a Store is made of.
type Config struct {
	// Cache is the stock cache's configuration for the resource: its NewFunc makes *unstructured.Unstructured, and it has no
	// indexers.
	Cache cacher.Config
	// Writer is the stock store.
	Writer storage.Interface
	// Reader makes the same store with another codec and other objects in it.
	Reader func(runtime.Codec, func() runtime.Object, func() runtime.Object) (storage.Interface, error)
	// KV reads revisions; Prefix is before all keys.
	KV     clientv3.KV
	Prefix string
}

// Store is the storage of one resource.
type Store struct {
	storage.Interface // what writes
	cacher            *cacher.Cacher
	cache             *cacher.CacheDelegator
	kv                clientv3.KV
	prefix            string
	newObject         func() runtime.Object
	stop              sync.Once
}

// New makes a Store and begins to fill it.
func New(c Config) (*Store, error) {
	s := &Store{Interface: c.Writer, kv: c.KV, prefix: path.Join("/", c.Prefix), newObject: c.Cache.NewFunc}
	below := c.Cache
	packer := codec{stock: c.Cache.Codec, newObject: c.Cache.NewFunc, attributes: c.Cache.GetAttrsFunc}
	below.Codec, below.GetAttrsFunc = packer, attributes
	below.NewFunc = func() runtime.Object { return &Object{} }
	below.NewListFunc = func() runtime.Object { return &list{} }
	var err error
	if below.Storage, err = c.Reader(packer, below.NewFunc, below.NewListFunc); err != nil {
		return nil, err
	}
	if s.cacher, err = cacher.NewCacherFromConfig(below); err != nil {
		return nil, err
	}
	s.cache = cacher.NewCacheDelegator(s.cacher, below.Storage)
	return s, nil
}

// Stop ends the cache; the store that Reader made is its maker's to close.
func (s *Store) Stop() {
	s.stop.Do(func() {
		s.cache.Stop()
		s.cacher.Stop()
	})
}

// Get implements storage.Interface.
func (s *Store) Get(ctx context.Context, key string, opts storage.GetOptions, out runtime.Object) error {
	into, ok := out.(*unstructured.Unstructured)
	if !ok {
		return fmt.Errorf("reading %s into a %T", key, out)
	}
	o, err := s.find(ctx, key, opts)
	if err != nil {
		return err
	}
	if o.packed == nil { // not there, and that is no error
		into.Object = nil
		return nil
	}
	if a := answerOf(ctx); a != nil {
		a.take(o)
		into.SetAPIVersion(o.group.String())
		into.SetKind(o.Kind)
		return nil
	}
	return o.unpack(into)
}

// find reads one object. Whoever names no version is to see every write that was acknowledged: what the cache has will do
// where it has the newest revision of the key.
func (s *Store) find(ctx context.Context, key string, opts storage.GetOptions) (*Object, error) {
	if opts.ResourceVersion == "" && s.cache.ReadinessCheck() == nil {
		var o Object
		err := s.cache.Get(ctx, key, storage.GetOptions{ResourceVersion: "0", IgnoreNotFound: true}, &o)
		if err == nil && o.packed != nil {
			now, err := s.kv.Get(ctx, path.Join(s.prefix, key), clientv3.WithKeysOnly())
			if err == nil && len(now.Kvs) == 1 && strconv.FormatInt(now.Kvs[0].ModRevision, 10) == o.ResourceVersion {
				return &o, nil
			}
		}
	}
	var o Object
	return &o, s.cache.Get(ctx, key, opts, &o)
}

// GetList implements storage.Interface.
func (s *Store) GetList(ctx context.Context, key string, opts storage.ListOptions, out runtime.Object) error {
	into, ok := out.(*unstructured.UnstructuredList)
	if !ok {
		return fmt.Errorf("listing %s into a %T", key, out)
	}
	opts.Predicate.GetAttrs = attributes
	var found list
	if err := s.cache.GetList(ctx, key, opts, &found); err != nil {
		return err
	}
	about, err := meta.ListAccessor(into)
	if err != nil {
		return err
	}
	about.SetResourceVersion(found.ResourceVersion)
	about.SetContinue(found.Continue)
	about.SetRemainingItemCount(found.RemainingItemCount)
	if a := answerOf(ctx); a != nil {
		a.takeAll(found.Items)
		return nil
	}
	into.Items = make([]unstructured.Unstructured, len(found.Items))
	for i := range found.Items {
		if err := found.Items[i].unpack(&into.Items[i]); err != nil {
			return err
		}
	}
	return nil
}

// Watch implements storage.Interface.
func (s *Store) Watch(ctx context.Context, key string, opts storage.ListOptions) (watch.Interface, error) {
	opts.Predicate.GetAttrs = attributes
	below, err := s.cache.Watch(ctx, key, opts)
	if err != nil {
		return nil, err
	}
	w := &watcher{Interface: below, events: make(chan watch.Event), stopped: make(chan struct{}), newObject: s.newObject}
	go w.run()
	return w, nil
}

// ReadinessCheck implements storage.Interface.
func (s *Store) ReadinessCheck() error { return s.cache.ReadinessCheck() }

// Stats implements storage.Interface.
func (s *Store) Stats(ctx context.Context) (storage.Stats, error) { return s.cache.Stats(ctx) }

// EnableResourceSizeEstimation implements storage.Interface.
func (s *Store) EnableResourceSizeEstimation(keys storage.KeysFunc) error {
	return s.cache.EnableResourceSizeEstimation(keys)
}

// watcher hands on events in words that the handlers know.
type watcher struct {
	watch.Interface
	events    chan watch.Event
	stopped   chan struct{}
	once      sync.Once
	newObject func() runtime.Object
}

// ResultChan implements watch.Interface.
func (w *watcher) ResultChan() <-chan watch.Event { return w.events }

// Stop implements watch.Interface.
func (w *watcher) Stop() {
	w.once.Do(func() { close(w.stopped) })
	w.Interface.Stop()
}

func (w *watcher) run() {
	defer close(w.events)
	for e := range w.Interface.ResultChan() {
		if shared, ok := e.Object.(runtime.CacheableObject); ok {
			if _, own := shared.(*Object); !own {
				e.Object = shared.GetObject() // the stock cache's, for many watchers: what is in it is encoded already
			}
		}
		if o, ok := e.Object.(*Object); ok && o.packed == nil {
			e.Object = w.bookmark(o)
		}
		select {
		case w.events <- e:
		case <-w.stopped:
			return
		}
	}
}

// bookmark is an object that is nothing but a version and, at the end of the first events, an annotation that says so.
func (w *watcher) bookmark(o *Object) runtime.Object {
	empty := w.newObject().(*unstructured.Unstructured)
	empty.SetResourceVersion(o.ResourceVersion)
	if len(o.Annotations) > 0 {
		empty.SetAnnotations(o.Annotations)
	}
	return empty
}
