// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/internal/bmc"
	"metald.io/metald/internal/cluster"
	"metald.io/metald/internal/inventory/audit"
)

// ledger stands between the mind and the world. Each call that has an effect must find its intent in the record, on disk and
// without an outcome yet, and takes it; so that each intent stands for one effect and each effect for one intent.
type ledger struct {
	BMCs
	Cluster
	w *world

	mu    sync.Mutex
	taken map[uint64]bool
	calls map[string]int
	lose  bool // the BMC forgets its session once
}

// oversee puts a ledger before the world's BMC and cluster.
func (w *world) oversee() *ledger {
	w.stop()
	l := &ledger{BMCs: w.rack, Cluster: w.plane, w: w, taken: map[uint64]bool{}, calls: map[string]int{}}
	w.bmcs, w.control, w.acted = l, l, l.agentActs
	w.start()
	return l
}

// acts are those in the record, by number.
func (w *world) acts() (numbers []uint64, acts map[uint64]audit.Record) {
	w.t.Helper()
	acts = map[uint64]audit.Record{}
	err := w.store.ReadRecord(context.Background(), time.Time{}, func(e audit.Entry, r audit.Record) (bool, error) {
		if r.Act != nil {
			numbers, acts[e.Seq] = append(numbers, e.Seq), r
		}
		return true, nil
	})
	if err != nil {
		w.t.Errorf("reading the record: %v", err)
	}
	return numbers, acts
}

// open are the intents without an outcome: what an agent does names no number, and is matched by what it is.
func (w *world) open() map[uint64]audit.Act {
	w.t.Helper()
	numbers, acts := w.acts()
	open := map[uint64]audit.Act{}
	for _, n := range numbers {
		a := *acts[n].Act
		if a.Phase == audit.Intent {
			open[n] = a
			continue
		}
		if a.Intent != 0 {
			delete(open, a.Intent)
			continue
		}
		maps.DeleteFunc(open, func(_ uint64, o audit.Act) bool { return o.Verb == a.Verb && o.Detail == a.Detail })
	}
	return open
}

// announced takes the intent of an effect that is happening now. again may happen many times under one.
func (l *ledger) announced(verb, detail string, again bool) {
	l.w.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls[verb]++
	for n, a := range l.w.open() {
		if a.Verb == verb && strings.Contains(a.Detail, detail) && (again || !l.taken[n]) {
			l.taken[n] = true
			return
		}
	}
	l.w.t.Errorf("%q (%s) happens, and no open intent for it is in the record", verb, detail)
}

// agentActs hears of what the machine's agent does. The release of a secret is told once, before it is handed out.
func (l *ledger) agentActs(verb, what string) {
	if !strings.HasPrefix(verb, "release ") {
		l.announced(verb, what, true)
		return
	}
	l.mu.Lock()
	l.calls[verb]++
	l.mu.Unlock()
	numbers, acts := l.w.acts()
	if !slices.ContainsFunc(numbers, func(n uint64) bool { return acts[n].Act.Verb == verb && strings.Contains(acts[n].Act.Detail, what) }) {
		l.w.t.Errorf("the agent was given %s, and %q is not in the record", what, verb)
	}
}

func (l *ledger) Dial(ctx context.Context, t bmc.Target) (bmc.Controller, error) {
	l.announced("log in to BMC", t.Username, false)
	c, err := l.BMCs.Dial(ctx, t)
	if err != nil {
		return nil, err
	}
	return &overseen{c, l, t}, nil
}

// overseen is a BMC's connection under a ledger.
type overseen struct {
	bmc.Controller
	l      *ledger
	target bmc.Target
}

func (c *overseen) Power(ctx context.Context) (bmc.PowerState, error) {
	c.l.mu.Lock()
	lost := c.l.lose
	c.l.lose = false
	c.l.mu.Unlock()
	if lost {
		err := c.target.Again(ctx, func(context.Context) error {
			c.l.announced("log in to BMC", "its session had ended", false)
			return nil
		})
		if err != nil {
			return bmc.PowerUnknown, err
		}
	}
	return c.Controller.Power(ctx)
}

func (c *overseen) Switch(ctx context.Context, a bmc.PowerAction) error {
	c.l.announced("switch power", string(a), false)
	return c.Controller.Switch(ctx, a)
}

