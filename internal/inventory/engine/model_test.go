// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// model is the naive store: a whole copy of the keys for every revision.
type model struct {
	at     map[int64]map[string]string
	rev    int64
	oldest int64
	events []string
}

func (m *model) step(change func(keys map[string]string)) {
	keys := maps.Clone(m.at[m.rev])
	change(keys)
	m.rev++
	m.at[m.rev] = keys
}

// TestAgainstModel does random writes and compares what is read, at every revision that is still there, with the naive
// store; then it replays all events from every revision on.
func TestAgainstModel(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			t.Parallel()
			againstModel(t, rand.New(rand.NewPCG(seed, 0)))
		})
	}
}

func againstModel(t *testing.T, rng *rand.Rand) {
	ctx := t.Context()
	// A history of a few dozen events, so that the model runs off its end.
	e := open(t, filepath.Join(t.TempDir(), "a.db"), func(o *Options) { o.History = 60 * eventOverhead })
	c := e.Client()
	m := &model{at: map[int64]map[string]string{1: {}}, rev: 1, oldest: 1}
	key := func() string { return fmt.Sprintf("/%c", 'a'+rng.IntN(8)) }
	for i := range 200 {
		k, v := key(), fmt.Sprint(i)
		switch rng.IntN(6) {
		case 0:
			resp, err := c.Delete(ctx, k)
			if err != nil {
				t.Fatal(err)
			}
			if resp.Deleted > 0 {
				m.step(func(keys map[string]string) { delete(keys, k) })
				m.events = append(m.events, fmt.Sprint(m.rev, " delete ", k))
			}
		case 1: // two keys at one revision
			other := key()
			if other == k {
				continue
			}
			if _, err := c.Txn(ctx).Then(clientv3.OpPut(k, v), clientv3.OpPut(other, v)).Commit(); err != nil {
				t.Fatal(err)
			}
			m.step(func(keys map[string]string) { keys[k], keys[other] = v, v })
			m.events = append(m.events, fmt.Sprint(m.rev, " put ", k, " ", v), fmt.Sprint(m.rev, " put ", other, " ", v))
		case 2: // a comparison that cannot hold
			resp, err := c.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(k), ">", m.rev)).Then(clientv3.OpPut(k, v)).Commit()
			if err != nil {
				t.Fatal(err)
			}
			if resp.Succeeded {
				t.Fatalf("a key was changed after the newest revision %d", m.rev)
			}
		case 3:
			if i%10 == 0 && m.rev > 3 {
				rev := m.rev - int64(rng.IntN(3))
				if _, err := c.Compact(ctx, rev); err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
					t.Fatal(err)
				}
			}
		default:
			put(t, c, k, v)
			m.step(func(keys map[string]string) { keys[k] = v })
			m.events = append(m.events, fmt.Sprint(m.rev, " put ", k, " ", v))
		}
		if i%7 == 0 {
			compareReads(t, rng, c, m, e)
		}
	}
	replay(t, c, m, e)
}

func compacted(e *Engine) int64 {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.past.compacted
}

func compareReads(t *testing.T, rng *rand.Rand, c *clientv3.Client, m *model, e *Engine) {
	t.Helper()
	for rev := int64(1); rev <= m.rev+1; rev++ {
		resp, err := c.Get(context.Background(), "/", clientv3.WithPrefix(), clientv3.WithRev(rev), clientv3.WithLimit(int64(rng.IntN(4))))
		switch {
		case rev > m.rev:
			if !errors.Is(err, rpctypes.ErrFutureRev) {
				t.Fatalf("reading revision %d of %d: got %v, want ErrFutureRev", rev, m.rev, err)
			}
			continue
		case rev < compacted(e):
			if !errors.Is(err, rpctypes.ErrCompacted) {
				t.Fatalf("reading revision %d, compacted at %d: got %v, want ErrCompacted", rev, compacted(e), err)
			}
			continue
		case err != nil:
			t.Fatalf("reading revision %d of %d, compacted at %d: %v", rev, m.rev, compacted(e), err)
		}
		want := m.at[rev]
		if resp.Count != int64(len(want)) || resp.More != (len(resp.Kvs) < len(want)) {
			t.Fatalf("revision %d: count %d, more %v with %d keys; want count %d", rev, resp.Count, resp.More, len(resp.Kvs), len(want))
		}
		for i, k := range slices.Sorted(maps.Keys(want))[:len(resp.Kvs)] {
			if got := resp.Kvs[i]; string(got.Key) != k || string(got.Value) != want[k] {
				t.Fatalf("revision %d: key %d is %s=%s, want %s=%s", rev, i, got.Key, got.Value, k, want[k])
			}
		}
	}
}

