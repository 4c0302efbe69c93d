// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/inventory"
)

// counted stands before a store and counts what it is asked.
type counted struct {
	clientv3.KV
	looks  atomic.Int64 // reads of a key's version alone
	reads  atomic.Int64 // reads of values
	writes atomic.Int64
}

func (c *counted) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	if clientv3.OpGet(key, opts...).IsKeysOnly() {
		c.looks.Add(1)
	} else {
		c.reads.Add(1)
	}
	return c.KV.Get(ctx, key, opts...)
}

func (c *counted) GetStream(ctx context.Context, key string, opts ...clientv3.OpOption) (clientv3.GetStreamChan, error) {
	c.reads.Add(1)
	return c.KV.GetStream(ctx, key, opts...)
}

func (c *counted) Do(ctx context.Context, op clientv3.Op) (clientv3.OpResponse, error) {
	c.reads.Add(1)
	return c.KV.Do(ctx, op)
}

func (c *counted) Txn(ctx context.Context) clientv3.Txn {
	c.writes.Add(1)
	return c.KV.Txn(ctx)
}

// countedQueue counts what is looked at.
type countedQueue struct {
	workqueue.TypedDelayingInterface[work]
	visits atomic.Int64
}

func (q *countedQueue) Get() (work, bool) {
	w, shutdown := q.TypedDelayingInterface.Get()
	if !shutdown {
		q.visits.Add(1)
	}
	return w, shutdown
}

// cost is what something made the mind do.
type cost struct{ visits, looks, reads, writes int64 }

func (c cost) within(most cost) bool {
	return c.visits <= most.visits && c.looks <= most.looks && c.reads <= most.reads && c.writes <= most.writes
}

func (c cost) String() string {
	return fmt.Sprintf("%d visits, %d looks at a version, %d reads, %d writes", c.visits, c.looks, c.reads, c.writes)
}

// measured is a mind over a hall, and what it did.
type measured struct {
	t       *testing.T
	store   *inventory.Store
	control *plane
	kv      *counted
	queue   *countedQueue
}

