// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
)

func TestFromOffToReady(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool()
		w.enrol()
		w.until("Ready", 5*time.Minute, func(h *metal3.BareMetalHost) bool {
			return meta.IsStatusConditionTrue(h.Status.Conditions, metal3.ReadyCondition)
		})
		var ways []string
		p := w.progress()
		for _, tr := range p.Transitions {
			ways = append(ways, tr.On+" "+tr.To)
		}
		want := []string{"enrolled registering", "verified inspecting", "inspected preparing", "prepared available", "claimed provisioning",
			"joined provisioned"}
		if diff := cmp.Diff(want, ways); diff != "" {
			t.Errorf("transitions (-want +got):\n%s", diff)
		}
		h := w.host()
		for _, c := range []string{metal3.ManageableCondition, metal3.ProvisionedCondition, metal3.ReadyCondition, v1alpha1.AttestedCondition, v1alpha1.JoinedCondition} {
			if !meta.IsStatusConditionTrue(h.Status.Conditions, c) {
				t.Errorf("condition %s is not true: %+v", c, meta.FindStatusCondition(h.Status.Conditions, c))
			}
		}
		if p.Waiting != nil {
			t.Errorf("a Ready host waits for %+v", p.Waiting)
		}
		for _, ph := range p.Phases {
			if ph.End == nil {
				t.Errorf("phase %s has not ended", ph.Name)
			}
		}
		if p.Epoch != 2 || w.rack.boots != 2 {
			t.Errorf("got epoch %d after %d power-ons, want 2 and 2", p.Epoch, w.rack.boots)
		}
		if p.Join == nil || p.Join.Used == nil || len(w.plane.tokens) != 0 {
			t.Errorf("the bootstrap credential was not removed after use: %+v, cluster has %v", p.Join, w.plane.tokens)
		}
		if got := w.plane.nodes["n1"].Labels; got[v1alpha1.ZoneLabel] != "z1" || got[v1alpha1.HostLabel] != "default.n1" || got[v1alpha1.PoolLabel] != "workers" {
			t.Errorf("node labels: got %v", got)
		}
		if got := h.Status.Provisioning.CustomDeploy; got == nil || got.Method != v1alpha1.DisklessMethod {
			t.Errorf("status.provisioning.customDeploy: got %v", got)
		}
		if hd, err := w.store.HardwareData().Get(context.Background(), "default", "n1"); err != nil || hd.Spec.HardwareDetails.CPU.Count != 4 {
			t.Errorf("HardwareData: got %+v, %v", hd, err)
		}
	})
}

func TestNothingIsWrittenWhileNothingHappens(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool()
		w.enrol()
		w.until("provisioned", 5*time.Minute, inState(metal3.StateProvisioned))
		time.Sleep(time.Minute)
		before := w.host().ResourceVersion
		time.Sleep(time.Hour)
		if got := w.host().ResourceVersion; got != before {
			t.Errorf("the host went from version %s to %s in a quiet hour", before, got)
		}
	})
}

func TestWrongPasswordIsTriedOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		w.rack.password = "another"
		w.enrol()
		w.until("refusal", time.Minute, waitsFor("BMCCredentialsRefused", w))
		time.Sleep(time.Hour)
		if w.rack.logins != 1 {
			t.Errorf("got %d logins with a refused password, want 1", w.rack.logins)
		}
		h := w.host()
		if h.Status.ErrorType != metal3.RegistrationError || !meta.IsStatusConditionTrue(h.Status.Conditions, v1alpha1.StalledCondition) {
			t.Errorf("status does not say so: %+v", h.Status)
		}
		_, err := w.store.Secrets().Update(context.Background(), "default", "n1-bmc", func(s *corev1.Secret) error {
			s.Data["password"] = []byte("another")
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		w.until("going on", time.Minute, inState(metal3.StateInspecting))
	})
}

