// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"strings"
	"testing"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"

	"metald.io/metald/api/v1alpha1"
)

// A machine whose BMC names another serial number than the one a person wrote down is another machine, until that is corrected.
func TestSerialNumberOfTheListIsDemanded(t *testing.T) {
	inWorld(t, func(w *world) {
		w.enrol(func(h *metal3.BareMetalHost) {
			h.Annotations = map[string]string{v1alpha1.SerialNumberAnnotation: "OTHER"}
		})
		w.until("the refusal", 5*time.Minute, waitsFor("IdentityChanged", w))
		if text := w.progress().LastError; !strings.Contains(text, "OTHER") {
			t.Errorf("last error %q does not name the serial number of the list", text)
		}
		i, err := w.store.Inventories().Get(context.Background(), "default", "n1")
		if err != nil {
			t.Fatal(err)
		}
		if id := i.Status.Identity; id != nil && id.SerialNumber != "" {
			t.Errorf("serial number %q was pinned for a machine that is not the host's", id.SerialNumber)
		}
		_, err = w.store.Hosts().Update(context.Background(), "default", "n1", func(h *metal3.BareMetalHost) error {
			h.Annotations[v1alpha1.SerialNumberAnnotation] = "s1" // the machine says S1
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		w.until("inspection", 10*time.Minute, inState(metal3.StateInspecting))
	})
}