func (c *overseen) SetOneTimeBoot(ctx context.Context, t bmc.BootTarget) error {
	c.l.announced("set one-time boot", string(t), false)
	return c.Controller.SetOneTimeBoot(ctx, t)
}

func (l *ledger) Grant(ctx context.Context, node string, ttl time.Duration) (cluster.Grant, error) {
	l.announced("make join credential", node, false)
	return l.Cluster.Grant(ctx, node, ttl)
}

func (l *ledger) Revoke(ctx context.Context, id string) error {
	l.announced("revoke join credential", id, false)
	return l.Cluster.Revoke(ctx, id)
}

func (l *ledger) Approve(ctx context.Context, csr string, want cluster.Expected) error {
	l.announced("approve certificate request", csr, false)
	return l.Cluster.Approve(ctx, csr, want)
}

func (l *ledger) Label(ctx context.Context, node string, labels map[string]string) error {
	l.announced("label node", node, false)
	return l.Cluster.Label(ctx, node, labels)
}

func (l *ledger) Cordon(ctx context.Context, node, host string, on bool) error {
	l.announced("cordon node", node, false)
	return l.Cluster.Cordon(ctx, node, host, on)
}

func (l *ledger) Drain(ctx context.Context, node, host string, until time.Time) ([]string, error) {
	l.announced("drain node", node, true)
	return l.Cluster.Drain(ctx, node, host, until)
}

func (l *ledger) DeleteNode(ctx context.Context, node, host string) error {
	l.announced("delete node", node, false)
	return l.Cluster.DeleteNode(ctx, node, host)
}

// Over whole lives, from the first login to the last, each effect has its intent in the record before it happens, each intent
// is of an effect that happened, and each has its end.
func TestEachEffectIsAnnounced(t *testing.T) {
	inWorld(t, func(w *world) {
		l := w.oversee()
		w.rack.disk.unwritable, w.rack.disk.unerasable = true, true
		w.pool(toDisk)
		w.enrol()
		w.until("a failed write", 10*time.Minute, func(*metal3.BareMetalHost) bool { return w.rack.drive().writes > 0 })
		time.Sleep(20 * time.Second)
		w.rack.changeDrive(func(d *disk) { d.unwritable = false })
		w.until("Ready", 20*time.Minute, isReady)
		l.mu.Lock()
		l.lose = true
		l.mu.Unlock()
		time.Sleep(2 * time.Minute) // the next look at the power
		w.plane.mu.Lock()
		w.plane.pods = []string{"shop/cart: its disruption budget allows none"}
		w.plane.mu.Unlock()
		w.endPool()
		w.until("drain", time.Minute, waitsFor("Draining", w))
		time.Sleep(time.Minute)
		w.plane.mu.Lock()
		w.plane.pods = nil
		w.plane.mu.Unlock()
		w.until("a failed erase", 10*time.Minute, func(*metal3.BareMetalHost) bool { return w.rack.drive().erases > 0 })
		time.Sleep(20 * time.Second)
		w.rack.changeDrive(func(d *disk) { d.unerasable = false })
		w.until("available", 20*time.Minute, inState(metal3.StateAvailable))
		if err := w.store.Hosts().Delete(context.Background(), "default", "n1"); err != nil {
			t.Fatal(err)
		}
		for range 600 {
			if _, err := w.store.Hosts().Get(context.Background(), "default", "n1"); apierrors.IsNotFound(err) {
				break
			}
			time.Sleep(time.Second)
		}
		if _, err := w.store.Hosts().Get(context.Background(), "default", "n1"); !apierrors.IsNotFound(err) {
			t.Fatalf("the host is still there: %v", err)
		}

		l.mu.Lock()
		defer l.mu.Unlock()
		numbers, acts := w.acts()
		intents := map[string]int{}
		for _, n := range numbers {
			r := acts[n]
			if r.Host != "default/n1" || r.Actor.User != "metald" {
				t.Errorf("entry %d is of %+v, for host %q: %+v", n, r.Actor, r.Host, *r.Act)
			}
			if r.Act.Phase != audit.Intent {
				continue
			}
			intents[r.Act.Verb]++
			if !l.taken[n] {
				t.Errorf("entry %d announces what never happened: %+v", n, *r.Act)
			}
		}
		if left := w.open(); len(left) > 0 {
			t.Errorf("intents without an end: %+v", left)
		}
		for _, verb := range []string{"log in to BMC", "switch power", "set one-time boot", "make join credential", "revoke join credential",
			"approve certificate request", "label node", "cordon node", "delete node"} {
			if l.calls[verb] == 0 || l.calls[verb] != intents[verb] {
				t.Errorf("%s: it happened %d times, and was announced %d times; want the same, more than none", verb, l.calls[verb], intents[verb])
			}
		}
		for verb, want := range map[string]int{"write image": w.rack.drive().writes, "erase drives": w.rack.drive().erases, "drain node": 1} {
			if want == 0 || intents[verb] != want {
				t.Errorf("%s was announced %d times, want %d", verb, intents[verb], want)
			}
		}
		if w.rack.drive().writes < 2 || w.rack.drive().erases < 2 || l.calls["drain node"] < 2 {
			t.Errorf("%d writes, %d erases, %d passes of the drain: the life had no failures in it", w.rack.drive().writes, w.rack.drive().erases, l.calls["drain node"])
		}
		t.Logf("announced: %v, of %d acts in the record", intents, len(numbers))
	})
}

