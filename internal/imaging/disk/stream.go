// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
)

// Memory of an install: buffers x bufferSize = 24 MiB for what is on its way to the disk or back, 1 MiB for the digest, and
// for a compressed image its window (at most zstdWindow) and a few blocks.
const (
	bufferSize = 4 << 20
	buffers    = 6
	// writers keep the disk busy while one of them waits.
	writers = 2
	// grain is the length of zeros that is not written but told to the disk in one command.
	grain = 256 << 10
	// behindBytes is how much is written before it is flushed and read back while the next bytes come in: a disk reads and
	// writes at once, and the network waits for neither.
	behindBytes = 256 << 20
	// zeroMost is told to the disk at once: a rotating one writes it all, and we want to hear of it.
	zeroMost = 256 << 20
)

var zeros [1 << 20]byte

// target is a disk being written.
type target struct {
	medium
	name         string
	size, sector int64 // bytes
	pool         chan []byte
	meter        *meter
	abort        context.CancelCauseFunc
	behind       int64 // bytes
}

func newTarget(m medium, name string, size, sector int64, meter *meter, abort context.CancelCauseFunc) *target {
	t := &target{medium: m, name: name, size: size, sector: sector, pool: make(chan []byte, buffers), meter: meter, abort: abort, behind: behindBytes}
	for range buffers {
		t.pool <- nil // made when it is first needed
	}
	return t
}

func (t *target) buffer() []byte {
	b := <-t.pool
	if b == nil {
		b = aligned(bufferSize)
	}
	return b[:bufferSize]
}

// piece is a range of the disk that was written, and what to find there: zeros, or bytes with this hash.
type piece struct {
	span
	zero bool
	sum  uint64
}

// record is what was written where. It is kept to read it back where no digest of the whole is known.
type record struct {
	seed   maphash.Seed
	mu     sync.Mutex
	pieces []piece
	bytes  int64
}

func (r *record) add(p piece) {
	if r != nil {
		r.mu.Lock()
		r.pieces = append(r.pieces, p)
		r.bytes += p.size
		r.mu.Unlock()
	}
}

// take gives the pieces out, in order, if there are at least so many bytes of them.
func (r *record) take(atLeast int64) ([]piece, int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bytes < atLeast {
		return nil, 0
	}
	pieces, n := r.pieces, r.bytes
	r.pieces, r.bytes = nil, 0
	slices.SortFunc(pieces, func(a, b piece) int { return cmp.Compare(a.off, b.off) })
	return pieces, n
}

// job is a buffer with the ranges of it that are to be written, or a range of zeros.
type job struct {
	span
	buf  []byte
	data []span // offsets within buf
}

// pour writes what r gives to the disk from off on, limit bytes at most, and returns how many it gave. Long runs of zeros
// are not written but told to the disk. The end is filled with zeros up to a
// sector. An error of the disk ends the whole install, also where the network is waited for.
func (t *target) pour(ctx context.Context, r io.Reader, off, limit int64, rec *record) (int64, error) {
	group, ctx := errgroup.WithContext(ctx)
	jobs := make(chan job)
	written := make(chan struct{}, 1)
	var once sync.Once
	var broken error
	stop := func(err error) error {
		if err != nil {
			once.Do(func() { broken = err })
			t.abort(err)
		}
		return err
	}
	if rec != nil {
		group.Go(func() error { return stop(t.follow(ctx, written, rec)) })
	}
	var busy sync.WaitGroup
	busy.Add(writers)
	go func() {
		busy.Wait()
		close(written)
	}()
	for range writers {
		group.Go(func() error {
			defer busy.Done()
			var err error
			for j := range jobs {
				if err == nil { // after an error the rest is taken and dropped, so that the reader ends
					err = stop(t.do(ctx, j, rec))
					select {
					case written <- struct{}{}:
					default:
					}
				}
				if j.buf != nil {
					t.pool <- j.buf
				}
			}
			return err
		})
	}
	var done int64
	group.Go(func() error {
		defer close(jobs)
		var err error
		done, err = t.dispatch(ctx, r, off, limit, jobs)
		return err
	})
	err := group.Wait()
	if broken != nil {
		err = broken // whatever the reader says followed from it
	}
	return done, err
}

// dispatch reads and cuts.
func (t *target) dispatch(ctx context.Context, r io.Reader, off, limit int64, jobs chan<- job) (done int64, err error) {
	var hole span // zeros not told yet
	flush := func() {
		if hole.size > 0 {
			jobs <- job{span: hole}
			hole = span{}
		}
	}
	for done < limit {
		if err := context.Cause(ctx); err != nil {
			return done, err
		}
		b := t.buffer()
		n, end, err := fill(r, b[:min(bufferSize, limit-done)])
		if err != nil {
			t.pool <- b
			return done, err
		}
		full := int(roundUp(int64(n), t.sector))
		clear(b[n:full])
		j := job{span: span{off: off + done, size: int64(full)}, buf: b}
		for at := 0; at < full; at += grain {
			g := b[at:min(at+grain, full)]
			if bytes.Equal(g, zeros[:len(g)]) {
				if hole.size == 0 {
					hole.off = j.off + int64(at)
				}
				hole.size += int64(len(g))
				continue
			}
			flush()
			if last := len(j.data) - 1; last >= 0 && j.data[last].off+j.data[last].size == int64(at) {
				j.data[last].size += int64(len(g))
			} else {
				j.data = append(j.data, span{off: int64(at), size: int64(len(g))})
			}
		}
		if hole.size >= zeroMost {
			flush()
		}
		done += int64(n)
		if len(j.data) == 0 {
			t.pool <- b
		} else {
			jobs <- j
		}
		t.meter.add(int64(n))
		if end {
			break
		}
	}
	flush()
	return done, nil
}

// fill reads until b is full or r is at its end. It differs from io.ReadFull in that an unpacker's io.ErrUnexpectedEOF stays
// the error that it is.
func fill(r io.Reader, b []byte) (n int, end bool, err error) {
	for n < len(b) {
		k, err := r.Read(b[n:])
		n += k
		switch {
		case errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
			return n, true, nil
		case err != nil:
			return n, false, err
		}
	}
	return n, false, nil
}

func (t *target) do(ctx context.Context, j job, rec *record) error {
	if j.buf == nil {
		for at := int64(0); at < j.size; at += zeroMost {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			n := min(zeroMost, j.size-at)
			if err := t.Zero(j.off+at, n); err != nil {
				return t.failed(err, j.off+at)
			}
			rec.add(piece{span: span{j.off + at, n}, zero: true})
		}
		return nil
	}
	for _, s := range j.data {
		b := j.buf[s.off : s.off+s.size]
		if _, err := t.WriteAt(b, j.off+s.off); err != nil {
			return t.failed(err, j.off+s.off)
		}
		if rec != nil {
			rec.add(piece{span: span{j.off + s.off, s.size}, sum: maphash.Bytes(rec.seed, b)})
		}
	}
	return nil
}

// put writes a small thing: whole sectors.
func (t *target) put(b []byte, off int64, rec *record) error {
	if _, err := t.WriteAt(b, off); err != nil {
		return t.failed(err, off)
	}
	if rec != nil {
		rec.add(piece{span: span{off, int64(len(b))}, sum: maphash.Bytes(rec.seed, b)})
	}
	return nil
}

func (t *target) failed(err error, off int64) error {
	return fmt.Errorf("writing to %s at byte %d: %w", t.name, off, err)
}
