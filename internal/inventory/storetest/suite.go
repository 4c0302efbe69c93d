// SPDX-License-Identifier: Apache-2.0

// Package storetest is the suite that every store passes: Kubernetes' own conformance tests of storage.Interface, run on
// the stock etcd3 store over the client under test. A store that passes cannot be told from etcd by apiserver.
//
// The package must not know which store it tests.
//
// upstream_test.go holds that nothing of upstream is left out without a reason.
//
// Start reading at Run; setup in suite.go builds the store and the hooks that upstream's tests ask for.
package storetest

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"k8s.io/apimachinery/pkg/api/apitesting"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apiserver/pkg/apis/example"
	examplev1 "k8s.io/apiserver/pkg/apis/example/v1"
	"k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/etcd3"
	upstream "k8s.io/apiserver/pkg/storage/testing"
	"k8s.io/apiserver/pkg/storage/value"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/component-base/featuregate"
	featuregatetesting "k8s.io/component-base/featuregate/testing"
	"k8s.io/utils/clock"
)

// Opener returns the client of a new, empty store, which ends with the test. Idle watches of the store tell their progress
// at least every few seconds.
type Opener func(t testing.TB) *clientv3.Client

// pods is the resource of upstream's tests.
var pods = schema.GroupResource{Resource: "pods"}

// valuePrefix marks what went through the transformer.
const valuePrefix = "test!"

// pageLimit is the most that the stock store asks for in one page.
const pageLimit = 10000

var scheme = runtime.NewScheme()

func init() {
	metav1.AddToGroupVersion(scheme, metav1.SchemeGroupVersion)
	utilruntime.Must(example.AddToScheme(scheme))
	utilruntime.Must(examplev1.AddToScheme(scheme))
}

// fixture is one store under test with its hooks.
type fixture struct {
	storage.Interface
	client      *kubernetes.Client
	lists       *upstream.KubernetesRecorder
	calls       *upstream.KVRecorder
	codec       *faultyCodec
	transformer *swapped
	compactor   interface{ CompactRevision() int64 }
}

// setup opens a store and puts the stock store, with recorders, on it.
func setup(t *testing.T, open Opener) *fixture {
	client := &kubernetes.Client{Client: open(t)}
	client.Kubernetes = client
	f := &fixture{client: client, transformer: &swapped{}}
	f.lists = upstream.NewKubernetesRecorder(client.Kubernetes)
	f.calls = upstream.NewKVRecorder(client.KV, f.lists)
	client.KV, client.Kubernetes = f.calls, f.lists
	f.transformer.now.Store(&transformer{upstream.NewPrefixTransformer([]byte(valuePrefix), false)})
	f.codec = &faultyCodec{Codec: apitesting.TestCodec(serializer.NewCodecFactory(scheme), examplev1.SchemeGroupVersion)}

	compactor := etcd3.NewCompactor(client.Client, 0, clock.RealClock{}, nil)
	t.Cleanup(compactor.Stop)
	f.compactor = compactor
	leases := etcd3.NewDefaultLeaseManagerConfig()
	leases.ReuseDurationSeconds = 1 // upstream's tests wait for an expiry
	versioner := storage.APIObjectVersioner{}
	store, err := etcd3.New(client, compactor, f.codec,
		func() runtime.Object { return &example.Pod{} }, func() runtime.Object { return &example.PodList{} },
		"", "/pods/", pods, f.transformer, leases, etcd3.NewDefaultDecoder(f.codec, versioner), versioner)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	f.Interface = store
	return f
}

// swapped is a transformer that a test exchanges while the store runs.
type swapped struct{ now atomic.Pointer[transformer] }

type transformer struct{ value.Transformer }

func (s *swapped) TransformFromStorage(ctx context.Context, data []byte, dataCtx value.Context) ([]byte, bool, error) {
	return s.now.Load().TransformFromStorage(ctx, data, dataCtx)
}

func (s *swapped) TransformToStorage(ctx context.Context, data []byte, dataCtx value.Context) ([]byte, error) {
	return s.now.Load().TransformToStorage(ctx, data, dataCtx)
}

// UpdatePrefixTransformer is asked for by upstream's tests.
func (f *fixture) UpdatePrefixTransformer(modify upstream.PrefixTransformerModifier) func() {
	return f.UpdateTransformer(func(old value.Transformer) value.Transformer {
		copied := *old.(*upstream.PrefixTransformer)
		return modify(&copied)
	})
}

// UpdateTransformer is asked for by upstream's tests.
func (f *fixture) UpdateTransformer(modify upstream.TransformerModifier) func() {
	old := f.transformer.now.Load()
	f.transformer.now.Store(&transformer{modify(old.Transformer)})
	return func() { f.transformer.now.Store(old) }
}

