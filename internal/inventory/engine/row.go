// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"encoding/binary"

	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// headerSize is the length of what stands between a row's checksum and its value: create revision, mod revision, version
// and lease, 8 bytes each, big endian.
const headerSize = 32

func header(kv *mvccpb.KeyValue) []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, headerSize), uint64(kv.CreateRevision))
	b = binary.BigEndian.AppendUint64(b, uint64(kv.ModRevision))
	b = binary.BigEndian.AppendUint64(b, uint64(kv.Version))
	return binary.BigEndian.AppendUint64(b, uint64(kv.Lease))
}

// decodeRow checks a row and copies out of the file's memory, which is only there during the transaction.
func decodeRow(key, row []byte, withValue bool) (*mvccpb.KeyValue, error) {
	row, err := unseal(keysBucket, key, row)
	if err != nil {
		return nil, err
	}
	if len(row) < headerSize {
		return nil, corrupt(keysBucket, key)
	}
	kv := &mvccpb.KeyValue{
		Key:            bytes.Clone(key),
		CreateRevision: int64(binary.BigEndian.Uint64(row)),
		ModRevision:    int64(binary.BigEndian.Uint64(row[8:])),
		Version:        int64(binary.BigEndian.Uint64(row[16:])),
		Lease:          int64(binary.BigEndian.Uint64(row[24:])),
	}
	if withValue {
		kv.Value = bytes.Clone(row[headerSize:])
	}
	return kv, nil
}

// lookup returns nil where the key is not there.
func lookup(tx *bbolt.Tx, key []byte) (*mvccpb.KeyValue, error) {
	row := tx.Bucket(keysBucket).Get(key)
	if row == nil {
		return nil, nil
	}
	return decodeRow(key, row, true)
}
