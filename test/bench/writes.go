// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"metald.io/metald/test/lab/rack"
)

const (
	writeClients = 64
	writeTime    = 3 * time.Second // of one run of one kind
	hostsPrefix  = "/registry/metal3.io/baremetalhosts/default/"
)

// hostJSON is a BareMetalHost of 2 KB, as the door would store it.
func hostJSON(name string, n int64) string {
	head := fmt.Sprintf(`{"apiVersion":"metal3.io/v1alpha1","kind":"BareMetalHost","metadata":{"name":%q,"namespace":"default","uid":"u"},`+
		`"spec":{"online":true,"bootMACAddress":"52:54:00:00:00:01","description":"%d `, name, n)
	return head + strings.Repeat("x", max(0, 2048-len(head)-3)) + `"}}` + "\n"
}

// durableWrites measures creates and read-modify-write updates of 64 writers, each acknowledged when it is on disk.
func durableWrites(ctx context.Context, _ *rack.Rack, pairs int) (err error) {
	dir, err := os.MkdirTemp("", "metald-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	creates, updates := map[string][]float64{}, map[string][]float64{}
	costs := map[string][]float64{}
	var plain []float64
	for range max(pairs, 9) {
		for _, open := range []func() (*keeper, error){
			func() (*keeper, error) { return openInventory(dir) },
			func() (*keeper, error) { return startEtcd(ctx, dir) },
		} {
			k, err := open()
			if err != nil {
				return err
			}
			cpu := k.cpu()
			rate, made, err := createHosts(ctx, k.client)
			cost := (k.cpu() - cpu) / float64(made) * 1e6
			var rewritten float64
			if err == nil {
				rewritten, err = updateHosts(ctx, k.client)
			}
			if err := errors.Join(err, k.close()); err != nil {
				return fmt.Errorf("%s: %w", k.name, err)
			}
			creates[k.name] = append(creates[k.name], rate)
			updates[k.name] = append(updates[k.name], rewritten)
			costs[k.name] = append(costs[k.name], cost)
		}
		rate, err := plainBolt(ctx, dir)
		if err != nil {
			return err
		}
		plain = append(plain, rate)
	}
	for name := range creates {
		low, high := interval(trimmed(creates[name]))
		fmt.Printf("# %s: %.0f creates/s (%.0f to %.0f), %.0f us of CPU each, %.0f updates/s\n", name, median(trimmed(creates[name])), low, high,
			median(costs[name]), median(trimmed(updates[name])))
	}
	metald, etcd := median(trimmed(creates["metald"])), median(trimmed(creates["etcd over gRPC"]))
	fmt.Printf("# one bbolt transaction a write: %.0f creates/s, metald is %.1f times that\n", median(plain), metald/median(plain))
	fmt.Printf("# %d writers, 2 KB, stores and writers share all cores; durability: metald D2 with its record of each write, etcd D2\n", writeClients)
	fmt.Printf("BENCH P13 metald=%.0f peer=%.0f ratio=%.3f unit=creates/s\n", metald, etcd, metald/etcd)
	metald, etcd = median(trimmed(updates["metald"])), median(trimmed(updates["etcd over gRPC"]))
	fmt.Printf("BENCH P13u metald=%.0f peer=%.0f ratio=%.3f unit=updates/s\n", metald, etcd, metald/etcd)
	return nil
}

// createHosts creates for a while, checks that all is there, and returns the rate and the number.
func createHosts(ctx context.Context, c *clientv3.Client) (rate float64, made int64, err error) {
	var next, done atomic.Int64
	took, err := forAWhile(ctx, func() error {
		name := fmt.Sprintf("h%08d", next.Add(1))
		resp, err := c.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(hostsPrefix+name), "=", 0)).
			Then(clientv3.OpPut(hostsPrefix+name, hostJSON(name, 0))).Commit()
		if err == nil && !resp.Succeeded {
			err = fmt.Errorf("%s was there before it was made", name)
		}
		if err == nil {
			done.Add(1)
		}
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	stored, err := c.Get(ctx, hostsPrefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return 0, 0, err
	}
	if stored.Count != done.Load() {
		return 0, 0, fmt.Errorf("%d creates were acknowledged, %d are there", done.Load(), stored.Count)
	}
	return float64(done.Load()) / took.Seconds(), done.Load(), nil
}

// updateHosts reads, changes and writes back, each writer its own host, and checks that no change was lost.
func updateHosts(ctx context.Context, c *clientv3.Client) (rate float64, err error) {
	var done atomic.Int64
	counts := make([]int64, writeClients)
	names := make(chan int, writeClients)
	for n := range writeClients {
		names <- n
	}
	took, err := forAWhile(ctx, func() error {
		n := <-names
		defer func() { names <- n }()
		name := fmt.Sprintf("h%08d", n+1)
		now, err := c.Get(ctx, hostsPrefix+name)
		if err != nil {
			return err
		}
		counts[n]++
		resp, err := c.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(hostsPrefix+name), "=", now.Kvs[0].ModRevision)).
			Then(clientv3.OpPut(hostsPrefix+name, hostJSON(name, counts[n]))).Commit()
		if err == nil && !resp.Succeeded {
			err = fmt.Errorf("%s was changed by another", name)
		}
		done.Add(1)
		return err
	})
	if err != nil {
		return 0, err
	}
	for n, count := range counts {
		name := fmt.Sprintf("h%08d", n+1)
		now, err := c.Get(ctx, hostsPrefix+name)
		if err != nil {
			return 0, err
		}
		if string(now.Kvs[0].Value) != hostJSON(name, count) {
			return 0, fmt.Errorf("the last change of %s was acknowledged and is not there", name)
		}
	}
	return float64(done.Load()) / took.Seconds(), nil
}

// plainBolt is what one gets who writes to bbolt as its documentation shows first.
func plainBolt(ctx context.Context, dir string) (rate float64, err error) {
	path := filepath.Join(dir, "plain.db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close(), os.Remove(path)) }()
	var next atomic.Int64
	took, err := forAWhile(ctx, func() error {
		name := fmt.Sprintf("h%08d", next.Add(1))
		return db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("keys"))
			if err != nil {
				return err
			}
			return b.Put([]byte(hostsPrefix+name), []byte(hostJSON(name, 0)))
		})
	})
	return float64(next.Load()) / took.Seconds(), err
}

// forAWhile lets all writers do it again and again.
func forAWhile(ctx context.Context, do func() error) (time.Duration, error) {
	group, ctx := errgroup.WithContext(ctx)
	start := time.Now()
	for range writeClients {
		group.Go(func() error {
			for time.Since(start) < writeTime && ctx.Err() == nil {
				if err := do(); err != nil {
					return err
				}
			}
			return ctx.Err()
		})
	}
	err := group.Wait()
	return time.Since(start), err
}