// faultyCodec makes reading fail on demand.
type faultyCodec struct {
	runtime.Codec
	failing atomic.Bool
}

func (c *faultyCodec) Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	if c.failing.Load() {
		return nil, nil, errFault
	}
	return c.Codec.Decode(data, defaults, into)
}

type faultyTransformer struct {
	value.Transformer
	failing atomic.Bool
}

func (f *faultyTransformer) TransformFromStorage(ctx context.Context, data []byte, dataCtx value.Context) ([]byte, bool, error) {
	if f.failing.Load() {
		return nil, false, errFault
	}
	return f.Transformer.TransformFromStorage(ctx, data, dataCtx)
}

type fault string

func (f fault) Error() string { return string(f) }

const errFault = fault("made to fail")

// corrupt is the stock store's own error for a value that it cannot read.
func corrupt(t *testing.T) error {
	broken := &faultyTransformer{Transformer: upstream.NewPrefixTransformer(nil, false)}
	broken.failing.Store(true)
	_, _, err := etcd3.WithCorruptObjErrorHandlingTransformer(broken).TransformFromStorage(t.Context(), nil, value.DefaultContext(nil))
	if err == nil {
		t.Fatal("the stock store's transformer hid an error")
	}
	return err
}

// stored checks what lies under a key.
func (f *fixture) stored(ctx context.Context, t *testing.T, key string) {
	resp, err := f.client.KV.Get(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Kvs) == 0 {
		t.Fatalf("nothing is stored under %s", key)
	}
	obj, err := runtime.Decode(f.codec, resp.Kvs[0].Value[len(valuePrefix):])
	if err != nil {
		t.Fatalf("decoding what is stored under %s: %v", key, err)
	}
	if pod := obj.(*example.Pod); pod.ResourceVersion != "" {
		t.Errorf("stored with resourceVersion %q, want none", pod.ResourceVersion)
	}
}

// compact compacts as apiserver does, and waits until the stock store has heard of it.
func (f *fixture) compact(ctx context.Context, t *testing.T, resourceVersion string) {
	parsed, err := storage.APIObjectVersioner{}.ParseResourceVersion(resourceVersion)
	if err != nil {
		t.Fatal(err)
	}
	rev := int64(parsed)
	version, _, _, err := etcd3.Compact(ctx, f.client.Client, 0, rev)
	if err == nil && version != 1 {
		// It was compacted before: the first call only told the version of the note about it.
		_, _, _, err = etcd3.Compact(ctx, f.client.Client, version, rev)
	}
	if err != nil {
		t.Fatal(err)
	}
	for utilfeature.DefaultFeatureGate.Enabled(features.ListFromCacheSnapshot) && f.compactor.CompactRevision() != rev {
		time.Sleep(20 * time.Millisecond)
		if ctx.Err() != nil {
			t.Fatal(ctx.Err())
		}
	}
}

func (f *fixture) raise(ctx context.Context, t *testing.T) int64 {
	resp, err := f.client.KV.Put(ctx, "raise", "1")
	if err != nil {
		t.Fatal(err)
	}
	return resp.Header.Revision
}

// frugal checks that a paged list read no more than it had to: one object per object processed, in doubling pages.
func (f *fixture) frugal(t *testing.T, pageSize, processed uint64) {
	if got := f.transformer.now.Load().Transformer.(*upstream.PrefixTransformer).GetReadsAndReset(); got != processed {
		t.Errorf("read %d objects, want %d", got, processed)
	}
	calls := uint64(1)
	if limit := pageSize; limit != 0 {
		for sum := uint64(1); sum < processed; calls++ {
			limit = min(limit*2, pageLimit)
			sum += limit
		}
	}
	if got := f.calls.GetReadsAndReset() + f.calls.GetStreamReadsAndReset(); got != calls {
		t.Fatalf("made %d calls, want %d", got, calls)
	}
}

// keys lists the keys of all pods.
func (f *fixture) keys(ctx context.Context) ([]string, error) {
	resp, err := f.client.KV.Get(ctx, "/pods/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return nil, err
	}
	keys := make([]string, len(resp.Kvs))
	for i, kv := range resp.Kvs {
		keys[i] = string(kv.Key)
	}
	return keys, nil
}

// gate sets a feature gate for the length of a test.
func gate(t *testing.T, name featuregate.Feature, on bool) {
	featuregatetesting.SetFeatureGateDuringTest(t, utilfeature.DefaultFeatureGate, name, on)
}