func TestChangedCertificateGetsNoCredential(t *testing.T) {
	inWorld(t, func(w *world) {
		w.enrol()
		w.until("available", 5*time.Minute, inState(metal3.StateAvailable))
		w.stop() // its session would outlive the change
		logins := w.rack.logins
		w.rack.pin = "bb" + hex64[2:]
		w.start()
		w.until("refusal", 2*time.Minute, waitsFor("BMCCertificateChanged", w))
		if w.rack.logins != logins {
			t.Error("a credential was sent to a BMC with another certificate")
		}
		if _, err := w.store.Hosts().Update(context.Background(), "default", "n1", func(h *metal3.BareMetalHost) error {
			h.Annotations = map[string]string{v1alpha1.BMCCertificateAnnotation: w.rack.pin}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		w.until("recovery", 2*time.Minute, func(h *metal3.BareMetalHost) bool { return h.Status.ErrorMessage == "" })
	})
}

func TestRunningMachineIsNotTouchedUntilTaken(t *testing.T) {
	inWorld(t, func(w *world) {
		w.rack.on = true
		w.enrol()
		w.until("hold", time.Minute, waitsFor("HostRunning", w))
		time.Sleep(time.Hour)
		if w.rack.offs != 0 || w.rack.boots != 0 {
			t.Fatalf("a running machine was switched: %d offs, %d ons", w.rack.offs, w.rack.boots)
		}
		if _, err := w.store.Hosts().Update(context.Background(), "default", "n1", func(h *metal3.BareMetalHost) error {
			h.Annotations = map[string]string{v1alpha1.TakenAnnotation: "ops: it is ours"}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		w.until("available", 5*time.Minute, inState(metal3.StateAvailable))
	})
}

func TestAnotherTPMGetsNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.enrol()
		w.until("available", 5*time.Minute, inState(metal3.StateAvailable))
		w.rack.ek = "ff" + hex64[2:]
		w.pool()
		w.until("refusal", 5*time.Minute, func(h *metal3.BareMetalHost) bool {
			c := meta.FindStatusCondition(h.Status.Conditions, v1alpha1.AttestedCondition)
			return c != nil && c.Reason == "TPMChanged"
		})
		time.Sleep(30 * time.Minute)
		if w.plane.granted != 0 {
			t.Errorf("%d credentials were granted to a machine with another TPM", w.plane.granted)
		}
		if inState(metal3.StateProvisioned)(w.host()) {
			t.Error("the host was provisioned with another TPM")
		}
	})
}

func TestDeafFirmwareIsNamedAndTriedAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		w.rack.deaf = true
		w.enrol()
		w.until("failure", 10*time.Minute, func(h *metal3.BareMetalHost) bool {
			return strings.Contains(h.Status.ErrorMessage, "never asked for its boot file")
		})
		w.rack.deaf = false
		w.until("available", 15*time.Minute, inState(metal3.StateAvailable))
		if e := w.host().Status.ErrorMessage; e != "" {
			t.Errorf("the error stayed: %s", e)
		}
	})
}

// Firmware whose transfer broke off sits in its shell: it is booted again long before the boot's own limit.
func TestBrokenTransferIsBootedAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		w.rack.cut.Store(true)
		w.enrol()
		w.until("failure", 2*time.Minute, func(h *metal3.BareMetalHost) bool {
			return strings.Contains(h.Status.ErrorMessage, "the transfer broke off")
		})
		w.until("available", time.Minute, inState(metal3.StateAvailable))
		if w.rack.boots != 2 {
			t.Errorf("got %d power-ons, want 2", w.rack.boots)
		}
	})
}

func TestDeadBMCIsAskedAtItsPace(t *testing.T) {
	inWorld(t, func(w *world) {
		w.rack.dead = true
		w.enrol()
		time.Sleep(time.Hour)
		if w.rack.dials < 10 || w.rack.dials > 25 {
			t.Errorf("a dead BMC was asked %d times in an hour, want about one in five minutes after the first few", w.rack.dials)
		}
	})
}

func TestHungBMCKeepsItsReason(t *testing.T) {
	inWorld(t, func(w *world) {
		w.rack.hang = true
		w.enrol()
		w.until("failure", 3*time.Minute, func(h *metal3.BareMetalHost) bool {
			return h.Status.ErrorType == metal3.RegistrationError && strings.Contains(h.Status.ErrorMessage, "unreachable")
		})
		w.until("stall", 20*time.Minute, func(h *metal3.BareMetalHost) bool {
			c := meta.FindStatusCondition(h.Status.Conditions, v1alpha1.StalledCondition)
			return c != nil && c.Reason == "StateLimit"
		})
		w.rack.mu.Lock()
		w.rack.hang = false
		w.rack.mu.Unlock()
		w.until("available", 15*time.Minute, inState(metal3.StateAvailable))
	})
}

func TestRestartAtAnySecondConverges(t *testing.T) {
	for second := 0; second < 45; second += 3 {
		inWorld(t, func(w *world) {
			w.pool()
			w.enrol()
			time.Sleep(time.Duration(second)*time.Second + 300*time.Millisecond)
			w.stop()
			time.Sleep(2 * time.Second)
			w.start()
			w.until("provisioned", 20*time.Minute, inState(metal3.StateProvisioned))
			if w.rack.boots > 4 {
				t.Errorf("restart at second %d: %d power-ons, want at most one more for each of two boots", second, w.rack.boots)
			}
		})
	}
}

func TestLostPowerIsBootedAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool()
		w.enrol()
		w.until("provisioned", 5*time.Minute, inState(metal3.StateProvisioned))
		w.rack.mu.Lock()
		w.rack.on = false
		w.rack.mu.Unlock()
		w.until("not Ready", 2*time.Minute, func(h *metal3.BareMetalHost) bool {
			return !meta.IsStatusConditionTrue(h.Status.Conditions, metal3.ReadyCondition)
		})
		w.until("Ready again", 10*time.Minute, func(h *metal3.BareMetalHost) bool {
			return meta.IsStatusConditionTrue(h.Status.Conditions, metal3.ReadyCondition)
		})
		if p := w.progress(); p.Epoch != 3 || w.plane.granted != 2 || p.Attempts != 0 {
			t.Errorf("got epoch %d, %d grants and %d attempts, want 3, 2 and 0", p.Epoch, w.plane.granted, p.Attempts)
		}
	})
}

