// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// told is what one watch was told: events, and between them up to which revision it was said to have them all.
type told struct {
	prefix         string
	from           int64
	prev, noDelete bool
	events         []*mvccpb.Event
	promises       []int64 // the revision promised before the event of the same index, 0 is none
}

// read reads a watch until it was told of the last revision. A slow one rests now and then for longer than its channel lasts.
func (w *told) read(answers clientv3.WatchChan, slow bool, last int64) error {
	promised := int64(0)
	for resp := range answers {
		if err := resp.Err(); err != nil {
			return err
		}
		for _, ev := range resp.Events {
			w.events, w.promises = append(w.events, ev), append(w.promises, promised)
		}
		if len(resp.Events) == 0 {
			if resp.Header.Revision < promised {
				return fmt.Errorf("promised revision %d after %d", resp.Header.Revision, promised)
			}
			promised = resp.Header.Revision
		}
		if promised >= last {
			return nil
		}
		if slow && len(w.events)%97 == 0 {
			time.Sleep(3 * time.Millisecond)
		}
	}
	return fmt.Errorf("ended after %d events", len(w.events))
}

// judge compares with the history itself.
func (w *told) judge(t *testing.T, history []*mvccpb.Event) {
	n := 0
	for _, want := range history {
		if want.Kv.ModRevision < w.from || !strings.HasPrefix(string(want.Kv.Key), w.prefix) || w.noDelete && want.Type == mvccpb.Event_DELETE {
			continue
		}
		if n == len(w.events) {
			t.Errorf("%q from %d: was told %d events, revision %d is missing", w.prefix, w.from, n, want.Kv.ModRevision)
			return
		}
		got := w.events[n]
		if got.Kv != want.Kv || got.Type != want.Type || w.prev != (got.PrevKv != nil) && want.PrevKv != nil {
			t.Errorf("%q from %d: got %v, want %v", w.prefix, w.from, got, want)
			return
		}
		if w.promises[n] >= got.Kv.ModRevision {
			t.Errorf("%q from %d: revision %d came after %d was said to be all", w.prefix, w.from, got.Kv.ModRevision, w.promises[n])
		}
		n++
	}
	if n != len(w.events) {
		t.Errorf("%q from %d: was told %d events, want %d", w.prefix, w.from, len(w.events), n)
	}
}

// Watches of all kinds, quick and slow, that begin in the past, now and in the future, are each told exactly what the history
// says, while they change between being in step and behind.
func TestEveryWatchIsToldAll(t *testing.T) {
	e := open(t, filepath.Join(t.TempDir(), "a.db"), func(o *Options) {
		o.NoSync, o.History, o.ProgressInterval = true, 256<<20, time.Millisecond
	})
	c := e.Client()
	const writers, writes = 4, 1000
	last := int64(1 + writers*writes)
	watches := make([]*told, 80)
	var all sync.WaitGroup
	for i := range watches {
		w := &told{prefix: []string{"/", "/a", "/a/1", "/b/", "/none"}[i%5], prev: i%2 == 0, noDelete: i%7 == 0, from: 1 + rand.Int64N(last)}
		watches[i] = w
		options := []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithProgressNotify(), clientv3.WithRev(w.from)}
		if w.prev {
			options = append(options, clientv3.WithPrevKV())
		}
		if w.noDelete {
			options = append(options, clientv3.WithFilterDelete())
		}
		all.Go(func() {
			time.Sleep(time.Duration(i%20) * 10 * time.Millisecond)
			if err := w.read(c.Watch(t.Context(), w.prefix, options...), i%3 == 0, last); err != nil {
				t.Errorf("%q from %d: %v", w.prefix, w.from, err)
			}
		})
	}
	var busy sync.WaitGroup
	for n := range writers {
		busy.Go(func() {
			for i := range writes {
				key := fmt.Sprintf("/%c/%d/%d", 'a'+n%2, i%5, n)
				var err error
				if i%10 == 9 {
					// Each writer has keys of its own, so that what it deletes is there.
					_, err = c.Txn(context.Background()).Then(clientv3.OpPut("/shared", "x"), clientv3.OpDelete(key)).Commit()
				} else {
					_, err = c.Put(context.Background(), key, fmt.Sprint(n, i))
				}
				if err != nil {
					t.Error(err)
				}
				if i%50 == 0 {
					_ = c.RequestProgress(context.Background())
				}
			}
		})
	}
	busy.Wait()
	all.Wait()
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.rev != last {
		t.Errorf("at revision %d after %d writes", e.rev, last-1)
	}
	for _, w := range watches {
		w.judge(t, e.past.events)
	}
}
