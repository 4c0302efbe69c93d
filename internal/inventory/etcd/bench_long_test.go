// SPDX-License-Identifier: Apache-2.0

//go:build long

package etcd

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"metald.io/metald/internal/inventory/etcd/etcdtest"
)

// What a write costs on an etcd that syncs: one that goes into the log waits for those before it, others do not.
func BenchmarkPut(b *testing.B) {
	s := etcdtest.Start(b, "--unsafe-no-fsync=false")
	store := open(b, s, func(_ *Config, o *Options) {
		o.Note = func(_ context.Context, events []*mvccpb.Event) []byte {
			if strings.HasPrefix(string(events[0].Kv.Key), "/quiet") {
				return nil
			}
			return make([]byte, 500)
		}
	})
	value := strings.Repeat("x", 2000)
	var n atomic.Int64
	for _, c := range []struct {
		prefix  string
		writers int
	}{{"/noted", 1}, {"/noted", 64}, {"/quiet", 1}, {"/quiet", 64}} {
		b.Run(fmt.Sprintf("%s/writers=%d", c.prefix[1:], c.writers), func(b *testing.B) {
			b.SetParallelism(max(1, c.writers/2)) // for each core of two
			b.RunParallel(func(each *testing.PB) {
				for each.Next() {
					if _, err := store.Client().Put(context.Background(), fmt.Sprintf("%s/%d", c.prefix, n.Add(1)%1000), value); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}
