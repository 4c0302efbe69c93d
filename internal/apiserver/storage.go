// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"fmt"
	"sync"
	"time"

	"go.etcd.io/etcd/client/v3/kubernetes"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/cacher"
	"k8s.io/apiserver/pkg/storage/etcd3"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	"k8s.io/apiserver/pkg/storage/value"
	"k8s.io/apiserver/pkg/storage/value/encrypt/identity"
	flowcontrolrequest "k8s.io/apiserver/pkg/util/flowcontrol/request"
	"k8s.io/client-go/tools/cache"

	"metald.io/metald/internal/apiserver/shelf"
)

// storagePrefix is where every API object's key begins; the inventory's direct way uses the same keys.
const storagePrefix = "/registry"

// coreGroup stands for the group of core/v1 in keys, which has no name of its own: without it a key would hold an empty
// segment.
const coreGroup = "core"

// backend makes the stock store for each resource over one client that is already connected. The library's own factory
// dials an etcd by address; there is none to dial here.
type backend struct {
	client *kubernetes.Client
	codec  runtime.Codec
	seal   func(schema.GroupResource) value.Transformer
	counts flowcontrolrequest.StorageObjectCountTracker
}

// countEach is how often the objects of each kind are counted.
const countEach = time.Minute

// newBackend builds a backend whose objects go through codec, unless a resource brings its own.
func newBackend(config Config, codec runtime.Codec) *backend {
	k := &kubernetes.Client{Client: config.Etcd}
	k.Kubernetes = k
	seal := config.Transformer
	if seal == nil {
		seal = func(schema.GroupResource) value.Transformer { return identity.NewEncryptCheckTransformer() }
	}
	return &backend{client: k, codec: codec, seal: seal, counts: config.counts}
}

// GetRESTOptions implements generic.RESTOptionsGetter. The server for custom resources changes the configuration it
// gets, so each call makes a new one.
func (b *backend) GetRESTOptions(resource schema.GroupResource, _ runtime.Object) (generic.RESTOptions, error) {
	config := storagebackend.NewDefaultConfig(storagePrefix, b.codec)
	return generic.RESTOptions{
		StorageConfig:           config.ForResource(resource),
		Decorator:               b.decorate,
		EnableGarbageCollection: true,
		DeleteCollectionWorkers: 1,
		ResourcePrefix:          resourcePrefix(resource),
		// Priority and fairness gives a list seats by what there is to list.
		StorageObjectCountTracker: b.counts,
		CountMetricPollPeriod:     countEach,
	}, nil
}

// resourcePrefix is the part of a resource's keys below storagePrefix.
func resourcePrefix(resource schema.GroupResource) string {
	group := resource.Group
	if group == "" {
		group = coreGroup
	}
	return group + "/" + resource.Resource
}

// decorate implements generic.StorageDecorator: the stock store with a watch cache before it.
func (b *backend) decorate(
	config *storagebackend.ConfigForResource,
	prefix string,
	key func(runtime.Object) (string, error),
	newObject, newList func() runtime.Object,
	attributes storage.AttrFunc,
	triggers storage.IndexerFuncs,
	indexers *cache.Indexers,
) (storage.Interface, factory.DestroyFunc, error) {
	versioner := storage.APIObjectVersioner{}
	var opened []interface{ Close() }
	// No compactor: the inventory bounds its own history.
	open := func(codec runtime.Codec, newObject, newList func() runtime.Object) (storage.Interface, error) {
		store, err := etcd3.New(b.client, nil, codec, newObject, newList, config.Prefix, prefix, config.GroupResource,
			b.seal(config.GroupResource), config.LeaseManagerConfig, etcd3.NewDefaultDecoder(codec, versioner), versioner)
		if err != nil {
			return nil, fmt.Errorf("opening the store of %s: %w", config.GroupResource, err)
		}
		opened = append(opened, store)
		return fullStore{store}, nil
	}
	below, err := open(config.Codec, newObject, newList)
	if err != nil {
		return nil, nil, err
	}
	front, stop, err := b.cached(cacher.Config{
		Storage:             below,
		Versioner:           versioner,
		GroupResource:       config.GroupResource,
		EventsHistoryWindow: config.EventsHistoryWindow,
		ResourcePrefix:      prefix,
		KeyFunc:             key,
		NewFunc:             newObject,
		NewListFunc:         newList,
		GetAttrsFunc:        attributes,
		IndexerFuncs:        triggers,
		Indexers:            indexers,
		Codec:               config.Codec,
	}, open)
	closeAll := func() {
		for _, store := range opened {
			store.Close()
		}
	}
	if err != nil {
		closeAll()
		return nil, nil, fmt.Errorf("opening the watch cache of %s: %w", config.GroupResource, err)
	}
	var once sync.Once // a resource and its subresources share one store, and each of them destroys it
	return front, func() {
		once.Do(func() {
			stop()
			closeAll()
		})
	}, nil
}

// cached puts a watch cache before a store: custom resources are kept as JSON, what has Go types as that.
func (b *backend) cached(c cacher.Config, open func(runtime.Codec, func() runtime.Object, func() runtime.Object) (storage.Interface, error)) (storage.Interface, func(), error) {
	if _, custom := c.NewFunc().(*unstructured.Unstructured); custom && len(c.IndexerFuncs) == 0 && c.Indexers == nil {
		s, err := shelf.New(shelf.Config{Cache: c, Writer: c.Storage, Reader: open, KV: b.client.Client, Prefix: storagePrefix})
		if err != nil {
			return nil, nil, err
		}
		return s, s.Stop, nil
	}
	front, err := cacher.NewCacherFromConfig(c)
	if err != nil {
		return nil, nil, err
	}
	delegator := cacher.NewCacheDelegator(front, c.Storage)
	return delegator, func() {
		delegator.Stop()
		front.Stop()
	}, nil
}
