// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime/debug"
	"strings"
	"syscall"

	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// A batch is closed at so many requests or bytes, so that one commit stays short.
const (
	maxBatch      = 1024
	maxBatchBytes = 8 << 20
)

// request is one transaction on its way to the file. apply runs in the committer, more than once where another request of
// its batch is thrown out; the error it returns refuses this request alone.
type request struct {
	ctx   context.Context // for its values
	apply func(b *batch) error
	size  int
	done  chan error

	err     error
	refused bool // err is for good
}

// batch is one bbolt transaction and what is to be done once it is on disk.
type batch struct {
	tx     *bbolt.Tx
	rev    int64 // the newest revision, with those of this batch
	head   chain // the newest entry of the log, with those of this batch
	events []*mvccpb.Event
	tally  tally // of all rows, with those of this batch
	dirty  bool
	// What the request that is being applied has done: written anything, changed a record.
	wrote, recorded bool
	// forget ends the history with this batch: it removed what nobody could read.
	forget bool
	after  []func() // changes of what is kept in memory
	broken error    // a write that should have worked: nothing of the batch may be kept
}

// put writes a row under its bucket's name for checksums, and counts it.
func (b *batch) put(bucket *bbolt.Bucket, name, key []byte, parts ...[]byte) {
	b.dirty, b.wrote = true, true
	if old := bucket.Get(key); old != nil {
		b.tally.remove(old)
	}
	row := seal(name, key, parts...)
	b.tally.add(row)
	if err := bucket.Put(key, row); err != nil && b.broken == nil {
		b.broken = fmt.Errorf("writing key %q: %w", key, err)
	}
}

// putMeta writes a row that is not counted: the count stands among them.
func (b *batch) putMeta(key, body []byte) {
	b.dirty, b.wrote = true, true
	if err := putMeta(b.tx, key, body); err != nil && b.broken == nil {
		b.broken = fmt.Errorf("writing %s: %w", key, err)
	}
}

func (b *batch) remove(bucket *bbolt.Bucket, key []byte) {
	b.dirty, b.wrote = true, true
	if old := bucket.Get(key); old != nil {
		b.tally.remove(old)
	}
	if err := bucket.Delete(key); err != nil && b.broken == nil {
		b.broken = fmt.Errorf("removing key %q: %w", key, err)
	}
}

// submit runs apply in the committer and returns when its effect is durable. If ctx ends first, whether it took effect is
// not known.
func (e *Engine) submit(ctx context.Context, size int, apply func(b *batch) error) error {
	r := &request{ctx: ctx, apply: apply, size: size, done: make(chan error, 1)}
	select {
	case <-e.stop:
		return ErrClosed
	default:
	}
	select {
	case e.queue <- r:
	case <-ctx.Done():
		return ctx.Err()
	case <-e.stop:
		return ErrClosed
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-e.dead:
	}
	// The committer has ended; it may have answered just before.
	select {
	case err := <-r.done:
		return err
	default:
		return ErrClosed
	}
}

func (e *Engine) commitLoop() {
	defer e.wg.Done()
	defer close(e.dead)
	for {
		select {
		case r := <-e.queue:
			e.commit(e.gather(r))
		case <-e.stop:
			for {
				select {
				case r := <-e.queue:
					e.commit(e.gather(r))
				default:
					return
				}
			}
		}
	}
}

// gather takes what waits beside first. There is no delay: while one batch is being written the next one fills.
func (e *Engine) gather(first *request) []*request {
	requests, size := []*request{first}, first.size
	for len(requests) < maxBatch && size < maxBatchBytes {
		select {
		case r := <-e.queue:
			requests = append(requests, r)
			size += r.size
		default:
			return requests
		}
	}
	return requests
}

// commit makes one batch durable, publishes its events and answers its requests.
func (e *Engine) commit(requests []*request) {
	b, err := e.write(requests)
	if err == nil {
		e.publish(b)
	}
	for _, r := range requests {
		if err != nil && !r.refused {
			r.err = err
		}
		r.done <- r.err
	}
}

// write makes a batch of the requests and commits it.
func (e *Engine) write(requests []*request) (*batch, error) {
	for {
		b, again, err := e.try(requests)
		if !again {
			return b, err
		}
	}
}

