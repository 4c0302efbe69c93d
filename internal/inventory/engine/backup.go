// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"fmt"
	"io"

	"go.etcd.io/bbolt"
)

// Snapshot writes the file as it is at one moment, while writes go on: what was acknowledged before the call is in it. begin
// is told how many bytes will come and the revision they hold, and says where they go. Pages that the copy needs are kept
// until it ends, so the file grows if the reader is slow.
func (e *Engine) Snapshot(ctx context.Context, begin func(size, revision int64) (io.Writer, error)) error {
	return e.view(func(tx *bbolt.Tx) error {
		revision, err := revisionOf(tx)
		if err != nil {
			return err
		}
		// bbolt shows a commit before it is on disk.
		if err := e.await(ctx, revision); err != nil {
			return err
		}
		w, err := begin(tx.Size(), revision)
		if err != nil {
			return err
		}
		// bbolt keeps only the text of a writer's error.
		to := &until{ctx: ctx, w: w}
		if _, err = tx.WriteTo(to); to.err != nil {
			err = to.err
		}
		if err != nil {
			return fmt.Errorf("copying the inventory: %w", err)
		}
		return nil
	})
}

// until stops writing when ctx ends, and keeps the error that stopped it.
type until struct {
	ctx context.Context
	w   io.Writer
	err error
}

func (u *until) Write(b []byte) (n int, err error) {
	if u.err = u.ctx.Err(); u.err == nil {
		n, u.err = u.w.Write(b)
	}
	return n, u.err
}
