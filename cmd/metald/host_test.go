// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
)

// A host that metald holds stays until metald has let go, but a person can always abandon it; others' finalizers stay theirs.
func TestForget(t *testing.T) {
	d, err := (&access{dataDir: openDoor(t)}).open()
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	tests := []struct {
		name       string
		finalizers []string
		abandon    bool
		want       string
		left       []string // finalizers after it; nil where the host is gone
	}{
		{"held", []string{v1alpha1.HostFinalizer}, false, "is being let go of", []string{v1alpha1.HostFinalizer}},
		{"abandoned", []string{v1alpha1.HostFinalizer}, true, "abandoned", nil},
		{"not held", nil, false, "is being let go of", nil},
		{"held by another too", []string{v1alpha1.HostFinalizer, "example.com/keep"}, true, "abandoned, but others still hold it: [example.com/keep]", []string{"example.com/keep"}},
	}
	e, err := newEnrolment(ctx, d, false)
	if err != nil {
		t.Fatal(err)
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			name := strings.ReplaceAll(tt.name, " ", "-")
			row := hostRow{namespace: "default", name: name, bmcAddress: "redfish://10.0.0." + string(rune('1'+i)), username: "a", Password: "b",
				bootMAC: "52:54:00:00:00:0" + string(rune('1'+i))}
			if _, err := e.row(ctx, row); err != nil {
				t.Fatal(err)
			}
			patch := tree{}
			patch.put(tt.finalizers, "metadata", "finalizers")
			if err := d.patchHost(ctx, "default", name, patch, &metav1.PatchOptions{}); err != nil {
				t.Fatal(err)
			}
			got, err := forgetHost(ctx, d, name, tt.abandon, "test")
			if err != nil || got != tt.want {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
			h, err := d.host(ctx, name)
			switch {
			case tt.left == nil && err == nil:
				t.Errorf("the host is still there, with %v", h.Finalizers)
			case tt.left != nil && err != nil:
				t.Errorf("the host is gone: %v", err)
			case tt.left != nil && (!slices.Equal(h.Finalizers, tt.left) || h.DeletionTimestamp == nil):
				t.Errorf("finalizers %v, deleted %v, want %v and a deletion", h.Finalizers, h.DeletionTimestamp, tt.left)
			}
			events, err := d.events(ctx, "default", name)
			if err != nil {
				t.Fatal(err)
			}
			if tt.abandon != (len(events) == 1 && events[0].Reason == "Abandoned") {
				t.Errorf("events %v, abandoned %v", events, tt.abandon)
			}
		})
	}
}
