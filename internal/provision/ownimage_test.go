// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
)

func asksFor(format string) func(h *metal3.BareMetalHost) {
	return func(h *metal3.BareMetalHost) {
		h.Spec.Online = true
		h.Spec.Image = &metal3.Image{URL: "http://images/os.raw", Checksum: hex64, ChecksumType: metal3.SHA256, DiskFormat: &format}
		h.Spec.UserData = &corev1.SecretReference{Name: "n1-user"}
	}
}

func TestOwnImage(t *testing.T) {
	inWorld(t, func(w *world) {
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "n1-user"}, Data: map[string][]byte{"userData": []byte("#cloud-config of n1")}}
		w.enrol(asksFor("raw"))
		w.until("the Secret", 10*time.Minute, waitsFor("ConfigDriveIncomplete", w))
		if _, err := w.store.Secrets().Create(context.Background(), secret); err != nil {
			t.Fatal(err)
		}
		w.until("provisioned", 10*time.Minute, inState(metal3.StateProvisioned))
		w.until("Ready", time.Minute, isReady)
		raw := w.rack.drive().raw
		if raw == nil || raw.URL != "http://images/os.raw" || raw.Checksum != hex64 || !bytes.Contains(raw.ConfigDrive, []byte("#cloud-config of n1")) {
			t.Errorf("the agent was told to write %+v", raw)
		}
		if h := w.host(); h.Status.Provisioning.Image.URL != "http://images/os.raw" || !h.Status.PoweredOn || reasonOf(h, v1alpha1.JoinedCondition) != "NoCluster" {
			t.Errorf("status: image %q, powered on %t, Joined %q", h.Status.Provisioning.Image.URL, h.Status.PoweredOn, reasonOf(h, v1alpha1.JoinedCondition))
		}
		if d := w.progress().Deployment; d.Install.Raw.ConfigDrive != nil {
			t.Error("the config drive, which may hold secrets, lies in the HostProgress")
		}
		w.rack.unplug() // its owner wants it on
		w.until("power", 5*time.Minute, func(*metal3.BareMetalHost) bool { on, _ := w.rack.running(); return on })
		w.changeHost(func(h *metal3.BareMetalHost) { h.Spec.Image, h.Spec.Online = nil, false })
		w.until("available", 10*time.Minute, inState(metal3.StateAvailable))
		if e := w.progress().Erase; e == nil || e.Mode != v1alpha1.EraseMetadata || !e.OK || w.rack.drive().writes != 1 {
			t.Errorf("got erase %+v after %d writes, want Metal3's metadata after one", e, w.rack.drive().writes)
		}
	})
}

func TestOwnImageOfAnotherFormatSaysSo(t *testing.T) {
	inWorld(t, func(w *world) {
		w.enrol(asksFor("qcow2"))
		w.until("error", 10*time.Minute, func(h *metal3.BareMetalHost) bool { return strings.Contains(h.Status.ErrorMessage, "qcow2") })
		if h := w.host(); h.Status.ErrorType != metal3.ProvisioningError || w.rack.drive().writes != 0 {
			t.Errorf("error type %q and %d writes", h.Status.ErrorType, w.rack.drive().writes)
		}
	})
}
