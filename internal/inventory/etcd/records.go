// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"context"
	"errors"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Records are values of a bucket, beside the keys: nobody watches them, and they are not in the log.
type Records struct {
	b      *Backend
	bucket string
}

// Records returns the records of a bucket.
func (b *Backend) Records(bucket string) Records { return Records{b, bucket} }

var errBadRecord = errors.New("bucket or key is empty")

// Put returns when the value is durable.
func (r Records) Put(ctx context.Context, key string, value []byte) error {
	if r.bucket == "" || key == "" {
		return errBadRecord
	}
	return r.write(ctx, put(r.b.keys.bucket(r.bucket)+key, value))
}

// Delete returns when the removal is durable; a key that is not there is removed already.
func (r Records) Delete(ctx context.Context, key string) error {
	if r.bucket == "" || key == "" {
		return errBadRecord
	}
	return r.write(ctx, remove(r.b.keys.bucket(r.bucket)+key))
}

func (r Records) write(ctx context.Context, op *pb.RequestOp) error {
	limited, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	_, _, err := r.b.commit(limited, nil, []*pb.RequestOp{op}, nil)
	return explain(r.b.words(ctx, err))
}

// Get returns one value, nil where there is none.
func (r Records) Get(ctx context.Context, key string) ([]byte, error) {
	all, err := r.read(ctx, r.b.keys.bucket(r.bucket)+key, "")
	return all[key], err
}

// All returns all values.
func (r Records) All(ctx context.Context) (map[string][]byte, error) {
	prefix := r.b.keys.bucket(r.bucket)
	return r.read(ctx, prefix, clientv3.GetPrefixRangeEnd(prefix))
}

func (r Records) read(ctx context.Context, from, end string) (map[string][]byte, error) {
	limited, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	resp, err := r.b.kv.Range(limited, &pb.RangeRequest{Key: []byte(from), RangeEnd: []byte(end)})
	if err != nil {
		return nil, r.b.words(ctx, err)
	}
	all := map[string][]byte{}
	for _, kv := range resp.Kvs {
		value := kv.Value
		if value == nil {
			value = []byte{}
		}
		all[strings.TrimPrefix(string(kv.Key), r.b.keys.bucket(r.bucket))] = value
	}
	return all, nil
}
