// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"metald.io/metald/internal/inventory/engine"
)

var (
	// ErrHeld is wrapped by Open's error while another daemon holds the prefix.
	ErrHeld = errors.New("inventory is in use")
	// ErrAway is wrapped by the error of a call that etcd did not answer in time. A write may have been done nevertheless.
	ErrAway = errors.New("etcd does not answer")
)

// spoken is an error that gRPC's callers understand as a code, and Go's as what it wraps.
type spoken struct {
	code codes.Code
	err  error
}

func (s spoken) Error() string              { return s.err.Error() }
func (s spoken) Unwrap() error              { return s.err }
func (s spoken) GRPCStatus() *status.Status { return status.New(s.code, s.err.Error()) }

// words says in which way a call failed, where etcd's own words would not tell: the end of this backend, an answer that did
// not come in time.
func (b *Backend) words(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	select {
	case <-b.stop:
		return spoken{codes.Unavailable, engine.ErrClosed}
	default:
	}
	code := status.Code(err)
	switch {
	case ctx.Err() != nil:
		return spoken{status.FromContextError(ctx.Err()).Code(), ctx.Err()}
	case code == codes.Unavailable, code == codes.DeadlineExceeded, errors.Is(err, context.DeadlineExceeded):
		return spoken{codes.Unavailable, fmt.Errorf("%w: %s", ErrAway, text(err))}
	}
	return err
}

// refused tells a write that etcd said no to, which did nothing, from one of which nobody knows.
func refused(err error) bool {
	switch status.Code(err) {
	case codes.ResourceExhausted, codes.InvalidArgument, codes.FailedPrecondition, codes.OutOfRange, codes.NotFound,
		codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented:
		return true
	}
	return false
}

// text is an error without gRPC's frame.
func text(err error) string {
	if s, ok := status.FromError(err); ok {
		return s.Message()
	}
	return err.Error()
}

// explain turns the words of the wire into the store's sentinels, for calls that have no client between.
func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(rpctypes.Error(err), rpctypes.ErrNoSpace):
		return fmt.Errorf("%w: %s", engine.ErrFull, text(err))
	}
	return err
}