func TestReadyIsOfThisBoot(t *testing.T) {
	inWorld(t, func(w *world) {
		w.plane.slow = true
		w.pool()
		w.enrol()
		w.until("provisioned", 5*time.Minute, inState(metal3.StateProvisioned))
		w.rack.mu.Lock()
		w.rack.on = false
		w.rack.mu.Unlock()
		ready := func(h *metal3.BareMetalHost) bool {
			return meta.IsStatusConditionTrue(h.Status.Conditions, metal3.ReadyCondition)
		}
		w.until("not Ready", 2*time.Minute, func(h *metal3.BareMetalHost) bool { return !ready(h) })
		w.until("Ready again", 10*time.Minute, ready)
		if w.plane.granted != 2 {
			t.Error("the host is called Ready by the Node of an earlier boot")
		}
	})
}

func TestRefusedImageIsNotReady(t *testing.T) {
	v := View{Host: &metal3.BareMetalHost{}, Progress: &v1alpha1.HostProgress{}, Inventory: &v1alpha1.HostInventory{}}
	v.Progress.Status.Epoch = 3
	v.Progress.Status.Boot = &v1alpha1.BootOrder{Answer: bootImage, Digest: "d", Epoch: 3, Deadline: metav1.NewTime(time.Now().Add(time.Hour))}
	v.Inventory.Status.Agent = &v1alpha1.AgentFacts{Mode: v1alpha1.OSMode, Epoch: 3,
		Steps: []v1alpha1.StepResult{{Step: v1alpha1.RefuseStep, Epoch: 3}}}
	if got := nextBootStep(v, bootImage, "d", v1alpha1.OSMode, true, time.Now(), false); got != stepGiveUp {
		t.Errorf("after a refused image: got step %q, want %q", got, stepGiveUp)
	}
}

func TestDeleteAlwaysEnds(t *testing.T) {
	for name, before := range map[string]func(w *world){
		"with a dead BMC": func(w *world) { w.rack.hang = true },
		"as it is":        func(*world) {},
	} {
		for _, at := range []State{metal3.StateRegistering, metal3.StateInspecting, metal3.StateAvailable, metal3.StateProvisioned} {
			t.Run(name+" in "+string(at), func(t *testing.T) {
				inWorld(t, func(w *world) {
					if at == metal3.StateProvisioned {
						w.pool()
					}
					if at == metal3.StateRegistering {
						w.rack.password = "another"
					}
					w.enrol()
					w.until(string(at), 5*time.Minute, inState(at))
					w.stop()
					w.rack.mu.Lock()
					before(w)
					w.rack.mu.Unlock()
					w.start()
					if err := w.store.Hosts().Delete(context.Background(), "default", "n1"); err != nil {
						t.Fatal(err)
					}
					time.Sleep(10 * time.Minute)
					if h, err := w.store.Hosts().Get(context.Background(), "default", "n1"); !apierrors.IsNotFound(err) {
						t.Fatalf("the host is still there: %+v", h.Status)
					}
					if _, err := w.store.Progresses().Get(context.Background(), "default", "n1"); !apierrors.IsNotFound(err) {
						t.Errorf("its HostProgress is still there: %v", err)
					}
					if len(w.plane.tokens) != 0 {
						t.Errorf("its bootstrap credential is still there: %v", w.plane.tokens)
					}
				})
			})
		}
	}
}

func TestTwinsAreLeftAlone(t *testing.T) {
	inWorld(t, func(w *world) {
		w.enrol()
		twin := &metal3.BareMetalHost{}
		twin.Namespace, twin.Name = "default", "n2"
		twin.Spec = w.host().Spec
		if _, err := w.store.Hosts().Create(context.Background(), twin); err != nil {
			t.Fatal(err)
		}
		w.until("quarantine", time.Minute, waitsFor("DuplicateIdentity", w))
		if _, known := w.mind.Load().glance("default/n2"); !known {
			t.Fatal("the twin is not known")
		}
		boots := w.rack.boots
		time.Sleep(time.Hour)
		if w.rack.boots != boots {
			t.Error("a host with a twin was switched on")
		}
	})
}

func TestSkew(t *testing.T) {
	for _, c := range []struct {
		kubelet, server string
		ok              bool
	}{
		{"v1.36.3", "v1.36.3", true},
		{"v1.33.0", "v1.36.3", true},
		{"v1.32.9", "v1.36.3", false},
		{"v1.37.0", "v1.36.3", false},
		{"", "v1.36.3", false},
		{"v1.36.3", "v1.36.3+k3s1", true},
	} {
		if err := skew(c.kubelet, c.server); (err == nil) != c.ok {
			t.Errorf("kubelet %q beside server %q: got %v, want ok %t", c.kubelet, c.server, err, c.ok)
		}
	}
}