// A daemon that ends in the midst of a life does nothing unannounced when it comes back, neither for a pool nor for a user's own
// image with its config drive.
func TestEachEffectIsAnnouncedOverRestarts(t *testing.T) {
	for _, own := range []bool{false, true} {
		for second := 0; second < 150; second += 15 {
			inWorld(t, func(w *world) {
				l := w.oversee()
				restart := func() {
					time.Sleep(time.Duration(second)*time.Second + 300*time.Millisecond)
					w.stop()
					time.Sleep(2 * time.Second)
					w.start()
				}
				if own {
					secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "n1-user"}, Data: map[string][]byte{"userData": []byte("#cloud-config")}}
					if _, err := w.store.Secrets().Create(context.Background(), secret); err != nil {
						t.Fatal(err)
					}
					w.enrol(asksFor("raw"))
				} else {
					w.pool(toDisk)
					w.enrol()
				}
				restart()
				w.until("provisioned", 20*time.Minute, inState(metal3.StateProvisioned))
				if own {
					w.changeHost(func(h *metal3.BareMetalHost) { h.Spec.Image, h.Spec.Online = nil, false })
				} else {
					w.endPool()
				}
				restart()
				w.until("available", 20*time.Minute, inState(metal3.StateAvailable))
				l.mu.Lock()
				defer l.mu.Unlock()
				secret := "release join seed"
				if own {
					secret = "release config drive"
				}
				if l.calls["switch power"] < 4 || l.calls["write image"] == 0 || l.calls["erase drives"] == 0 || l.calls[secret] == 0 {
					t.Errorf("restarts after %d s: the life had too little in it: %v", second, l.calls)
				}
			})
		}
	}
}

// Whatever the mind can call of the world is either an effect that a ledger sees, or only reads; a new method is neither until
// somebody says which.
func TestWhatTheMindCanCall(t *testing.T) {
	effects := []string{"Approve", "Cordon", "DeleteNode", "Dial", "Drain", "Grant", "Label", "Revoke", "SetOneTimeBoot", "Switch"}
	reads := []string{
		"Certificate", "Sweep", // without credentials
		"Identity", "NetworkBoot", "OneTimeBoot", "Power", "Inventory", "Session",
		"Close",             // ends what a login began
		"Follow", "Version", // of a control plane
	}
	var found []string
	for _, i := range []reflect.Type{reflect.TypeFor[BMCs](), reflect.TypeFor[bmc.Controller](), reflect.TypeFor[bmc.Inventorier](),
		reflect.TypeFor[bmc.Sessioner](), reflect.TypeFor[Cluster]()} {
		for n := range i.NumMethod() {
			found = append(found, i.Method(n).Name)
		}
	}
	slices.Sort(found)
	want := slices.Sorted(slices.Values(slices.Concat(effects, reads)))
	if !slices.Equal(found, want) {
		t.Errorf("the mind can call %q, and what is known is %q", found, want)
	}
}
