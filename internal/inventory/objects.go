// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validate/content"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apiserver/pkg/storage"
	storeerrors "k8s.io/apiserver/pkg/storage/errors"
	"k8s.io/apiserver/pkg/storage/etcd3"
	"k8s.io/apiserver/pkg/storage/names"
)

// registry is the first part of every key, as in apiserver.
const registry = "/registry"

// Object is a Kubernetes object.
type Object interface {
	runtime.Object
	metav1.Object
}

// Objects are all objects of one kind: the direct way to what the users' door serves. Nothing validates here; the caller
// writes what the door would accept. Errors are apierrors where the door has them (IsNotFound, IsAlreadyExists), and wrap
// ErrFull and ErrClosed where the store cannot take a write.
type Objects[T Object] struct {
	kind    kind
	codec   codec[T]
	store   storage.Interface
	now     func() time.Time
	logger  *slog.Logger
	prepare func(T) // what the door does to an object on its way in; may be nil
	etcd    *clientv3.Client
	watched atomic.Pointer[followed[T]] // a Watch that is under way; nil where there is none
}

// opener carries the first error of a row of calls to objects.
type opener struct {
	store *Store
	err   error
}

func objects[T Object](o *opener, k kind, make func() T) *Objects[T] {
	c := codec[T]{kind: k, make: make}
	client := &kubernetes.Client{Client: o.store.Etcd()}
	client.Kubernetes = client
	versioner := storage.APIObjectVersioner{}
	store, err := etcd3.New(client, nil, c,
		func() runtime.Object { return &record[T]{object: make()} },
		func() runtime.Object { return &recordList[T]{} },
		registry, k.prefix(), k.resource(), o.store.sealer.of(k.resource()),
		etcd3.NewDefaultLeaseManagerConfig(), etcd3.NewDefaultDecoder(c, versioner), versioner)
	if err != nil && o.err == nil {
		o.err = fmt.Errorf("making the store of %s: %w", k.plural, err)
	}
	return &Objects[T]{kind: k, codec: c, store: store, now: o.store.now, logger: o.store.logger, etcd: client.Client}
}

func (o *Objects[T]) key(ns, name string) (string, error) {
	if (ns != "") != o.kind.namespaced {
		return "", apierrors.NewBadRequest(fmt.Sprintf("namespace %q for %s %q", ns, o.kind.kind, name))
	}
	for _, part := range []string{ns, name} {
		if bad := content.IsPathSegmentName(part); len(bad) > 0 {
			return "", apierrors.NewBadRequest(fmt.Sprintf("name %q %s", part, bad[0]))
		}
	}
	if name == "" {
		return "", apierrors.NewBadRequest(o.kind.kind + " without a name")
	}
	if ns == "" {
		return o.kind.prefix() + "/" + name, nil
	}
	return o.kind.prefix() + "/" + ns + "/" + name, nil
}

// Get returns a copy that is the caller's.
func (o *Objects[T]) Get(ctx context.Context, ns, name string) (T, error) {
	var none T
	key, err := o.key(ns, name)
	if err != nil {
		return none, err
	}
	var r record[T]
	if err := o.store.Get(ctx, key, storage.GetOptions{}, &r); err != nil {
		return none, explain(storeerrors.InterpretGetError(err, o.kind.resource(), name))
	}
	return r.object, nil
}

// List returns copies of the objects of a namespace, or of all where ns is "", in the order of their keys.
func (o *Objects[T]) List(ctx context.Context, ns string) ([]T, error) {
	list, err := o.list(ctx, ns)
	if err != nil {
		return nil, err
	}
	found := make([]T, len(list.Items))
	for i := range list.Items {
		found[i] = list.Items[i].object
	}
	return found, nil
}

func (o *Objects[T]) list(ctx context.Context, ns string) (*recordList[T], error) {
	prefix := o.kind.prefix() + "/"
	if ns != "" {
		if bad := content.IsPathSegmentName(ns); len(bad) > 0 || !o.kind.namespaced {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("namespace %q for %s", ns, o.kind.plural))
		}
		prefix += ns + "/"
	}
	var list recordList[T]
	err := o.store.GetList(ctx, prefix, storage.ListOptions{Recursive: true, Predicate: storage.Everything}, &list)
	if err != nil {
		return nil, explain(storeerrors.InterpretListError(err, o.kind.resource()))
	}
	return &list, nil
}

// Create stores a copy of obj with a new UID, the time and, for custom kinds, generation 1, and returns it. With a
// GenerateName and no Name it makes up the name.
func (o *Objects[T]) Create(ctx context.Context, obj T) (T, error) {
	var none T
	obj = obj.DeepCopyObject().(T)
	if obj.GetName() == "" && obj.GetGenerateName() != "" {
		obj.SetName(names.SimpleNameGenerator.GenerateName(obj.GetGenerateName()))
	}
	key, err := o.key(obj.GetNamespace(), obj.GetName())
	if err != nil {
		return none, err
	}
	if o.prepare != nil {
		o.prepare(obj)
	}
	now := o.now()
	obj.SetUID(uuid.NewUUID())
	obj.SetCreationTimestamp(metav1.NewTime(now))
	obj.SetDeletionTimestamp(nil)
	obj.SetManagedFields(nil)
	obj.SetGeneration(0)
	if o.kind.custom {
		obj.SetGeneration(1)
	}
	after, err := tree(obj)
	if err == nil {
		err = own(ctx, obj, o.kind.group.String(), nil, after, now)
	}
	if err != nil {
		return none, fmt.Errorf("creating %s %s: %w", o.kind.kind, obj.GetName(), err)
	}
	var out record[T]
	if err := o.store.Create(ctx, key, &record[T]{object: obj}, &out, o.ttl()); err != nil {
		return none, explain(storeerrors.InterpretCreateError(err, o.kind.resource(), obj.GetName()))
	}
	return out.object, nil
}

func (o *Objects[T]) ttl() uint64 { return uint64(o.kind.life / time.Second) }

// explain turns etcd's words back into the store's own.
func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, rpctypes.ErrNoSpace):
		return fmt.Errorf("%w: %w", ErrFull, err)
	case errors.Is(err, ErrUnavailable):
		return err // etcd comes back
	case status.Code(err) == codes.DataLoss:
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	case status.Code(err) == codes.Unavailable:
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
	return err
}
