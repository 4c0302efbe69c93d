// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"bytes"
	"fmt"
	"net/url"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// keys are where things lie below the prefix.
type keys struct {
	objects string // before each key that the client is asked for
	schema  string // the version of this layout, in decimal
	holder  string // who may write, with a lease
	term    string // written by each new holder
	head    string // number and hash of the newest entry of the log
	base    string // those of the newest entry that was trimmed away
	entries string // before the sequence number of each entry, in 16 hex digits
	records string // before the bucket of each record
}

func keysBelow(prefix string) keys {
	return keys{
		objects: prefix + "/keys",
		schema:  prefix + "/meta/schema",
		holder:  prefix + "/meta/holder",
		term:    prefix + "/meta/term",
		head:    prefix + "/log/head",
		base:    prefix + "/log/base",
		entries: prefix + "/log/entries/",
		records: prefix + "/records/",
	}
}

func (k keys) entry(seq uint64) string { return fmt.Sprintf("%s%016x", k.entries, seq) }

// bucket is the prefix of a bucket's records. Its name cannot reach into another bucket.
func (k keys) bucket(name string) string { return k.records + url.PathEscape(name) + "/" }

// full puts the prefix before a key of the client.
func (k keys) full(key []byte) []byte { return append([]byte(k.objects), key...) }

// fullEnd does so to the end of a range: empty is a single key, and a zero byte is the end of all keys.
func (k keys) fullEnd(end []byte) []byte {
	switch {
	case len(end) == 0:
		return nil
	case bytes.Equal(end, []byte{0}):
		return []byte(clientv3.GetPrefixRangeEnd(k.objects))
	}
	return k.full(end)
}

// short takes the prefix away again, of all that an answer holds. The answer is the caller's own.
func (k keys) short(kvs ...*mvccpb.KeyValue) {
	for _, kv := range kvs {
		if kv != nil {
			kv.Key = bytes.TrimPrefix(kv.Key, []byte(k.objects))
		}
	}
}

func (k keys) shortOp(op *pb.ResponseOp) {
	k.short(op.GetResponseRange().GetKvs()...)
	k.short(op.GetResponsePut().GetPrevKv())
	k.short(op.GetResponseDeleteRange().GetPrevKvs()...)
}

// fullRange, fullPut, fullDelete and fullOp are copies with the prefix: what a client hands over is not ours to change.
func (k keys) fullRange(r *pb.RangeRequest) *pb.RangeRequest {
	return &pb.RangeRequest{
		Key: k.full(r.Key), RangeEnd: k.fullEnd(r.RangeEnd), Limit: r.Limit, Revision: r.Revision, SortOrder: r.SortOrder,
		SortTarget: r.SortTarget, Serializable: r.Serializable, KeysOnly: r.KeysOnly, CountOnly: r.CountOnly,
		MinModRevision: r.MinModRevision, MaxModRevision: r.MaxModRevision, MinCreateRevision: r.MinCreateRevision,
		MaxCreateRevision: r.MaxCreateRevision,
	}
}

func (k keys) fullPut(r *pb.PutRequest) *pb.PutRequest {
	return &pb.PutRequest{Key: k.full(r.Key), Value: r.Value, Lease: r.Lease, PrevKv: r.PrevKv, IgnoreValue: r.IgnoreValue, IgnoreLease: r.IgnoreLease}
}

func (k keys) fullDelete(r *pb.DeleteRangeRequest) *pb.DeleteRangeRequest {
	return &pb.DeleteRangeRequest{Key: k.full(r.Key), RangeEnd: k.fullEnd(r.RangeEnd), PrevKv: r.PrevKv}
}

func (k keys) fullOp(op *pb.RequestOp) *pb.RequestOp {
	switch {
	case op.GetRequestRange() != nil:
		return rangeOp(k.fullRange(op.GetRequestRange()))
	case op.GetRequestPut() != nil:
		return putOp(k.fullPut(op.GetRequestPut()))
	case op.GetRequestDeleteRange() != nil:
		return deleteOp(k.fullDelete(op.GetRequestDeleteRange()))
	}
	return op
}

func (k keys) fullCompare(c *pb.Compare) *pb.Compare {
	return &pb.Compare{Result: c.Result, Target: c.Target, Key: k.full(c.Key), RangeEnd: k.fullEnd(c.RangeEnd), TargetUnion: c.TargetUnion}
}

func rangeOp(r *pb.RangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
}

func putOp(r *pb.PutRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}}
}

func deleteOp(r *pb.DeleteRangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r}}
}

// get, put and remove are operations on keys of our own.
func get(key string) *pb.RequestOp { return rangeOp(&pb.RangeRequest{Key: []byte(key)}) }

func put(key string, value []byte) *pb.RequestOp {
	return putOp(&pb.PutRequest{Key: []byte(key), Value: value})
}

func remove(key string) *pb.RequestOp { return deleteOp(&pb.DeleteRangeRequest{Key: []byte(key)}) }

// modIs holds while a key was last changed at a revision; 0 is a key that is not there.
func modIs(key []byte, rev int64) *pb.Compare {
	return &pb.Compare{Key: key, Target: pb.Compare_MOD, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_ModRevision{ModRevision: rev}}
}

// createIs holds while a key was made at a revision; 0 is a key that is not there.
func createIs(key string, rev int64) *pb.Compare {
	return &pb.Compare{Key: []byte(key), Target: pb.Compare_CREATE, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_CreateRevision{CreateRevision: rev}}
}

// unchangedSince holds while no key of a range was changed or made after a revision.
func unchangedSince(key, end []byte, rev int64) *pb.Compare {
	return &pb.Compare{Key: key, RangeEnd: end, Target: pb.Compare_MOD, Result: pb.Compare_LESS, TargetUnion: &pb.Compare_ModRevision{ModRevision: rev + 1}}
}

// checkPrefix says what is wrong with a prefix.
func checkPrefix(prefix string) error {
	if !strings.HasPrefix(prefix, "/") || strings.HasSuffix(prefix, "/") || strings.Contains(prefix, "//") {
		return fmt.Errorf("prefix %q: want one that begins with a slash and does not end with one, as %s", prefix, DefaultPrefix)
	}
	return nil
}
