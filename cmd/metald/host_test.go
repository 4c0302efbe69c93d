// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
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

// A pause over everything holds every host of every namespace, also one that is imported after it; it ends as a whole.
func TestPauseAll(t *testing.T) {
	data := openDoor(t)
	makeNamespace(t, data, "elsewhere")
	d, err := (&access{dataDir: data}).open()
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	enrol := func(namespace, name string, n int) {
		t.Helper()
		e, err := newEnrolment(ctx, d, false)
		if err != nil {
			t.Fatal(err)
		}
		row := hostRow{namespace: namespace, name: name, bmcAddress: fmt.Sprintf("redfish://10.0.0.%d", n), username: "a", Password: "b",
			bootMAC: fmt.Sprintf("52:54:00:00:00:%02d", n)}
		if _, err := e.row(ctx, row); err != nil {
			t.Fatal(err)
		}
	}
	paused := func() string {
		t.Helper()
		views, err := statusOptions{all: true}.views(ctx, d)
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, v := range views {
			all = append(all, fmt.Sprintf("%s %v", v.Metadata.Name, v.PausedBy != "" && v.Paused))
		}
		return strings.Join(all, ", ")
	}
	enrol("default", "r1n01", 1)
	for _, tt := range []struct {
		off  bool
		want string // what the command says
		seen string // what status shows then
	}{
		{false, "paused", "r1n01 true, r1n02 true"},
		{false, "already paused: " + byWhom("power work"), "r1n01 true, r1n02 true"},
		{true, "goes on", "r1n01 false, r1n02 false"},
		{true, "not paused", "r1n01 false, r1n02 false"},
	} {
		got, err := pausing{d: d, off: tt.off, reason: "power work"}.all(ctx)
		if err != nil || got != tt.want {
			t.Errorf("off %v: got %q, %v, want %q", tt.off, got, err, tt.want)
		}
		if _, err := d.host(ctx, "elsewhere/r1n02"); err != nil {
			enrol("elsewhere", "r1n02", 2)
		}
		if seen := paused(); seen != tt.seen {
			t.Errorf("off %v: status shows %s, want %s", tt.off, seen, tt.seen)
		}
	}
}