// replay watches from every revision and wants the events from there on, whole revisions in order.
func replay(t *testing.T, c *clientv3.Client, m *model, e *Engine) {
	t.Helper()
	for from := int64(2); from <= m.rev; from++ {
		ctx, cancel := context.WithCancel(context.Background())
		var want []string
		for _, ev := range m.events {
			var rev int64
			fmt.Sscan(ev, &rev)
			if rev >= from {
				want = append(want, ev)
			}
		}
		var got []string
		watch := c.Watch(ctx, "/", clientv3.WithPrefix(), clientv3.WithRev(from), clientv3.WithPrevKV())
		for len(got) < len(want) {
			resp := <-watch
			if from <= compacted(e) {
				if !errors.Is(resp.Err(), rpctypes.ErrCompacted) {
					t.Fatalf("watching from %d, compacted at %d: got %v, want ErrCompacted", from, compacted(e), resp.Err())
				}
				break
			}
			for _, ev := range resp.Events {
				if !ev.IsCreate() && ev.PrevKv == nil {
					t.Fatalf("event %v lacks what was before", ev)
				}
				text := fmt.Sprint(ev.Kv.ModRevision, " put ", string(ev.Kv.Key), " ", string(ev.Kv.Value))
				if ev.Type == clientv3.EventTypeDelete {
					text = fmt.Sprint(ev.Kv.ModRevision, " delete ", string(ev.Kv.Key))
				}
				got = append(got, text)
			}
		}
		cancel()
		if from > compacted(e) {
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("events from %d (-want +got):\n%s", from, diff)
			}
		}
	}
}

// TestPagesAreOneMoment moves an amount between accounts from several goroutines, while others add up all accounts page by
// page at one revision, and a watch follows: nobody may see an amount that is nowhere or twice.
func TestPagesAreOneMoment(t *testing.T) {
	e := open(t, filepath.Join(t.TempDir(), "a.db"))
	c := e.Client()
	const accounts, amount, moves, readers = 6, 100, 300, 3
	name := func(i int) string { return fmt.Sprintf("/account/%d", i) }
	for i := range accounts {
		put(t, c, name(i), fmt.Sprint(amount))
	}
	total := func(resp *clientv3.GetResponse) (sum int) {
		for _, kv := range resp.Kvs {
			n, _ := strconv.Atoi(string(kv.Value))
			sum += n
		}
		return sum
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for reader := range readers {
		wg.Go(func() {
			for read := 0; ctx.Err() == nil || read == 0; read++ {
				first, err := c.Get(t.Context(), "/account/", clientv3.WithPrefix(), clientv3.WithLimit(1))
				if err != nil {
					t.Error(err)
					return
				}
				rest, err := c.Get(t.Context(), string(first.Kvs[0].Key)+"\x00", clientv3.WithRange("/account0"), clientv3.WithRev(first.Header.Revision))
				if err != nil {
					t.Error(err)
					return
				}
				if got := total(first) + total(rest); got != accounts*amount {
					t.Errorf("reader %d: %d at revision %d, want %d", reader, got, first.Header.Revision, accounts*amount)
					return
				}
			}
		})
	}
	watch := c.Watch(ctx, "/account/", clientv3.WithPrefix(), clientv3.WithRev(2))
	var movers sync.WaitGroup
	for m := range 4 {
		rng := rand.New(rand.NewPCG(uint64(m), 1))
		movers.Go(func() {
			for range moves {
				a := rng.IntN(accounts)
				move(t, c, name(a), name((a+1+rng.IntN(accounts-1))%accounts))
			}
		})
	}
	movers.Wait()
	cancel()
	wg.Wait()
	end, err := c.Get(t.Context(), "/account/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	if got := total(end); got != accounts*amount {
		t.Errorf("at the end: %d, want %d", got, accounts*amount)
	}
	last := int64(1)
	for resp := range watch {
		for _, ev := range resp.Events {
			if rev := ev.Kv.ModRevision; rev != last && rev != last+1 {
				t.Fatalf("watch went from revision %d to %d", last, rev)
			}
			last = ev.Kv.ModRevision
		}
	}
}

// move takes one from a and gives it to b in one transaction, again until nobody comes between.
func move(t *testing.T, c *clientv3.Client, a, b string) {
	for {
		read, err := c.Txn(t.Context()).Then(clientv3.OpGet(a), clientv3.OpGet(b)).Commit()
		if err != nil {
			t.Error(err)
			return
		}
		from, to := read.Responses[0].GetResponseRange().Kvs[0], read.Responses[1].GetResponseRange().Kvs[0]
		x, _ := strconv.Atoi(string(from.Value))
		y, _ := strconv.Atoi(string(to.Value))
		done, err := c.Txn(t.Context()).If(
			clientv3.Compare(clientv3.ModRevision(a), "=", from.ModRevision), clientv3.Compare(clientv3.ModRevision(b), "=", to.ModRevision),
		).Then(clientv3.OpPut(a, fmt.Sprint(x-1)), clientv3.OpPut(b, fmt.Sprint(y+1))).Commit()
		if err != nil {
			t.Error(err)
			return
		}
		if done.Succeeded {
			return
		}
	}
}
