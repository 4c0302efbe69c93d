// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"metald.io/metald/internal/inventory"
)

// companion answers the object that goes with a host, made new where it is missing or belongs to an earlier host. It is shared
// and must not be changed.
func companion[T inventory.Object](ctx context.Context, objects *inventory.Objects[T], host types.UID, ns, name string, fresh func() T) (T, error) {
	o, err := objects.Newest(ctx, ns, name)
	if err == nil && ownedBy(o, host) {
		return o, nil
	}
	if err == nil {
		if err := objects.Delete(ctx, ns, name); err != nil && !apierrors.IsNotFound(err) {
			return o, err
		}
	} else if !apierrors.IsNotFound(err) {
		return o, err
	}
	return objects.Create(ctx, fresh())
}

// remove deletes an object; one that is gone already is fine.
func remove[T inventory.Object](ctx context.Context, objects *inventory.Objects[T], ns, name string) error {
	if err := objects.Delete(ctx, ns, name); err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	return nil
}

// sweepAway removes what a host that is gone has left behind.
func (m *Mind) sweepAway(ctx context.Context, ns, name string) error {
	if err := remove(ctx, m.Store.Progresses(), ns, name); err != nil {
		return err
	}
	if err := m.Store.Records(sessionBucket).Delete(ctx, ns+"/"+name); err != nil {
		return err
	}
	if err := remove(ctx, m.Store.HardwareData(), ns, name); err != nil {
		return err
	}
	return remove(ctx, m.Store.Inventories(), ns, name)
}