// inHall runs a test in fake time with a mind over a hall of hosts that are Ready.
func inHall(t *testing.T, hosts int, poll time.Duration, test func(m *measured)) {
	synctest.Test(t, func(t *testing.T) {
		store, err := inventory.Open(t.TempDir(), inventory.Options{NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		m := &measured{t: t, store: store, control: newPlane()}
		fillHall(t, store, m.control, hosts)
		m.kv = &counted{KV: store.Etcd().KV}
		store.Etcd().KV = m.kv
		mind := hallMind(store, m.control, &hall{})
		mind.Limits.Poll = poll
		m.queue = &countedQueue{TypedDelayingInterface: mind.queue}
		mind.queue = m.queue
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- mind.Run(ctx) }()
		defer func() { cancel(); <-done }()
		time.Sleep(5 * time.Minute)
		test(m)
	})
}

// during is what happens in a while after a change, or by itself.
func (m *measured) during(while time.Duration, change func() error) cost {
	m.t.Helper()
	now := func() cost {
		return cost{m.queue.visits.Load(), m.kv.looks.Load(), m.kv.reads.Load(), m.kv.writes.Load()}
	}
	before := now()
	if err := change(); err != nil {
		m.t.Fatal(err)
	}
	time.Sleep(while)
	after := now()
	return cost{after.visits - before.visits, after.looks - before.looks, after.reads - before.reads, after.writes - before.writes}
}

func nothing() error { return nil }

// rest waits until nothing is done any more.
func (m *measured) rest() {
	m.t.Helper()
	for range 30 { // the control plane is asked once a minute
		if m.during(8*time.Second, nothing) == (cost{}) {
			return
		}
	}
	m.t.Fatal("the mind does not come to rest")
}

// One change costs the mind as much in a big fleet as in a small one, and it comes to rest by itself.
func testCostOfChange(t *testing.T, hosts int) {
	ctx := context.Background()
	inHall(t, hosts, 24*time.Hour, func(m *measured) { // what happens by the clock alone is measured below
		store, control, name := m.store, m.control, hallName(hosts/2)
		for _, c := range []struct {
			what   string
			change func() error
			most   cost // the change itself is in it
		}{
			{"a label of a host", func() error {
				_, err := store.Hosts().Update(ctx, "default", name, func(h *metal3.BareMetalHost) error { h.Labels["a"] += "b"; return nil })
				return err
			}, cost{4, 25, 6, 4}},
			{"a report of an agent", func() error {
				_, err := store.Inventories().Update(ctx, "default", name, func(i *v1alpha1.HostInventory) error {
					at := metav1.Now()
					i.Status.Agent.LastSeen = &at
					return nil
				})
				return err
			}, cost{3, 15, 4, 2}},
			{"a password", func() error {
				_, err := store.Secrets().Update(ctx, "default", name+"-bmc", func(s *corev1.Secret) error { s.Data["password"] = append(s.Data["password"], 'x'); return nil })
				return err
			}, cost{4, 25, 6, 4}},
			{"a Node", func() error {
				n := control.nodes[name]
				n.Ready = !n.Ready
				control.nodes[name] = n
				control.follower.Node(n, false)
				return nil
			}, cost{10, 50, 12, 6}},
			{"a label of a pool", func() error {
				_, err := store.Pools().Update(ctx, "default", "workers", func(p *v1alpha1.NodePool) error {
					p.Labels = map[string]string{"a": time.Now().String()}
					return nil
				})
				return err
			}, cost{3, 10, 5, 3}},
		} {
			m.rest()
			got := m.during(8*time.Second, c.change)
			if c.what == "a Node" {
				got = m.during(8*time.Second, c.change) // Ready again
			}
			t.Logf("%d hosts, %s: %s", hosts, c.what, got)
			if got.visits == 0 || !got.within(c.most) {
				t.Errorf("%d hosts, %s: got %s; want some visits, and at most %s", hosts, c.what, got, c.most)
			}
		}
	})
}

func TestCostOfChange(t *testing.T) {
	for _, hosts := range []int{100, 1000} {
		testCostOfChange(t, hosts)
	}
}

// Hosts of which there is no news cost a look at a few version numbers: nothing is read, and the one thing that is written is,
// now and then, that their BMCs still answer.
func TestCostOfQuietHour(t *testing.T) {
	const hosts = 20
	inHall(t, hosts, 30*time.Second, func(m *measured) {
		got := m.during(time.Hour, nothing)
		seen := int64(hosts * time.Hour / seenEvery)
		t.Logf("%d hosts: %s", hosts, got)
		if polls := int64(hosts * time.Hour / (30 * time.Second)); got.visits < polls || got.visits > polls+seen+200 {
			t.Errorf("%d visits, want %d and those that a change asks for", got.visits, polls)
		}
		if most := (cost{got.visits, 10 * got.visits, seen + 200, seen + 10}); !got.within(most) {
			t.Errorf("got %s, want at most %s", got, most)
		}
	})
}

// unspoilt says whether a step changed what it shares with all others: an object in memory must be what is stored as its version.
func (w *world) unspoilt() {
	w.t.Helper()
	m := w.mind.Load()
	spoilt(w, m.hosts, w.store.Hosts())
	spoilt(w, m.progress, w.store.Progresses())
	spoilt(w, m.inventories, w.store.Inventories())
	spoilt(w, m.pools, w.store.Pools())
	spoilt(w, m.clusters, w.store.Clusters())
}

func spoilt[T inventory.Object](w *world, m *mirror[T], objects *inventory.Objects[T]) {
	w.t.Helper()
	for _, shared := range m.all() {
		stored, err := objects.Get(context.Background(), shared.GetNamespace(), shared.GetName())
		if err != nil || stored.GetResourceVersion() != shared.GetResourceVersion() {
			continue // written since
		}
		if diff := cmp.Diff(stored, shared, cmpopts.EquateEmpty()); diff != "" {
			w.t.Errorf("%T %s was changed where it is shared (-stored +shared):\n%s", shared, keyOf(shared), diff)
		}
	}
}
