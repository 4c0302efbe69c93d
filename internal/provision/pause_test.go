// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"testing"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/bmc"
	"metald.io/metald/internal/inventory"
)

// late has a mirror learn of each change this much later.
func late[T inventory.Object](m *mirror[T], by time.Duration) {
	changed := m.changed
	m.changed = func(object T, gone bool) {
		time.Sleep(by)
		changed(object, gone)
	}
}

var byMe = map[string]string{v1alpha1.PausedAnnotation: "me: stop"}

// pauseAll pauses all of metald, or ends the pause.
func (w *world) pauseAll(annotations map[string]string) {
	w.t.Helper()
	ctx := context.Background()
	if _, err := w.store.Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.OwnNamespace, Annotations: annotations}}); err == nil {
		return
	}
	_, err := w.store.Namespaces().Update(ctx, "", v1alpha1.OwnNamespace, func(n *corev1.Namespace) error { n.Annotations = annotations; return nil })
	if err != nil {
		w.t.Fatal(err)
	}
}

// A pause that was acknowledged holds for all that is asked after it, also while memory has not heard of it.
func TestPauseHoldsBeforeItIsHeardOf(t *testing.T) {
	t.Run("of all", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.stop()
			w.tune = func(m *Mind) { late(m.namespaces, time.Minute) }
			w.start()
			time.Sleep(time.Second)
			w.pauseAll(byMe)
			w.enrol()
			w.until("pause", 5*time.Minute, waitsFor("Paused", w))
			time.Sleep(10 * time.Minute)
			if w.rack.logins != 0 || w.rack.dials != 0 {
				t.Errorf("got %d logins and %d connections to a BMC while all of metald was paused, want none", w.rack.logins, w.rack.dials)
			}
			w.pauseAll(nil)
			w.until("available", 10*time.Minute, inState(metal3.StateAvailable))
		})
	})
	t.Run("of a pool", func(t *testing.T) {
		inWorld(t, func(w *world) {
			ctx := context.Background()
			w.stop()
			w.tune = func(m *Mind) { late(m.pools, time.Minute) }
			w.start()
			w.pool(func(p *v1alpha1.NodePool) { p.Spec.Replicas = 0 })
			w.enrol()
			w.until("available", 10*time.Minute, inState(metal3.StateAvailable))
			time.Sleep(10 * time.Minute)
			boots := w.rack.boots
			change := func(change func(p *v1alpha1.NodePool)) {
				t.Helper()
				if _, err := w.store.Pools().Update(ctx, "default", "workers", func(p *v1alpha1.NodePool) error { change(p); return nil }); err != nil {
					t.Fatal(err)
				}
			}
			change(func(p *v1alpha1.NodePool) { p.Labels = map[string]string{"keeps": "the mirror busy"} })
			time.Sleep(time.Second)
			change(func(p *v1alpha1.NodePool) { p.Annotations, p.Spec.Replicas = byMe, 1 })
			w.changeHost(func(h *metal3.BareMetalHost) { // claimed by another hand than the paused pool's
				h.Spec.CustomDeploy, h.Spec.Online = &metal3.CustomDeploy{Method: v1alpha1.DisklessMethod}, true
				h.Spec.ConsumerRef = &corev1.ObjectReference{Kind: "NodePool", Namespace: "default", Name: "workers"}
			})
			w.until("pause", 5*time.Minute, waitsFor("Paused", w))
			time.Sleep(10 * time.Minute)
			if w.rack.boots != boots {
				t.Errorf("the host of a paused pool was switched on %d times", w.rack.boots-boots)
			}
			change(func(p *v1alpha1.NodePool) { p.Annotations = nil })
			w.until("Ready", 10*time.Minute, isReady)
		})
	})
}

// slowBMC is a BMC that takes its time to read the machine's power.
type slowBMC struct {
	BMCs
	takes time.Duration
}

func (s slowBMC) Dial(ctx context.Context, t bmc.Target) (bmc.Controller, error) {
	c, err := s.BMCs.Dial(ctx, t)
	return slowPower{c, s.takes}, err
}

type slowPower struct {
	bmc.Controller
	takes time.Duration
}

func (s slowPower) Power(ctx context.Context) (bmc.PowerState, error) {
	time.Sleep(s.takes)
	return s.Controller.Power(ctx)
}

// A step that was under way when the pause came begins no other act.
func TestPauseEndsTheStepThatIsUnderWay(t *testing.T) {
	for name, pause := range map[string]func(w *world, annotations map[string]string){
		"of all": (*world).pauseAll,
		"of the host": func(w *world, annotations map[string]string) {
			w.changeHost(func(h *metal3.BareMetalHost) { h.Annotations = annotations })
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.enrol()
				w.until("available", 10*time.Minute, inState(metal3.StateAvailable))
				time.Sleep(time.Minute)
				w.stop()
				w.bmcs, w.control, w.acted = slowBMC{w.rack, 10 * time.Second}, w.plane, func(string, string) {}
				boots := w.rack.boots
				w.pool() // when it has claimed the host, a step reads the power, and then boots the image
				w.start()
				w.until("a claim", time.Minute, inState(metal3.StateProvisioning))
				time.Sleep(3 * time.Second)
				if p := w.progress(); p.Epoch != 1 {
					t.Fatalf("the pause does not come in the midst of the step: %+v", p)
				}
				pause(w, byMe)
				w.until("pause", time.Minute, waitsFor("Paused", w))
				time.Sleep(10 * time.Minute)
				if w.rack.boots != boots {
					t.Errorf("the machine was switched on %d times after the pause", w.rack.boots-boots)
				}
				if p := w.progress(); p.LastError != "" || p.Attempts != 0 {
					t.Errorf("a pause counts as a failure: %q, %d attempts", p.LastError, p.Attempts)
				}
				pause(w, nil)
				w.until("Ready", 10*time.Minute, isReady)
			})
		})
	}
}

// A certificate request comes once: one that came under a pause is approved after it.
func TestRequestUnderPauseIsApprovedLater(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool()
		w.enrol()
		w.until("the seed", 10*time.Minute, func(*metal3.BareMetalHost) bool { return w.granted() })
		w.changeHost(func(h *metal3.BareMetalHost) { h.Annotations = byMe })
		time.Sleep(10 * time.Minute)
		w.plane.mu.Lock()
		nodes := len(w.plane.nodes)
		w.plane.mu.Unlock()
		if nodes != 0 {
			t.Error("a certificate request was approved while its host was paused")
		}
		w.changeHost(func(h *metal3.BareMetalHost) { h.Annotations = nil })
		w.until("Ready", time.Minute, isReady)
		if w.plane.granted != 1 {
			t.Errorf("%d credentials were made, want 1", w.plane.granted)
		}
	})
}

// granted answers whether the host's agent was given a bootstrap credential.
func (w *world) granted() bool {
	p, err := w.store.Progresses().Get(context.Background(), "default", "n1")
	return err == nil && p.Status.Join != nil
}
