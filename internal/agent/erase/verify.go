// SPDX-License-Identifier: Apache-2.0

package erase

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"unsafe"
)

const (
	// placeBytes is how much is read in one place, blockBytes what is compared as one.
	placeBytes = 1 << 20
	blockBytes = 4096
	// randomPlaces are read beside those that are known to have held something; discardPlaces after a discard, which a
	// drive may have done here and not there.
	randomPlaces  = 64
	discardPlaces = 256
	// maxPartitions bounds the partitions whose places are read.
	maxPartitions = 256
	// badPlaces is how many places may be unreadable before sampling ends: a dying disk takes half a minute for each.
	badPlaces = 8
)

// Extent is a part of a drive, in bytes.
type Extent struct{ Start, Length int64 }

// places chooses where a drive is read: its begin and end, the begin and end of each partition, and random places, one in
// each equal part of the drive. A small drive is read as a whole.
func places(size int64, partitions []Extent, random int) []Extent {
	last := (size - 1) / placeBytes
	chosen := map[int64]bool{}
	add := func(start, end int64) { // all places that the bytes from start to end touch
		for i := max(0, start) / placeBytes; i <= min(last, (end-1)/placeBytes); i++ {
			chosen[i] = true
		}
	}
	if last < int64(2*random) {
		add(0, size)
	} else {
		add(0, placeBytes)
		add(size-placeBytes, size)
		for _, e := range partitions[:min(len(partitions), maxPartitions)] {
			add(e.Start, e.Start+placeBytes)
			add(e.Start+e.Length-placeBytes, e.Start+e.Length)
		}
		for n := range int64(random) {
			from, to := last*n/int64(random), last*(n+1)/int64(random)
			chosen[from+rand.Int64N(max(1, to-from))] = true
		}
	}
	var all []Extent
	for _, i := range slices.Sorted(maps.Keys(chosen)) {
		all = append(all, Extent{i * placeBytes, min(placeBytes, size-i*placeBytes)})
	}
	return all
}

var (
	seed   = maphash.MakeSeed()
	noData = make([]byte, blockBytes)
)

// sample is what a drive held in some places: a hash of each block, none where it could not be read.
type sample map[int64]uint64

// take reads a sample. What cannot be read is left out: that is no reason not to erase the drive.
func take(r io.ReaderAt, where []Extent, p *Pulse) sample {
	s := sample{}
	buffer := aligned(placeBytes)
	bad := 0
	for n, e := range where {
		data := buffer[:e.Length]
		if _, err := r.ReadAt(data, e.Start); err != nil {
			if bad++; bad == badPlaces {
				break
			}
			continue
		}
		for at, block := range blocks(data) {
			s[e.Start+at] = maphash.Bytes(seed, block)
		}
		p.Move(int64(n+1), int64(len(where)))
	}
	return s
}

// blocks are the parts of data that are compared, by their offset.
func blocks(data []byte) func(func(int64, []byte) bool) {
	return func(yield func(int64, []byte) bool) {
		for at := 0; at < len(data); at += blockBytes {
			if !yield(int64(at), data[at:min(at+blockBytes, len(data))]) {
				return
			}
		}
	}
}

func blank(block []byte) bool { return bytes.Equal(block, noData[:len(block)]) }

// plain says whether a block holds one byte over and over: what firmware leaves instead of zeros.
func plain(block []byte) bool { return bytes.Equal(block[1:], block[:len(block)-1]) }

// unwritten says whether a block is what empty flash reads as: that tells nothing, also where it was so before.
func unwritten(block []byte) bool { return block[0] == 0xff && plain(block) }

// verify reads a drive back. It must hold zeros; after a method that scrambles, a block may as well hold one byte over and
// over, or anything but what the sample has. The text says what was read, the error where the drive still holds something.
func verify(r io.ReaderAt, where []Extent, before sample, scrambles bool, p *Pulse) (string, error) {
	var read, changed int64
	buffer := aligned(placeBytes)
	for n, e := range where {
		data := buffer[:e.Length]
		if _, err := r.ReadAt(data, e.Start); err != nil {
			return "", fmt.Errorf("reading back at byte %d: %w", e.Start, err)
		}
		for at, block := range blocks(data) {
			at += e.Start
			was, known := before[at]
			switch {
			case blank(block):
			case !scrambles:
				return "", fmt.Errorf("byte %d and on are not zero", at)
			case unwritten(block), !known && plain(block), known && maphash.Bytes(seed, block) != was:
				changed += int64(len(block))
			case known:
				return "", fmt.Errorf("byte %d and on hold what they held before", at)
			default:
				return "", fmt.Errorf("byte %d and on hold something, and nobody knows what they held before", at)
			}
		}
		read += e.Length
		p.Move(int64(n+1), int64(len(where)))
	}
	if read == 0 {
		return "", errors.New("nothing was read")
	}
	text := fmt.Sprintf("read %s in %d places, ", size(read), len(where))
	if changed == 0 {
		return text + "all zero", nil
	}
	return text + fmt.Sprintf("%s of it zero and %s other than before", size(read-changed), size(changed)), nil
}

func size(n int64) string {
	if n >= placeBytes {
		return fmt.Sprintf("%d MiB", n/placeBytes)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}

// aligned is memory that direct I/O accepts.
func aligned(n int) []byte {
	raw := make([]byte, n+blockBytes)
	skip := int(-uintptr(unsafe.Pointer(&raw[0])) & (blockBytes - 1))
	return raw[skip : skip+n : skip+n]
}
