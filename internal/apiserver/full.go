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
)

// fullReason is the reason of a refusal for want of room.
const fullReason metav1.StatusReason = "InsufficientStorage"

// fullStore says in HTTP's words that the inventory's disk is full, where the stock store would answer with an internal
// error: a client may then wait for room, and a person knows what to do.
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

func full(err error) error {
	if !errors.Is(err, rpctypes.ErrNoSpace) && !errors.Is(err, rpctypes.ErrGRPCNoSpace) {
		return err
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusInsufficientStorage, Reason: fullReason,
		Message: "the disk of metald's data directory is full, so nothing was changed: make room and try again",
	}}
}
