// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"errors"
	"net/http"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"

	"metald.io/metald/internal/inventory"
)

// fullReason is the reason of a refusal for want of room.
const fullReason metav1.StatusReason = "InsufficientStorage"

// fullStore says in HTTP's words that the inventory has no room, or that its etcd does not answer, where the stock store would
// answer with an internal error: a client may then wait, and a person knows what to do.
type fullStore struct{ storage.Interface }

// Create implements storage.Interface.
func (s fullStore) Create(ctx context.Context, key string, object, out runtime.Object, ttl uint64) error {
	return full(s.Interface.Create(ctx, key, object, out, ttl))
}

// Delete implements storage.Interface.
func (s fullStore) Delete(ctx context.Context, key string, out runtime.Object, preconditions *storage.Preconditions, validate storage.ValidateObjectFunc, cached runtime.Object, options storage.DeleteOptions) error {
	return full(s.Interface.Delete(ctx, key, out, preconditions, validate, cached, options))
}

// GuaranteedUpdate implements storage.Interface.
func (s fullStore) GuaranteedUpdate(ctx context.Context, key string, out runtime.Object, ignoreNotFound bool, preconditions *storage.Preconditions, update storage.UpdateFunc, cached runtime.Object) error {
	return full(s.Interface.GuaranteedUpdate(ctx, key, out, ignoreNotFound, preconditions, update, cached))
}

// Get implements storage.Interface.
func (s fullStore) Get(ctx context.Context, key string, options storage.GetOptions, out runtime.Object) error {
	return full(s.Interface.Get(ctx, key, options, out))
}

// GetList implements storage.Interface.
func (s fullStore) GetList(ctx context.Context, key string, options storage.ListOptions, out runtime.Object) error {
	return full(s.Interface.GetList(ctx, key, options, out))
}

// awaySeconds is when a client may ask again.
const awaySeconds = 2

func full(err error) error {
	switch {
	case errors.Is(err, rpctypes.ErrNoSpace), errors.Is(err, rpctypes.ErrGRPCNoSpace):
		return &apierrors.StatusError{ErrStatus: metav1.Status{
			Status: metav1.StatusFailure, Code: http.StatusInsufficientStorage, Reason: fullReason,
			Message: "the inventory has no room on its disk, so nothing was changed: make room in metald's data directory, or in its etcd, and try again",
		}}
	case errors.Is(err, inventory.ErrUnavailable):
		away := apierrors.NewServiceUnavailable(err.Error() + ": try again; a write may have been done")
		away.ErrStatus.Details = &metav1.StatusDetails{RetryAfterSeconds: awaySeconds}
		return away
	case errors.Is(err, rpctypes.ErrRequestTooLarge):
		return apierrors.NewRequestEntityTooLargeError("the object is larger than etcd takes (its --max-request-bytes)")
	}
	return err
}
