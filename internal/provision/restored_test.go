// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/inventory"
)

func (w *world) backup() []byte {
	w.t.Helper()
	var b bytes.Buffer
	if _, err := w.store.Backup(context.Background(), &b); err != nil {
		w.t.Fatal(err)
	}
	return b.Bytes()
}

// restoreFrom ends the mind, puts a backup in the store's place, and begins another mind over it.
func (w *world) restoreFrom(backup []byte) {
	w.t.Helper()
	w.stop()
	if err := w.store.Close(); err != nil {
		w.t.Fatal(err)
	}
	if _, err := inventory.Restore(context.Background(), w.dir, bytes.NewReader(backup), time.Now()); err != nil {
		w.t.Fatal(err)
	}
	store, err := inventory.Open(w.dir, inventory.Options{NoSync: true})
	if err != nil {
		w.t.Fatal(err)
	}
	w.store = store
	w.start()
}

// helloAgain opens a new session where the daemon was restarted, which knows of none.
func (r *rack) helloAgain(before *Mind, hello v1alpha1.Hello) *Mind {
	now := r.mind.Load()
	if now == before {
		return now
	}
	c := now.Identify(hello, r.ek)
	if !c.Known || c.Refuse != nil {
		return before
	}
	r.say(c.Host, func(a *v1alpha1.AgentFacts) { a.LastSeen = ptrNow() })
	return now
}

// A host that the backup knows as it runs goes on running: its agent is believed, and nothing is switched.
func TestRestoredHostGoesOnRunning(t *testing.T) {
	inWorld(t, func(w *world) {
		w.enrol()
		w.pool()
		w.until("provisioned", 10*time.Minute, inState(metal3.StateProvisioned))
		backup, before := w.backup(), w.progress().Epoch
		_, boots := w.rack.running()
		offs := w.rack.offs
		time.Sleep(10 * time.Minute)
		w.restoreFrom(backup)
		time.Sleep(20 * time.Minute)
		on, again := w.rack.running()
		if !on || again != boots || w.rack.offs != offs || w.progress().Epoch != before {
			t.Errorf("on %v, %d boots, %d offs, epoch %d; want it left running, with %d, %d, %d", on, again, w.rack.offs, w.progress().Epoch, boots, offs, before)
		}
		if !inState(metal3.StateProvisioned)(w.host()) || w.progress().Waiting != nil {
			t.Errorf("state %q, waits for %+v; want provisioned", w.host().Status.Provisioning.State, w.progress().Waiting)
		}
		// The next boot is beyond all epochs that there may have been.
		w.rack.unplug()
		w.until("a new epoch", 10*time.Minute, func(*metal3.BareMetalHost) bool { return w.progress().Epoch > time.Now().Add(-24*time.Hour).Unix() })
		w.until("it runs again", 10*time.Minute, inState(metal3.StateProvisioned))
	})
}

// A host that was free when the backup was made, and runs now, is not touched until a person says that it may be, or it is
// off.
func TestRestoredHostThatRunsIsNotTouched(t *testing.T) {
	for _, end := range []string{"taken", "switched off", "deleted"} {
		t.Run(end, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.enrol(func(h *metal3.BareMetalHost) {
					h.Annotations = map[string]string{v1alpha1.TakenAnnotation: "ops: long ago"}
				})
				w.until("available", 10*time.Minute, inState(metal3.StateAvailable))
				time.Sleep(5 * time.Minute)
				backup := w.backup()
				w.pool()
				w.until("provisioned", 10*time.Minute, inState(metal3.StateProvisioned))
				given := w.progress().Epoch
				_, boots := w.rack.running()
				offs := w.rack.offs
				w.restoreFrom(backup)
				w.until("hold", 10*time.Minute, waitsFor("RestoredHostRunning", w))
				w.pool()                     // who wants it must wait too
				time.Sleep(15 * time.Minute) // longer than a boot may take
				if on, again := w.rack.running(); !on || again != boots || w.rack.offs != offs {
					t.Fatalf("on %v, %d boots, %d offs; want it left running, with %d and %d", on, again, w.rack.offs, boots, offs)
				}
				switch end {
				case "taken":
					if _, err := w.store.Hosts().Update(context.Background(), "default", "n1", func(h *metal3.BareMetalHost) error {
						h.Annotations[v1alpha1.TakenAnnotation] = "ops: it may go"
						return nil
					}); err != nil {
						t.Fatal(err)
					}
				case "switched off":
					w.rack.unplug()
				case "deleted":
					if err := w.store.Hosts().Delete(context.Background(), "default", "n1"); err != nil {
						t.Fatal(err)
					}
					time.Sleep(30 * time.Minute)
					if _, err := w.store.Hosts().Get(context.Background(), "default", "n1"); err == nil {
						t.Errorf("it is still there, and waits for %+v", w.progress().Waiting)
					}
					if on, _ := w.rack.running(); !on || w.rack.offs != offs {
						t.Error("it was switched off while it was let go")
					}
					return
				}
				w.until("provisioned", 20*time.Minute, inState(metal3.StateProvisioned))
				if got := w.progress().Epoch; got <= given+1 {
					t.Errorf("epoch %d after the restore, %d was given out before it", got, given)
				}
			})
		})
	}
}

