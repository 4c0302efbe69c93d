// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/apimachinery/pkg/util/version"

	"metald.io/metald/internal/inventory/engine"
)

// inspect asks every endpoint who it is. One answer is enough, and the others get a moment more; one that is too old is too
// much.
func (b *Backend) inspect(ctx context.Context, c Config) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	type answer struct {
		endpoint string
		status   *clientv3.StatusResponse
		err      error
	}
	answers := make(chan answer, len(c.Endpoints))
	for _, e := range c.Endpoints {
		go func() {
			status, err := b.raw.Status(ctx, e)
			answers <- answer{e, status, err}
		}()
	}
	var away error
	found := false
	for range c.Endpoints {
		a := <-answers
		if a.err != nil {
			away = errors.Join(away, fmt.Errorf("asking %s for its version: %s: %w", a.endpoint, text(a.err), c.cause(a.endpoint)))
			continue
		}
		v, err := version.ParseSemantic(a.status.Version)
		if err != nil {
			return fmt.Errorf("reading the version of %s: %w", a.endpoint, err)
		}
		if v.LessThan(version.MustParseSemantic(oldest)) {
			return fmt.Errorf("%s is etcd %s: want at least %s", a.endpoint, a.status.Version, oldest)
		}
		if found && b.cluster != a.status.Header.ClusterId {
			return fmt.Errorf("%s belongs to another cluster than the other endpoints", a.endpoint)
		}
		if !found {
			time.AfterFunc(laggardLimit, cancel)
		}
		found, b.cluster = true, a.status.Header.ClusterId
		if b.version == nil || v.LessThan(b.version) {
			b.version = v
		}
	}
	if !found {
		return fmt.Errorf("%w within %s: %w", ErrAway, startLimit, away)
	}
	if away != nil {
		b.logger.Warn("not every etcd answers", "err", away)
	}
	return nil
}

func (b *Backend) checkSchema(ctx context.Context) error {
	resp, err := b.kv.Range(ctx, &pb.RangeRequest{Key: []byte(b.keys.schema)})
	if err != nil {
		return fmt.Errorf("reading the schema: %w", b.words(ctx, err))
	}
	if len(resp.Kvs) == 0 {
		return nil
	}
	schema, err := strconv.Atoi(string(resp.Kvs[0].Value))
	switch {
	case err != nil || schema < 1:
		return fmt.Errorf("reading the schema: %q: %w", resp.Kvs[0].Value, engine.ErrCorrupt)
	case schema > schemaVersion:
		return fmt.Errorf("reading schema %d, this version knows up to %d: %w", schema, schemaVersion, engine.ErrNewerSchema)
	}
	return nil
}

// prepare writes the schema of a new prefix.
func (b *Backend) prepare(ctx context.Context) error {
	if err := b.checkSchema(ctx); err != nil { // the holder before us may have been a newer one
		return err
	}
	resp, err := b.kv.Txn(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{createIs(b.keys.schema, 0)},
		Success: []*pb.RequestOp{put(b.keys.schema, strconv.AppendInt(nil, schemaVersion, 10))},
	})
	if err != nil {
		return fmt.Errorf("writing the schema: %w", explain(err))
	}
	if resp.Succeeded {
		b.logger.Info("a new inventory was made in etcd", "prefix", b.keys.objects)
	}
	return nil
}
