// SPDX-License-Identifier: Apache-2.0

package diskless

import (
	"crypto/sha256"
	"encoding/hex"
)

const (
	digestBuffers    = 4
	digestBufferSize = 256 << 10
)

// digester hashes on a processor of its own while the next bytes come in: on a CPU without SHA instructions the digest
// takes longer than the transfer.
type digester struct {
	free, full chan []byte
	sum        chan string
}

func newDigester() *digester {
	d := &digester{free: make(chan []byte, digestBuffers), full: make(chan []byte, digestBuffers), sum: make(chan string, 1)}
	for range digestBuffers {
		d.free <- make([]byte, digestBufferSize)
	}
	go func() {
		h := sha256.New()
		for b := range d.full {
			h.Write(b)
			d.free <- b[:cap(b)]
		}
		d.sum <- hex.EncodeToString(h.Sum(nil))
	}()
	return d
}

// buffer is one to read into; it goes back by take.
func (d *digester) buffer() []byte { return <-d.free }

// take hashes a buffer's bytes, in the order of the calls.
func (d *digester) take(b []byte) { d.full <- b }

// finish returns the digest in hex of all that was taken. The digester is used up.
func (d *digester) finish() string {
	close(d.full)
	return <-d.sum
}
