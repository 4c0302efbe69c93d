// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"k8s.io/apimachinery/pkg/api/meta"

	"metald.io/metald/internal/inventory/audit"
)

// From off to Ready, each effect on the world is announced before and ended after, by metald, for its host and with a reason
// where power is switched; as many power-ons are recorded as there were. No secret is in it.
func TestEffectsAreRecorded(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool()
		w.enrol()
		w.until("Ready", 5*time.Minute, func(h *metal3.BareMetalHost) bool {
			return meta.IsStatusConditionTrue(h.Status.Conditions, metal3.ReadyCondition)
		})
		open := map[uint64]audit.Act{}
		done := map[string]int{}
		err := w.store.ReadRecord(t.Context(), time.Time{}, func(e audit.Entry, r audit.Record) (bool, error) {
			if r.Act == nil {
				return true, nil
			}
			a := *r.Act
			if r.Host != "default/n1" || r.Actor.User != "metald" {
				t.Errorf("entry %d is of %+v for host %q: %+v", e.Seq, r.Actor, r.Host, a)
			}
			if a.Verb == "switch power" && (r.Reason == "" || a.Epoch == 0) {
				t.Errorf("entry %d does not say why, or in which epoch: %+v", e.Seq, r)
			}
			switch {
			case a.Phase == audit.Intent:
				open[e.Seq] = a
			case strings.HasPrefix(a.Verb, "release "):
				done[a.Verb]++
			case open[a.Intent].Verb != a.Verb || open[a.Intent].Detail != a.Detail:
				t.Errorf("entry %d is the outcome of no intent: %+v", e.Seq, a)
			default:
				delete(open, a.Intent)
				done[strings.TrimSpace(a.Verb+" "+a.Phase)]++
			}
			return true, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(open) > 0 {
			t.Errorf("intents without an outcome: %+v", open)
		}
		for what, want := range map[string]int{"switch power done": w.rack.boots, "set one-time boot done": w.rack.boots, "log in to BMC done": 1,
			"release join seed": 1, "make join credential done": w.plane.granted, "revoke join credential done": 1, "approve certificate request done": 1} {
			got := done[what]
			if what == "switch power done" {
				got -= w.rack.offs
			}
			if got != want {
				t.Errorf("%s: got %d, want %d; all: %v", what, got, want, done)
			}
		}
		var b bytes.Buffer
		if err := w.store.ExportRecord(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(b.String(), `"right"`) {
			t.Error("the BMC's password is in the record")
		}
	})
}

// No step reaches past the record: what switches, grants or erases is called in effect.go alone.
func TestEffectsHaveOneDoor(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) < 20 {
		t.Fatalf("files: %v, %v", files, err)
	}
	act := regexp.MustCompile(`\.(Switch|SetOneTimeBoot|Dial)\(ctx`)
	var found []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(file, "_test.go") && act.Match(text) {
			found = append(found, file)
		}
	}
	if want := []string{"effect.go"}; !slices.Equal(found, want) {
		t.Errorf("effects outside of the record in %v, want them in %v", found, want)
	}
}