// try runs the requests that have not been refused for good. With again one of them was stopped after it had written, by
// an error or a panic: nothing was kept, and the others, which are innocent of it, get a new transaction.
func (e *Engine) try(requests []*request) (_ *batch, again bool, _ error) {
	if e.broken != nil {
		return nil, false, fmt.Errorf("%w: %w", ErrClosed, e.broken)
	}
	tx, err := e.db.Begin(true)
	if err != nil {
		return nil, false, e.fail(fmt.Errorf("beginning a commit: %w", err))
	}
	b := &batch{tx: tx}
	if err := guard(b.begin); err != nil {
		tx.Rollback() //nolint:errcheck // the first error counts
		return nil, false, e.fail(err)
	}
	began := *b
	for _, r := range requests {
		if r.refused {
			continue
		}
		if e.run(b, r); r.refused {
			return nil, true, tx.Rollback()
		}
	}
	if err := guard(func() error { return b.end(began) }); err != nil {
		tx.Rollback() //nolint:errcheck // the first error counts
		return nil, false, e.fail(err)
	}
	if !b.dirty {
		return b, false, tx.Rollback()
	}
	if err := guard(tx.Commit); err != nil {
		tx.Rollback() //nolint:errcheck // where it panicked; else it is over
		if full(err) {
			e.logger.Warn("inventory has no room on its disk", "err", err)
			return nil, false, fmt.Errorf("%w: %w", ErrFull, err)
		}
		return nil, false, e.fail(fmt.Errorf("committing: %w", err))
	}
	return b, false, nil
}

// run applies one request and appends its notes.
func (e *Engine) run(b *batch, r *request) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			r.refused, r.err = true, fmt.Errorf("writing to the inventory: panic: %v", p)
			e.logger.Error("inventory refused a write that panicked", "err", p, "stack", string(debug.Stack()))
		}
	}()
	before := len(b.events)
	b.wrote, b.recorded = false, false
	if r.err = r.apply(b); r.err != nil {
		r.refused = b.wrote
	} else if b.broken == nil {
		e.note(b, r.ctx, b.events[before:])
	}
}

// begin reads what each batch goes on from.
func (b *batch) begin() (err error) {
	if b.rev, err = revisionOf(b.tx); err != nil {
		return err
	}
	if b.head, err = chainAt(b.tx, logHeadKey); err != nil {
		return err
	}
	b.tally, err = tallyAt(b.tx)
	return err
}

// end writes what the next batch goes on from.
func (b *batch) end(began batch) error {
	if b.rev != began.rev {
		b.putMeta(revisionKey, numberBytes(b.rev))
	}
	if b.head != began.head {
		b.putMeta(logHeadKey, b.head.bytes())
	}
	if b.tally != began.tally {
		b.putMeta(tallyKey, b.tally.bytes())
	}
	return b.broken
}

// fail takes the engine out of service: after a failed fsync the kernel may show pages that the disk does not hold.
func (e *Engine) fail(err error) error {
	e.broken = err
	e.logger.Error("inventory stopped on an I/O error", "err", err)
	select {
	case e.fatal <- err:
	default:
	}
	e.halt()
	return fmt.Errorf("%w: %w", ErrClosed, err)
}

// full tells a write that found no room, which changed nothing, from one whose outcome is unknown. A failed fsync is never
// "full": delayed allocation reports there what it lost.
func full(err error) bool {
	noRoom := func(err error) bool {
		return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
	}
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return strings.HasPrefix(pathErr.Op, "write") && noRoom(pathErr.Err)
	}
	// bbolt grows the file before it writes, and keeps only the text of that error.
	text := err.Error()
	if !strings.Contains(text, "file resize error") {
		return false
	}
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG} {
		if strings.Contains(text, errno.Error()) {
			return true
		}
	}
	return false
}

func (e *Engine) publish(b *batch) {
	for _, fn := range b.after {
		fn()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.head = b.head
	if len(b.events) == 0 {
		return
	}
	e.past.add(b.events)
	e.rev = b.rev
	if b.forget {
		e.past.compact(b.rev)
	}
	e.wake()
}

// wake tells everyone who waits on changed. The caller holds mu.
func (e *Engine) wake() {
	close(e.changed)
	e.changed = make(chan struct{})
}
