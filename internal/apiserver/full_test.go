// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"

	"metald.io/metald/internal/inventory"
)

// broken is a store whose writes fail with err.
type broken struct {
	storage.Interface
	err error
}

func (b broken) Create(context.Context, string, runtime.Object, runtime.Object, uint64) error {
	return b.err
}

func (b broken) Delete(context.Context, string, runtime.Object, *storage.Preconditions, storage.ValidateObjectFunc, runtime.Object, storage.DeleteOptions) error {
	return b.err
}

func (b broken) GuaranteedUpdate(context.Context, string, runtime.Object, bool, *storage.Preconditions, storage.UpdateFunc, runtime.Object) error {
	return b.err
}

func (b broken) Get(context.Context, string, storage.GetOptions, runtime.Object) error { return b.err }

func (b broken) GetList(context.Context, string, storage.ListOptions, runtime.Object) error {
	return b.err
}

func TestFullDisk(t *testing.T) {
	other := errors.New("another error")
	for name, test := range map[string]struct {
		err  error
		want int32 // HTTP status; 0 for an error that is handed on as it is
	}{
		"as the client says it":  {rpctypes.ErrNoSpace, 507},
		"as the wire says it":    {rpctypes.ErrGRPCNoSpace, 507},
		"etcd does not answer":   {fmt.Errorf("%w: no leader", inventory.ErrUnavailable), 503},
		"larger than etcd takes": {rpctypes.ErrRequestTooLarge, 413},
		"another error":          {other, 0},
		"no error":               {nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := fullStore{broken{err: test.err}}
			for write, got := range map[string]error{
				"create": s.Create(t.Context(), "", nil, nil, 0),
				"delete": s.Delete(t.Context(), "", nil, nil, nil, nil, storage.DeleteOptions{}),
				"read":   s.Get(t.Context(), "", storage.GetOptions{}, nil),
				"list":   s.GetList(t.Context(), "", storage.ListOptions{}, nil),
				"update": s.GuaranteedUpdate(t.Context(), "", nil, false, nil, nil, nil),
			} {
				if test.want == 0 {
					if got != test.err {
						t.Errorf("%s: got %v, want %v", write, got, test.err)
					}
					continue
				}
				var status apierrors.APIStatus
				if !errors.As(got, &status) || status.Status().Code != test.want {
					t.Errorf("%s: got %v, want HTTP %d", write, got, test.want)
				}
			}
		})
	}
}
