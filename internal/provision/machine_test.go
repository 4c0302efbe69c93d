// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
)

var update = flag.Bool("update", false, "rewrite golden files")

func TestEveryTransitionOnce(t *testing.T) {
	known := map[State]bool{}
	for _, s := range states {
		if known[s.state] {
			t.Errorf("state %q stands twice", s.state)
		}
		known[s.state] = true
	}
	type key struct {
		from State
		on   Event
	}
	seen := map[key]bool{}
	for _, tr := range transitions {
		k := key{tr.from, tr.on}
		if seen[k] {
			t.Errorf("(%q, %s) stands twice", tr.from, tr.on)
		}
		seen[k] = true
		if !known[tr.from] || !known[tr.to] {
			t.Errorf("(%q, %s) -> %q names a state that has no row", tr.from, tr.on, tr.to)
		}
		if tr.why == "" {
			t.Errorf("(%q, %s) has no reason", tr.from, tr.on)
		}
	}
}

// reach walks the transitions from a state, not passing any that skip says.
func reach(from State, skip func(transitionRow) bool) map[State]bool {
	got := map[State]bool{from: true}
	for grown := true; grown; {
		grown = false
		for _, tr := range transitions {
			if got[tr.from] && !got[tr.to] && !skip(tr) {
				got[tr.to], grown = true, true
			}
		}
	}
	return got
}

func none(transitionRow) bool { return false }

func TestEveryStateIsReachedAndCanEnd(t *testing.T) {
	born := reach(metal3.StateNone, none)
	for _, s := range states {
		if !born[s.state] {
			t.Errorf("state %q cannot be reached", s.state)
		}
		if !reach(s.state, none)[metal3.StateDeleting] {
			t.Errorf("state %q cannot end", s.state)
		}
		onlyRemoved := reach(s.state, func(tr transitionRow) bool { return tr.on != Removed && tr.on != Stopped })
		if !onlyRemoved[metal3.StateDeleting] {
			t.Errorf("deleting a host in state %q does not end it", s.state)
		}
	}
}

func TestNoWayBackToAvailableWithoutCleaning(t *testing.T) {
	skipCleaning := func(tr transitionRow) bool { return tr.on == Cleaned }
	for _, used := range []State{metal3.StateProvisioning, metal3.StateProvisioned, metal3.StateDeprovisioning} {
		if reach(used, skipCleaning)[metal3.StateAvailable] {
			t.Errorf("a host can come from %q to available without being cleaned", used)
		}
	}
}

func TestNoWayToProvisioningWithoutInspectionOrWaiver(t *testing.T) {
	got := reach(metal3.StateNone, func(tr transitionRow) bool {
		return tr.on == Inspected || tr.on == Waived
	})
	if got[metal3.StateProvisioning] {
		t.Error("a host can be provisioned though nobody looked at it and nobody waived that")
	}
}

func TestOnlyWorkOnHostsSwitchesPower(t *testing.T) {
	for _, s := range []State{metal3.StateNone, metal3.StateUnmanaged, metal3.StateRegistering} {
		if got := row(s).power; got != untouched {
			t.Errorf("state %q wants power %s, want it untouched: the host is not known yet", s, got)
		}
	}
}

func TestDrawing(t *testing.T) {
	const golden = "testdata/machine.mmd"
	got := Drawing()
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("the tables changed; run go test ./internal/provision -update and look at the difference (-want +got):\n%s", diff)
	}
	architecture, err := os.ReadFile("../../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(architecture), got) {
		t.Error("ARCHITECTURE.md does not hold the drawing of testdata/machine.mmd")
	}
}
