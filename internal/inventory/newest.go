// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"context"
	"reflect"
	"strconv"

	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/storage"
	storeerrors "k8s.io/apiserver/pkg/storage/errors"
)

// Newest returns the object as it is stored now, shared with whoever watches the kind: it must not be changed. Where a Watch
// has delivered that very version, only the version's number is read from the store, and nothing is decoded; else it is a
// Get. So it is never older than the call, and what the caller wrote before is in it.
func (o *Objects[T]) Newest(ctx context.Context, ns, name string) (T, error) {
	if last, ok, err := o.newest(ctx, ns, name); ok || err != nil {
		return last, err
	}
	return o.Get(ctx, ns, name)
}

// newest answers the watched object if it is the stored one; ok is false where nobody watches, or the watch is behind. It
// says itself that an object is not there.
func (o *Objects[T]) newest(ctx context.Context, ns, name string) (last T, ok bool, err error) {
	var none T
	f := o.watched.Load()
	if f == nil {
		return none, false, nil
	}
	last, ok = f.last(types.NamespacedName{Namespace: ns, Name: name})
	key, err := o.key(ns, name)
	if err != nil {
		return none, false, err
	}
	found, err := o.etcd.Get(ctx, registry+key, clientv3.WithKeysOnly())
	if err != nil {
		return none, false, explain(storeerrors.InterpretGetError(err, o.kind.resource(), name))
	}
	if len(found.Kvs) == 0 {
		return none, false, storeerrors.InterpretGetError(storage.NewKeyNotFoundError(key, 0), o.kind.resource(), name)
	}
	if !ok || strconv.FormatInt(found.Kvs[0].ModRevision, 10) != last.GetResourceVersion() {
		return none, false, nil
	}
	return last, true, nil
}

// idle tries a change on the watched object, and answers a copy of it where that is the stored one and the change makes no
// difference: then there is nothing to read, to encode or to write.
func (o *Objects[T]) idle(ctx context.Context, ns, name string, change func(T) error) (T, bool) {
	var none T
	if !o.kind.custom {
		return none, false // an update of a Secret may put it under a newer key
	}
	last, ok, err := o.newest(ctx, ns, name)
	if err != nil || !ok {
		return none, false // Update meets the error itself
	}
	object := last.DeepCopyObject().(T)
	if err := change(object); err != nil || !same(object, last) {
		return none, false
	}
	return object, true
}

// same answers whether two objects would be stored as the same. The first look is the cheaper one, and nearly always right.
func same(a, b any) bool { return reflect.DeepEqual(a, b) || equality.Semantic.DeepEqual(a, b) }
