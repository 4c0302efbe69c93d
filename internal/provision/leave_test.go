// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"strings"
	"testing"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
)

func (w *world) endPool() {
	w.t.Helper()
	if err := w.store.Pools().Delete(context.Background(), "default", "workers"); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) changeHost(change func(h *metal3.BareMetalHost)) {
	w.t.Helper()
	_, err := w.store.Hosts().Update(context.Background(), "default", "n1", func(h *metal3.BareMetalHost) error {
		change(h)
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func reasonOf(h *metal3.BareMetalHost, kind string) string {
	if c := meta.FindStatusCondition(h.Status.Conditions, kind); c != nil {
		return c.Reason
	}
	return ""
}

func TestReleasedHostIsDrainedAndErased(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool()
		w.enrol()
		w.until("provisioned", 5*time.Minute, inState(metal3.StateProvisioned))
		w.plane.mu.Lock()
		w.plane.pods = []string{"shop/cart: its disruption budget allows none"}
		w.plane.mu.Unlock()
		w.endPool()
		w.until("drain", time.Minute, waitsFor("Draining", w))
		time.Sleep(3 * time.Minute)
		if on, _ := w.rack.running(); !on || w.rack.drive().erases != 0 {
			t.Fatalf("the machine was switched off (on: %t) or erased (%d) while pods were on it", on, w.rack.drive().erases)
		}
		w.plane.mu.Lock()
		cordoned := w.plane.nodes["n1"].Unschedulable
		w.plane.pods = nil
		w.plane.mu.Unlock()
		if !cordoned {
			t.Error("the Node was not cordoned")
		}
		w.until("available", 5*time.Minute, inState(metal3.StateAvailable))
		e := w.progress().Erase
		if e == nil || !e.OK || e.Mode != v1alpha1.EraseFull || len(e.Drives) != 1 || e.Drives[0].SerialNumber != "D1" || e.Drives[0].Method == "" {
			t.Errorf("got erase %+v, want a full one with a record of drive D1", e)
		}
		if got := reasonOf(w.host(), v1alpha1.ErasedCondition); got != "Full" {
			t.Errorf("condition Erased has reason %q, want Full", got)
		}
		if _, there := w.plane.nodes["n1"]; there || len(w.plane.tokens) != 0 {
			t.Errorf("the Node (%t) or a bootstrap credential (%v) is left", there, w.plane.tokens)
		}
		p := w.progress()
		if p.Deployment != nil || p.Leaving != nil || p.Join != nil {
			t.Errorf("something of the host's earlier life is left: %+v", p)
		}
	})
}

func TestDrainEndsAtItsDeadline(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool(func(p *v1alpha1.NodePool) { p.Spec.DrainTimeout = &metav1.Duration{Duration: 2 * time.Minute} })
		w.enrol()
		w.until("provisioned", 5*time.Minute, inState(metal3.StateProvisioned))
		w.plane.mu.Lock()
		w.plane.pods = []string{"shop/cart: its disruption budget allows none"}
		w.plane.mu.Unlock()
		if _, err := w.store.Pools().Update(context.Background(), "default", "workers", func(p *v1alpha1.NodePool) error {
			p.Spec.Replicas = 0
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		w.until("erase", 5*time.Minute, waitsFor("Erasing", w))
		if took := time.Since(start); took < 2*time.Minute {
			t.Errorf("the drain ended after %s, before its deadline", took)
		}
		if l := w.progress().Leaving; l == nil || len(l.LeftBehind) != 1 {
			t.Errorf("what was left behind is not recorded: %+v", l)
		}
	})
}

func TestFailedEraseKeepsTheHostBack(t *testing.T) {
	inWorld(t, func(w *world) {
		w.rack.disk.unerasable = true
		w.pool()
		w.enrol()
		w.until("provisioned", 5*time.Minute, inState(metal3.StateProvisioned))
		w.endPool()
		w.until("a person", time.Hour, waitsFor("EraseFailed", w))
		time.Sleep(2 * time.Hour)
		if h := w.host(); h.Status.Provisioning.State != metal3.StateDeprovisioning || !strings.Contains(h.Status.ErrorMessage, "D1") {
			t.Errorf("state %q, error %q; want deprovisioning with the drive's serial number", h.Status.Provisioning.State, h.Status.ErrorMessage)
		}
		if got := reasonOf(w.host(), v1alpha1.ErasedCondition); got != "EraseFailed" {
			t.Errorf("condition Erased has reason %q, want EraseFailed", got)
		}
	})
}

func TestDisabledCleaningIsShown(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool(func(p *v1alpha1.NodePool) { p.Spec.Cleaning = "disabled" })
		w.enrol()
		w.until("provisioned", 5*time.Minute, inState(metal3.StateProvisioned))
		w.endPool()
		w.until("available", 10*time.Minute, inState(metal3.StateAvailable))
		if w.rack.drive().erases != 0 || reasonOf(w.host(), v1alpha1.ErasedCondition) != "CleaningDisabled" {
			t.Errorf("%d erases, condition Erased %q; want none, and CleaningDisabled", w.rack.drive().erases, reasonOf(w.host(), v1alpha1.ErasedCondition))
		}
	})
}

func TestRestartWhileLeavingConverges(t *testing.T) {
	for second := 0; second < 60; second += 4 {
		inWorld(t, func(w *world) {
			w.pool(func(p *v1alpha1.NodePool) { p.Spec.Method = "install" })
			w.enrol()
			w.until("provisioned", 10*time.Minute, inState(metal3.StateProvisioned))
			w.endPool()
			time.Sleep(time.Duration(second)*time.Second + 300*time.Millisecond)
			w.stop()
			time.Sleep(2 * time.Second)
			w.start()
			w.until("available", 20*time.Minute, inState(metal3.StateAvailable))
			if e := w.progress().Erase; e == nil || !e.OK {
				t.Errorf("restart at second %d: erase is %+v", second, e)
			}
			if w.rack.drive().holds != "" {
				t.Errorf("restart at second %d: the disk still boots", second)
			}
		})
	}
}

func TestCapHoldsDestructiveActsBack(t *testing.T) {
	inWorld(t, func(w *world) {
		w.stop()
		w.cap = 1
		w.start()
		w.pool()
		w.enrol()
		w.until("provisioned", 5*time.Minute, inState(metal3.StateProvisioned))
		w.endPool()
		w.until("the cap", 5*time.Minute, waitsFor("Capped", w)) // the power-off was one, the erase would be two
		if w.rack.drive().erases != 0 {
			t.Fatal("the drives were erased beyond the cap")
		}
		w.stop()
		w.start() // a restart is no way round it
		time.Sleep(10 * time.Minute)
		if w.rack.drive().erases != 0 {
			t.Fatal("the drives were erased beyond the cap after a restart")
		}
		w.until("available, an hour later", 90*time.Minute, inState(metal3.StateAvailable))
	})
}
