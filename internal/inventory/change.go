// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"
	storeerrors "k8s.io/apiserver/pkg/storage/errors"

	"metald.io/metald/internal/inventory/audit"
)

// errEmptied says that an update took the last finalizer of an object that is being deleted.
var errEmptied = errors.New("the last finalizer is gone")

// Update lets change alter a fresh copy and stores it if nobody else wrote meanwhile; otherwise it starts over, so change
// may be called several times. An error of change ends it and is returned as it is. What is not changed is not written. A
// change of anything but metadata and status raises the generation of a custom kind. When the object is being deleted and
// change takes its last finalizer, the object goes. Update returns the object as it is now, or was last.
func (o *Objects[T]) Update(ctx context.Context, ns, name string, change func(T) error) (T, error) {
	var none T
	key, err := o.key(ns, name)
	if err != nil {
		return none, err
	}
	if act := saidIn(ctx).act; act != nil && act.Phase == audit.Intent {
		if err := Guarded(ctx); err != nil {
			return none, err
		}
	}
	if unchanged, ok := o.idle(ctx, ns, name, change); ok {
		return unchanged, nil
	}
	for {
		var last T
		var out record[T]
		err := o.store.GuaranteedUpdate(ctx, key, &out, false, nil, func(input runtime.Object, meta storage.ResponseMeta) (runtime.Object, *uint64, error) {
			r := input.(*record[T])
			emptied, err := o.change(ctx, r, change)
			if err != nil {
				return nil, nil, err
			}
			if emptied {
				last = r.object
				last.SetResourceVersion(fmt.Sprint(meta.ResourceVersion))
				return nil, nil, errEmptied
			}
			ttl := o.ttl()
			return r, &ttl, nil
		}, nil)
		if err == nil {
			return out.object, nil
		}
		if !errors.Is(err, errEmptied) {
			return none, explain(storeerrors.InterpretUpdateError(err, o.kind.resource(), name))
		}
		uid, version := last.GetUID(), last.GetResourceVersion()
		err = o.store.Delete(ctx, key, &out, &storage.Preconditions{UID: &uid, ResourceVersion: &version}, storage.ValidateAllObjectFunc, nil, storage.DeleteOptions{})
		switch {
		case err == nil || storage.IsNotFound(err):
			return last, nil
		case storage.IsConflict(err) || storage.IsInvalidObj(err):
			continue
		}
		return none, explain(storeerrors.InterpretDeleteError(err, o.kind.resource(), name))
	}
}

// change applies the caller's change to r, keeps what is not the caller's to change, and does the store's own bookkeeping.
func (o *Objects[T]) change(ctx context.Context, r *record[T], change func(T) error) (emptied bool, err error) {
	obj := r.object
	version := obj.GetResourceVersion()
	obj.SetResourceVersion("")
	before, err := tree(obj)
	if err != nil {
		return false, err
	}
	fixed := obj.DeepCopyObject().(T)
	obj.SetResourceVersion(version)
	if err := change(obj); err != nil {
		return false, err
	}
	if o.prepare != nil {
		o.prepare(obj)
	}
	obj.SetResourceVersion("")
	obj.SetNamespace(fixed.GetNamespace())
	obj.SetName(fixed.GetName())
	obj.SetUID(fixed.GetUID())
	obj.SetCreationTimestamp(fixed.GetCreationTimestamp())
	obj.SetDeletionTimestamp(fixed.GetDeletionTimestamp())
	obj.SetGeneration(fixed.GetGeneration())
	obj.SetManagedFields(fixed.GetManagedFields())
	obj.GetObjectKind().SetGroupVersionKind(o.kind.group.WithKind(o.kind.kind))
	after, err := tree(obj)
	if err != nil {
		return false, err
	}
	if reflect.DeepEqual(before, after) {
		r.same = true
		return false, nil
	}
	if obj.GetDeletionTimestamp() != nil && len(obj.GetFinalizers()) == 0 && len(fixed.GetFinalizers()) > 0 {
		return true, nil
	}
	if o.kind.custom && !reflect.DeepEqual(wish(before), wish(after)) {
		obj.SetGeneration(fixed.GetGeneration() + 1)
	}
	return false, own(ctx, obj, o.kind.group.String(), before, after, o.now())
}

// wish is the part of an object whose changes are counted.
func wish(object map[string]any) map[string]any {
	fields := map[string]any{}
	for key, value := range object {
		if key != "metadata" && key != "status" {
			fields[key] = value
		}
	}
	return fields
}

// Delete removes an object, or marks it as being deleted while it has finalizers. Deleting what is not there is IsNotFound.
func (o *Objects[T]) Delete(ctx context.Context, ns, name string) error {
	key, err := o.key(ns, name)
	if err != nil {
		return err
	}
	for {
		var out record[T]
		err := o.store.Delete(ctx, key, &out, nil, func(_ context.Context, obj runtime.Object) error {
			if len(obj.(*record[T]).object.GetFinalizers()) > 0 {
				return errFinalizers
			}
			return nil
		}, nil, storage.DeleteOptions{})
		if !errors.Is(err, errFinalizers) {
			return explain(storeerrors.InterpretDeleteError(err, o.kind.resource(), name))
		}
		err = o.store.GuaranteedUpdate(ctx, key, &out, false, nil, storage.SimpleUpdate(func(obj runtime.Object) (runtime.Object, error) {
			r := obj.(*record[T])
			switch {
			case len(r.object.GetFinalizers()) == 0:
				return nil, errEmptied
			case r.object.GetDeletionTimestamp() != nil:
				r.same = true
				return r, nil
			}
			now, grace := metav1.NewTime(o.now()), int64(0)
			r.object.SetDeletionTimestamp(&now)
			r.object.SetDeletionGracePeriodSeconds(&grace)
			if o.kind.custom {
				r.object.SetGeneration(r.object.GetGeneration() + 1)
			}
			return r, nil
		}), nil)
		if !errors.Is(err, errEmptied) {
			return explain(storeerrors.InterpretUpdateError(err, o.kind.resource(), name))
		}
	}
}

var errFinalizers = errors.New("the object has finalizers")
