// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"metald.io/metald/test/lab/rack"
)

const (
	watchers    = 1000
	watchEvents = 2000 // at 200 a second
	watchPrefix = "/watched/"
)

// watching measures how many events reach watchers for each second of CPU time, and how late they are.
func watching(ctx context.Context, _ *rack.Rack, pairs int) (err error) {
	dir, err := os.MkdirTemp("", "metald-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	rates, lags := map[string][]float64{}, map[string][]float64{}
	for range pairs {
		for _, open := range []func() (*keeper, error){
			func() (*keeper, error) { return openInventory(dir) },
			func() (*keeper, error) { return startEtcd(ctx, dir) },
		} {
			k, err := open()
			if err != nil {
				return err
			}
			rate, lag, err := deliver(ctx, k)
			if err := errors.Join(err, k.close()); err != nil {
				return fmt.Errorf("%s: %w", k.name, err)
			}
			rates[k.name] = append(rates[k.name], rate)
			lags[k.name] = append(lags[k.name], lag)
		}
	}
	for name := range rates {
		low, high := interval(rates[name])
		fmt.Printf("# %s: %.0f deliveries a second of CPU (%.0f to %.0f), p99 of the lag %.1f ms\n", name, median(rates[name]), low, high, median(lags[name]))
	}
	metald, etcd := median(rates["metald"]), median(rates["etcd over gRPC"])
	fmt.Printf("# %d watchers, %d events at 200/s, none lost, doubled or out of order; CPU of watchers and store; durability: both D2\n", watchers, watchEvents)
	fmt.Printf("BENCH P14 metald=%.0f peer=%.0f ratio=%.3f unit=deliveries/CPU-s\n", metald, etcd, metald/etcd)
	return nil
}

// deliver returns deliveries a second of CPU and the 99th percentile of the lag in ms.
func deliver(ctx context.Context, k *keeper) (rate, lag float64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var ready, done sync.WaitGroup
	var wrong atomic.Pointer[error]
	lags := make([][]float64, watchers)
	for n := range watchers {
		ready.Add(1)
		done.Add(1)
		go func() {
			defer done.Done()
			answers := k.client.Watch(ctx, watchPrefix, clientv3.WithPrefix(), clientv3.WithCreatedNotify())
			<-answers
			ready.Done()
			if err := follow(ctx, answers, &lags[n]); err != nil {
				wrong.Store(&err)
				cancel()
			}
		}()
	}
	ready.Wait()
	cpu, tick := k.cpu(), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for n := range watchEvents {
		<-tick.C
		if _, err := k.client.Put(ctx, watchPrefix+strconv.Itoa(n%100), strconv.FormatInt(time.Now().UnixNano(), 10)); err != nil {
			break // the watchers know why
		}
	}
	done.Wait()
	if err := wrong.Load(); err != nil {
		return 0, 0, *err
	}
	spent := k.cpu() - cpu
	var all []float64
	for _, l := range lags {
		all = append(all, l...)
	}
	return float64(watchers*watchEvents) / spent, percentile(all, 99), nil
}

// follow reads one watcher's events and notes how late each is, in ms.
func follow(ctx context.Context, answers clientv3.WatchChan, lags *[]float64) error {
	last, seen := int64(0), 0
	for answer := range answers {
		if err := answer.Err(); err != nil {
			return fmt.Errorf("a watch was cut after %d events: %w", seen, err)
		}
		now := time.Now().UnixNano()
		for _, event := range answer.Events {
			if event.Kv.ModRevision <= last {
				return fmt.Errorf("revision %d came after %d", event.Kv.ModRevision, last)
			}
			last = event.Kv.ModRevision
			sent, err := strconv.ParseInt(string(event.Kv.Value), 10, 64)
			if err != nil {
				return err
			}
			*lags = append(*lags, float64(now-sent)/1e6)
			if seen++; seen == watchEvents {
				return nil
			}
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("a watch ended after %d of %d events", seen, watchEvents)
}
