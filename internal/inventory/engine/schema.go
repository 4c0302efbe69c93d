// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"go.etcd.io/bbolt"
)

// schemaVersion is the version of the file's layout. A file of a newer one is refused; an older one is brought up in Open.
//
//	1  rows as they are
//	2  a checksum before each row, a tally of all rows in meta; the log
const schemaVersion = 2

// migrations lead from the version that is their index to the next one, all in one transaction: a process that dies on the
// way leaves the old file.
var migrations = map[uint64]func(*bbolt.Tx) error{1: sealRows}

// prepare makes the buckets of a new file, and brings an older one up.
func prepare(tx *bbolt.Tx) error {
	fresh := tx.Bucket(metaBucket) == nil
	var schema uint64
	if !fresh {
		row := tx.Bucket(metaBucket).Get(schemaKey)
		if len(row) != 8 { // never sealed: every version must be able to read it
			return corrupt(metaBucket, schemaKey)
		}
		schema = binary.BigEndian.Uint64(row)
	}
	if schema > schemaVersion {
		return fmt.Errorf("reading schema %d, this version knows up to %d: %w", schema, schemaVersion, ErrNewerSchema)
	}
	if fresh && tx.Bucket(keysBucket) != nil {
		return corrupt(metaBucket, schemaKey)
	}
	for _, name := range [][]byte{metaBucket, keysBucket, leasesBucket, attachments, recordsBucket, logBucket} {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return fmt.Errorf("making bucket %s: %w", name, err)
		}
	}
	if schema == schemaVersion {
		return nil
	}
	if fresh {
		// Revision 1 is an empty store, as etcd has it: 0 means "no revision" to every client.
		if err := putMeta(tx, revisionKey, numberBytes(1)); err != nil {
			return err
		}
		if err := putMeta(tx, tallyKey, tally{}.bytes()); err != nil {
			return err
		}
		schema = schemaVersion
	}
	for ; schema < schemaVersion; schema++ {
		migrate := migrations[schema]
		if migrate == nil {
			return corrupt(metaBucket, schemaKey)
		}
		if err := migrate(tx); err != nil {
			return fmt.Errorf("bringing the file from schema %d to %d: %w", schema, schema+1, err)
		}
	}
	return tx.Bucket(metaBucket).Put(schemaKey, numberBytes(schemaVersion))
}

// sealRows puts a checksum before every row.
func sealRows(tx *bbolt.Tx) error {
	if len(tx.Bucket(metaBucket).Get(revisionKey)) != 8 {
		return corrupt(metaBucket, revisionKey) // not a file of schema 1
	}
	var all tally
	for _, name := range [][]byte{keysBucket, leasesBucket, attachments, logBucket} {
		if err := sealBucket(tx.Bucket(name), name, &all); err != nil {
			return err
		}
	}
	records := tx.Bucket(recordsBucket)
	err := records.ForEachBucket(func(bucket []byte) error {
		return sealBucket(records.Bucket(bucket), recordsName(bucket), &all)
	})
	if err != nil {
		return err
	}
	if err := sealBucket(tx.Bucket(metaBucket), metaBucket, &tally{}); err != nil {
		return err
	}
	return putMeta(tx, tallyKey, all.bytes())
}

func sealBucket(bucket *bbolt.Bucket, name []byte, all *tally) error {
	var keys, rows [][]byte
	err := bucket.ForEach(func(key, body []byte) error {
		// The file's memory may move while it is written to.
		keys = append(keys, bytes.Clone(key))
		rows = append(rows, seal(name, key, body))
		return nil
	})
	if err != nil {
		return err
	}
	for i, key := range keys {
		if err := bucket.Put(key, rows[i]); err != nil {
			return fmt.Errorf("sealing %s %q: %w", name, key, err)
		}
		all.add(rows[i])
	}
	return nil
}
