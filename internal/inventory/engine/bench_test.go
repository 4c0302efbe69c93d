// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Durable writes of 2 kB: from one writer, and from 64 at once.
func BenchmarkCreate(b *testing.B) {
	value := strings.Repeat("x", 2048)
	for _, writers := range []int{1, 64} {
		b.Run(fmt.Sprint("writers=", writers), func(b *testing.B) {
			c := benchEngine(b).Client()
			var n atomic.Int64
			share(b, writers, func() error {
				_, err := c.Txn(context.Background()).
					If(clientv3.Compare(clientv3.ModRevision("/x"), "=", 0)).
					Then(clientv3.OpPut(fmt.Sprintf("/k/%08d", n.Add(1)), value)).Commit()
				return err
			})
		})
	}
}

// Read, change and write back if nobody else did, each writer on its own keys.
func BenchmarkUpdate(b *testing.B) {
	value := strings.Repeat("x", 2048)
	c := benchEngine(b).Client()
	const keys = 1000
	for i := range keys {
		if _, err := c.Put(context.Background(), fmt.Sprint("/k/", i), value); err != nil {
			b.Fatal(err)
		}
	}
	var n atomic.Int64
	b.ResetTimer()
	share(b, 64, func() error {
		key := fmt.Sprint("/k/", n.Add(1)%keys)
		resp, err := c.Get(context.Background(), key)
		if err != nil {
			return err
		}
		_, err = c.Txn(context.Background()).
			If(clientv3.Compare(clientv3.ModRevision(key), "=", resp.Kvs[0].ModRevision)).
			Then(clientv3.OpPut(key, value)).Commit()
		return err
	})
}

func benchEngine(b *testing.B) *Engine {
	e, err := Open(filepath.Join(b.TempDir(), "a.db"), Options{Logger: discard, Now: time.Now})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { e.Close() })
	return e
}

func share(b *testing.B, writers int, do func() error) {
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := do(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
}
