// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"go.etcd.io/bbolt"
)

// Every row of the file begins with a checksum over its bucket's name, its key and the rest of it, so that what a disk has
// changed, or put in another row's place, is found when it is read. It is CRC-32C: processors compute it faster than
// memory delivers, and it finds every burst of up to 32 bits for certain and anything else but once in four thousand
// million times. It guards against disks, not against people: the log's hashes do that.
const sumSize = 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func sumOf(bucket, key, body []byte) uint32 {
	// The lengths keep a byte from moving between the parts.
	lengths := binary.BigEndian.AppendUint32(make([]byte, 0, 8), uint32(len(bucket)))
	lengths = binary.BigEndian.AppendUint32(lengths, uint32(len(key)))
	sum := crc32.Update(0, castagnoli, lengths)
	for _, part := range [][]byte{bucket, key, body} {
		sum = crc32.Update(sum, castagnoli, part)
	}
	return sum
}

// seal makes a row of what it is to hold.
func seal(bucket, key []byte, parts ...[]byte) []byte {
	n := sumSize
	for _, part := range parts {
		n += len(part)
	}
	row := make([]byte, sumSize, n)
	for _, part := range parts {
		row = append(row, part...)
	}
	binary.BigEndian.PutUint32(row, sumOf(bucket, key, row[sumSize:]))
	return row
}

// unseal returns what a row holds, in the file's memory. There must be a row.
func unseal(bucket, key, row []byte) ([]byte, error) {
	if len(row) < sumSize || binary.BigEndian.Uint32(row) != sumOf(bucket, key, row[sumSize:]) {
		return nil, corrupt(bucket, key)
	}
	return row[sumSize:], nil
}

func corrupt(bucket, key []byte) error {
	return fmt.Errorf("reading %s %q: %w: it is not what was written; restore a backup", bucket, key, ErrCorrupt)
}

// tally stands for all rows of the file but meta's: how many there are, and the sum of what a mix makes of each one's
// checksum. It stands in meta, and is changed with each row in the same commit: a page that was lost, or is an older one
// whose rows are sound, does not fit it.
type tally struct{ rows, mixed uint64 }

func (t *tally) add(row []byte)    { t.rows++; t.mixed += mix(row) }
func (t *tally) remove(row []byte) { t.rows--; t.mixed -= mix(row) }

// mix spreads a row's checksum over 64 bits (the finalizer of MurmurHash3), so that sums of several tell as much.
func mix(row []byte) uint64 {
	if len(row) < sumSize {
		return 0
	}
	x := uint64(binary.BigEndian.Uint32(row))<<32 | uint64(uint32(len(row)))
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

func (t tally) bytes() []byte {
	return append(numberBytes(int64(t.rows)), numberBytes(int64(t.mixed))...)
}

func tallyAt(tx *bbolt.Tx) (t tally, err error) {
	body, err := metaRow(tx, tallyKey, 16)
	if body != nil {
		t = tally{binary.BigEndian.Uint64(body), binary.BigEndian.Uint64(body[8:])}
	}
	return t, err
}

// metaRow reads a row of meta that has one length only; nil where there is none.
func metaRow(tx *bbolt.Tx, key []byte, size int) ([]byte, error) {
	row := tx.Bucket(metaBucket).Get(key)
	if row == nil {
		return nil, nil
	}
	body, err := unseal(metaBucket, key, row)
	if err == nil && len(body) != size {
		err = corrupt(metaBucket, key)
	}
	if err != nil {
		return nil, err
	}
	return body, nil
}

func putMeta(tx *bbolt.Tx, key, body []byte) error {
	return tx.Bucket(metaBucket).Put(key, seal(metaBucket, key, body))
}

// recordsName is what the rows of a records' bucket are sealed with: a bucket of records may be called as one of ours is.
func recordsName(bucket []byte) []byte {
	return bytes.Join([][]byte{recordsBucket, bucket}, []byte("/"))
}
