// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"context"
	"fmt"
)

// Records are small durable values of one bucket, beside the objects in the same file or etcd: no
// versions, no watches. DHCP leases live here.
type Records struct {
	bucket  string
	records rows
}

// Records returns the records of a bucket, which needs no making.
func (s *Store) Records(bucket string) *Records {
	return &Records{bucket: bucket, records: s.backend.Records(bucket)}
}

// Put returns when the value is durable.
func (r *Records) Put(ctx context.Context, key string, value []byte) error {
	if err := r.records.Put(ctx, key, value); err != nil {
		return fmt.Errorf("writing %s %q: %w", r.bucket, key, err)
	}
	return nil
}

// Delete returns when the removal is durable. A key that is not there is no error.
func (r *Records) Delete(ctx context.Context, key string) error {
	if err := r.records.Delete(ctx, key); err != nil {
		return fmt.Errorf("removing %s %q: %w", r.bucket, key, err)
	}
	return nil
}

// Get returns a copy of one value, nil where there is none.
func (r *Records) Get(ctx context.Context, key string) ([]byte, error) {
	value, err := r.records.Get(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("reading %s %q: %w", r.bucket, key, err)
	}
	return value, nil
}

// All returns copies of all values, by key.
func (r *Records) All(ctx context.Context) (map[string][]byte, error) {
	all, err := r.records.All(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading all %s: %w", r.bucket, err)
	}
	return all, nil
}
