// SPDX-License-Identifier: Apache-2.0

package fetch

import "hash"

const (
	digestBuffers    = 4
	digestBufferSize = 256 << 10
)

// Digest hashes on a processor of its own while the next bytes come in: on a CPU without SHA instructions the digest
// takes longer than the transfer. It holds 1 MiB. One goroutine feeds it.
type Digest struct {
	free, full chan []byte
	sum        chan []byte
}

// NewDigest starts a digest with h, which nobody else may use from now on. Sum ends it.
func NewDigest(h hash.Hash) *Digest {
	d := &Digest{free: make(chan []byte, digestBuffers), full: make(chan []byte, digestBuffers), sum: make(chan []byte, 1)}
	for range digestBuffers {
		d.free <- make([]byte, digestBufferSize)
	}
	go func() {
		for b := range d.full {
			h.Write(b)
			d.free <- b[:cap(b)]
		}
		d.sum <- h.Sum(nil)
	}()
	return d
}

// Buffer is one to read into; it goes back by Take.
func (d *Digest) Buffer() []byte { return <-d.free }

// Take hashes a buffer's bytes, in the order of the calls.
func (d *Digest) Take(b []byte) { d.full <- b }

// Write hashes a copy of p. It never fails.
func (d *Digest) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		b := d.Buffer()
		n := copy(b, rest)
		d.Take(b[:n])
		rest = rest[n:]
	}
	return len(p), nil
}

// Sum returns the digest of all that was taken. The Digest is used up.
func (d *Digest) Sum() []byte {
	close(d.full)
	return <-d.sum
}