// Another machine behind the BMC's address, or none, is not the one that the inventory speaks of.
func TestRestoredHostMustBeTheSame(t *testing.T) {
	inWorld(t, func(w *world) {
		w.enrol()
		w.until("available", 10*time.Minute, inState(metal3.StateAvailable))
		time.Sleep(5 * time.Minute)
		backup := w.backup()
		w.rack.mu.Lock()
		w.rack.uuid = "99999999-2222-3333-4444-555555555555"
		w.rack.mu.Unlock()
		w.restoreFrom(backup)
		w.pool()
		w.until("refusal", 10*time.Minute, waitsFor("IdentityChanged", w))
		_, boots := w.rack.running()
		time.Sleep(15 * time.Minute)
		if _, again := w.rack.running(); again != boots {
			t.Error("another machine was switched on")
		}
	})
}

// A plan says that a host is looked at first, and what holds it back then, by the rule that the mind goes by. What a person
// says while the host is paused is of what runs now.
func TestPlanOfRestoredHost(t *testing.T) {
	inWorld(t, func(w *world) {
		plan := func(look func(View, World) []Act) []string {
			t.Helper()
			v, ok := w.mind.Load().glance("default/n1")
			if !ok {
				t.Fatal("the host is not known")
			}
			if c := meta.FindStatusCondition(v.Host.Status.Conditions, v1alpha1.ObservedCondition); c != nil {
				v.Unseen = c.LastTransitionTime.Time // as the command does, which has nothing but the API
			}
			return planned(look(v, World{}))
		}
		pause := func(on bool) {
			w.changeHost(func(h *metal3.BareMetalHost) {
				delete(h.Annotations, v1alpha1.PausedAnnotation)
				if on {
					metav1.SetMetaDataAnnotation(&h.ObjectMeta, v1alpha1.PausedAnnotation, "me: a look at the backup")
				}
			})
			time.Sleep(5 * time.Second)
		}
		w.enrol(func(h *metal3.BareMetalHost) {
			h.Annotations = map[string]string{v1alpha1.TakenAnnotation: "ops: long ago"}
		})
		w.until("available", 10*time.Minute, inState(metal3.StateAvailable))
		time.Sleep(5 * time.Minute)
		if text := strings.Join(plan(PlanRelease), "\n"); strings.Contains(text, "restored") {
			t.Errorf("a host that was never restored is planned like one: %s", text)
		}
		backup := w.backup()
		w.pool()
		w.until("provisioned", 10*time.Minute, inState(metal3.StateProvisioned))
		_, boots := w.rack.running()
		w.restoreFrom(backup)
		pause(true)
		if c := meta.FindStatusCondition(w.host().Status.Conditions, v1alpha1.ObservedCondition); c == nil || c.Reason != "InventoryRestored" {
			t.Errorf("condition Observed of a paused host is %+v", c)
		}
		if got := plan(PlanRelease); len(got) != 1 || !strings.HasPrefix(got[0], "hold: paused") {
			t.Errorf("paused: got %q", got)
		}
		pause(false)
		w.until("hold", 10*time.Minute, waitsFor(RestoredHostRunning, w))
		for name, look := range map[string]func(View, World) []Act{"what is next": Plan, "released": PlanRelease} {
			if got := plan(look); len(got) != 1 || !strings.HasPrefix(got[0], "hold: its agent, or a person: the inventory was restored at ") {
				t.Errorf("%s of a host that waits since a restore: got %q, want its hold", name, got)
			}
		}
		pause(true)
		w.changeHost(func(h *metal3.BareMetalHost) { h.Annotations[v1alpha1.TakenAnnotation] = "ops: it may go" })
		pause(false)
		w.until("available and off", 20*time.Minute, func(h *metal3.BareMetalHost) bool { return !h.Status.PoweredOn && inState(metal3.StateAvailable)(h) })
		if c := meta.FindStatusCondition(w.host().Status.Conditions, v1alpha1.ObservedCondition); c != nil {
			t.Errorf("condition Observed of a host that was seen is %+v", c)
		}
		if text := strings.Join(plan(PlanRelease), "\n"); strings.Contains(text, "restored") {
			t.Errorf("the host was seen, and its plan is still %s", text)
		}
		if _, now := w.rack.running(); now != boots {
			t.Errorf("%d boots, want the %d from before", now, boots)
		}
	})
}
