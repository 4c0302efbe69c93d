// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"context"
	"errors"

	"go.etcd.io/bbolt"
)

// Records are unversioned values in a bucket of their own. They share the file and its commits with the keys, but neither
// revisions nor watches.
type Records struct {
	e      *Engine
	bucket []byte
}

// Records returns the records of a bucket.
func (e *Engine) Records(bucket string) Records { return Records{e, []byte(bucket)} }

var errBadRecord = errors.New("bucket, key or value is empty or too long")

// Put returns when the value is durable.
func (r Records) Put(ctx context.Context, key string, value []byte) error {
	if len(r.bucket) == 0 || key == "" || max(len(key), len(r.bucket)) > bbolt.MaxKeySize || len(value) > maxValue {
		return errBadRecord
	}
	return r.e.submit(ctx, len(key)+len(value), func(b *batch) error {
		bucket, err := b.tx.Bucket(recordsBucket).CreateBucketIfNotExists(r.bucket)
		if err != nil {
			b.broken = err
			return err
		}
		b.put(bucket, recordsName(r.bucket), []byte(key), value)
		b.recorded = true
		return nil
	})
}

// Delete returns when the removal is durable; a key that is not there is removed already.
func (r Records) Delete(ctx context.Context, key string) error {
	return r.e.submit(ctx, len(key), func(b *batch) error {
		bucket := b.tx.Bucket(recordsBucket).Bucket(r.bucket)
		if bucket == nil || bucket.Get([]byte(key)) == nil {
			return nil
		}
		b.remove(bucket, []byte(key))
		b.recorded = true
		return nil
	})
}

// Get returns a copy of one value, nil where there is none.
func (r Records) Get(key string) ([]byte, error) {
	var value []byte
	err := r.e.view(func(tx *bbolt.Tx) error {
		if bucket := tx.Bucket(recordsBucket).Bucket(r.bucket); bucket != nil {
			if row := bucket.Get([]byte(key)); row != nil {
				body, err := unseal(recordsName(r.bucket), []byte(key), row)
				if err != nil {
					return err
				}
				value = append([]byte{}, body...)
			}
		}
		return nil
	})
	return value, err
}

// All returns copies of all values.
func (r Records) All() (map[string][]byte, error) {
	all := map[string][]byte{}
	err := r.e.view(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(recordsBucket).Bucket(r.bucket)
		if bucket == nil {
			return nil
		}
		name := recordsName(r.bucket)
		return bucket.ForEach(func(key, row []byte) error {
			value, err := unseal(name, key, row)
			if err != nil {
				return err
			}
			all[string(key)] = bytes.Clone(value)
			return nil
		})
	})
	return all, err
}
