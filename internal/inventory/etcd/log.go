// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"metald.io/metald/internal/inventory/audit"
	"metald.io/metald/internal/inventory/engine"
)

// Under each entry's key lie its hash and its payload; under head and base lie a number in 8 bytes and a hash.

var errBeyondHead = errors.New("log does not reach that far")

func (c chain) bytes() []byte {
	return append(binary.BigEndian.AppendUint64(nil, c.seq), c.hash[:]...)
}

func parseChain(b []byte) (c chain, err error) {
	if len(b) != 8+sha256.Size {
		return c, fmt.Errorf("reading the log's head: %w", engine.ErrCorrupt)
	}
	c.seq = binary.BigEndian.Uint64(b)
	copy(c.hash[:], b[8:])
	return c, nil
}

// link makes a transaction add an entry to the log that ends at last.
func (b *Backend) link(req *pb.TxnRequest, last chain, payload []byte) audit.Entry {
	entry := audit.Entry{Seq: last.seq + 1, Prev: last.hash, Payload: payload}
	entry.Hash = entry.Sum()
	req.Compare = append(req.Compare, modIs([]byte(b.keys.head), last.mod))
	ops := append([]*pb.RequestOp{}, req.Success...)
	req.Success = append(ops, put(b.keys.entry(entry.Seq), append(entry.Hash[:], payload...)),
		put(b.keys.head, chain{seq: entry.Seq, hash: entry.Hash}.bytes()))
	return entry
}

func (b *Backend) loadHead(ctx context.Context) error {
	resp, err := b.kv.Range(ctx, &pb.RangeRequest{Key: []byte(b.keys.head)})
	if err != nil {
		return fmt.Errorf("reading the log's head: %w", err)
	}
	return b.setHead(resp.Kvs)
}

// setHead takes what stands in etcd for the newest entry; no head is an empty log.
func (b *Backend) setHead(kvs []*mvccpb.KeyValue) error {
	if len(kvs) == 0 {
		b.chain.Store(&chain{})
		return nil
	}
	c, err := parseChain(kvs[0].Value)
	if err != nil {
		return err
	}
	c.mod = kvs[0].ModRevision
	b.chain.Store(&c)
	b.unsure = false
	return nil
}

// Append returns when the entry is durable. If ctx ends first, whether it was appended is not known.
func (b *Backend) Append(ctx context.Context, payload []byte) (audit.Entry, error) {
	limited, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	if payload == nil {
		payload = []byte{}
	}
	if err := b.takeTurn(limited); err != nil {
		return audit.Entry{}, b.words(ctx, err)
	}
	defer b.endTurn()
	_, entry, err := b.commit(limited, nil, nil, bytes.Clone(payload))
	if err != nil {
		return audit.Entry{}, explain(b.words(ctx, err))
	}
	return entry, nil
}

// Head is the newest durable entry's number and hash; zero for an empty log.
func (b *Backend) Head() (seq uint64, hash [sha256.Size]byte) {
	c := b.chain.Load()
	return c.seq, c.hash
}

// Log returns at most max entries from a sequence number on, or from the first that is still kept. Each one's hash was
// computed anew; one that does not fit the entry before it is an error that wraps engine.ErrCorrupt.
func (b *Backend) Log(from uint64, max int) ([]audit.Entry, error) {
	ctx, cancel := context.WithTimeout(b.ctx, answerLimit)
	defer cancel()
	newest, _ := b.Head()
	first := from
	if from > 1 {
		first-- // its hash begins the chain
	}
	resp, err := b.kv.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{
		get(b.keys.base),
		rangeOp(&pb.RangeRequest{
			Key: []byte(b.keys.entry(first)), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(b.keys.entries)), Limit: int64(max) + 1,
		}),
	}})
	if err != nil {
		return nil, fmt.Errorf("reading the log: %w", b.words(b.ctx, err))
	}
	var prev chain
	if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 {
		if prev, err = parseChain(kvs[0].Value); err != nil {
			return nil, err
		}
	}
	rows := resp.Responses[1].GetResponseRange().Kvs
	if from > prev.seq+1 && from > 1 && from <= newest+1 {
		// The entry before the first one asked for.
		if len(rows) == 0 || string(rows[0].Key) != b.keys.entry(from-1) || len(rows[0].Value) < sha256.Size {
			return nil, corruptEntry(from - 1)
		}
		prev = chain{seq: from - 1, hash: [sha256.Size]byte(rows[0].Value)}
		rows = rows[1:]
	}
	var found []audit.Entry
	for _, row := range rows {
		if len(found) == max || prev.seq >= newest {
			break
		}
		if string(row.Key) <= b.keys.entry(prev.seq) {
			continue // the one before, where the base tells of it already
		}
		if len(row.Value) < sha256.Size {
			return nil, corruptEntry(prev.seq + 1)
		}
		entry := audit.Entry{Seq: prev.seq + 1, Prev: prev.hash, Hash: [sha256.Size]byte(row.Value), Payload: row.Value[sha256.Size:]}
		if string(row.Key) != b.keys.entry(entry.Seq) || entry.Sum() != audit.Hash(entry.Hash) {
			return nil, corruptEntry(entry.Seq)
		}
		found = append(found, entry)
		prev = chain{seq: entry.Seq, hash: entry.Hash}
	}
	if len(found) < max && prev.seq < newest && from <= newest {
		return nil, corruptEntry(prev.seq + 1)
	}
	return found, nil
}

func corruptEntry(seq uint64) error {
	return fmt.Errorf("reading entry %d of the log: %w; restore a backup", seq, engine.ErrCorrupt)
}

// Trim removes the entries up to and with upTo; the chain goes on. It returns when the removal is durable.
func (b *Backend) Trim(ctx context.Context, upTo uint64) error {
	if newest, _ := b.Head(); upTo > newest {
		return fmt.Errorf("trimming the log up to %d of %d: %w", upTo, newest, errBeyondHead)
	}
	last, err := b.Log(upTo, 1)
	if err != nil {
		return err
	}
	if upTo == 0 || len(last) == 0 || last[0].Seq != upTo {
		return nil // it is gone already
	}
	limited, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	_, _, err = b.commit(limited, nil, []*pb.RequestOp{
		deleteOp(&pb.DeleteRangeRequest{Key: []byte(b.keys.entries), RangeEnd: []byte(b.keys.entry(upTo + 1))}),
		put(b.keys.base, chain{seq: upTo, hash: last[0].Hash}.bytes()),
	}, nil)
	if err != nil {
		return fmt.Errorf("trimming the log: %w", explain(b.words(ctx, err)))
	}
	return nil
}
