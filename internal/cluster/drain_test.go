// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const pods = "/api/v1/pods/"

// pod is stored where a list of all namespaces finds it.
func pod(name string, change func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: "uid"}, Spec: corev1.PodSpec{NodeName: "h1"}, Status: corev1.PodStatus{Phase: corev1.PodRunning}}
	if change != nil {
		change(p)
	}
	return p
}

func controlled(apiVersion, kind string) func(*corev1.Pod) {
	yes := true
	return func(p *corev1.Pod) {
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: apiVersion, Kind: kind, Name: "x", UID: "y", Controller: &yes}}
	}
}

func TestDrain(t *testing.T) {
	s, c := newControl(t)
	s.put(t, nodes+"h1", node("h1", "default.h1", corev1.ConditionTrue))
	for _, p := range []*corev1.Pod{
		pod("alone", nil),
		pod("budgeted", controlled("apps/v1", "ReplicaSet")),
		pod("daemon", controlled("apps/v1", "DaemonSet")),
		pod("lookalike", controlled("example.com/v1", "DaemonSet")),
		pod("done", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }),
		pod("failed", func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }),
		pod("mirror", func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"} }),
		pod("elsewhere", func(p *corev1.Pod) { p.Spec.NodeName = "h2" }),
		pod("ending", func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: time.Now()} }),
		pod("ended", func(p *corev1.Pod) { // and the kubelet has yet to remove it
			p.DeletionTimestamp, p.Status.Phase = &metav1.Time{Time: time.Now()}, corev1.PodSucceeded
		}),
		pod("held", func(p *corev1.Pod) {
			p.DeletionTimestamp, p.Status.Phase, p.Finalizers = &metav1.Time{Time: time.Now()}, corev1.PodFailed, []string{"example.com/x"}
		}),
	} {
		s.put(t, pods+p.Name, p)
	}
	s.setBudget("budgeted", true)
	left, err := c.Drain(t.Context(), "h1", "default.h1", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"default/alone: is ending", "default/budgeted: Cannot evict pod as it would violate the pod's disruption budget. The disruption budget x needs 1 healthy pods.",
		"default/ended: is ending", "default/ending: is ending", "default/lookalike: is ending"}
	if diff := cmp.Diff(want, left); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
	evicted := func(names ...string) (calls []string) {
		for _, n := range names {
			calls = append(calls, "POST /api/v1/namespaces/default/pods/"+n+"/eviction")
		}
		return calls
	}
	got := s.writes()
	slices.Sort(got)
	if diff := cmp.Diff(evicted("alone", "budgeted", "lookalike"), got); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}

	s.remove(pods + "ended")
	// The next pass: two have gone, the one that was ending still is, and the budget stands.
	left, err = c.Drain(t.Context(), "h1", "default.h1", time.Now().Add(time.Hour))
	if err != nil || len(left) != 2 || !strings.HasPrefix(left[0], "default/budgeted: Cannot evict") || left[1] != "default/ending: is ending" {
		t.Errorf("second pass: left %q, %v", left, err)
	}
	// Past its time nothing is evicted, and nothing is killed.
	before := len(s.writes())
	left, err = c.Drain(t.Context(), "h1", "default.h1", time.Now())
	if diff := cmp.Diff([]string{"default/budgeted: not evicted in time", "default/ending: is ending"}, left); err != nil || diff != "" || len(s.writes()) != before {
		t.Errorf("past its time: %v, %d writes more, left (-want +got):\n%s", err, len(s.writes())-before, diff)
	}
	s.setBudget("budgeted", false)
	s.remove(pods + "ending")
	for range 2 {
		left, err = c.Drain(t.Context(), "h1", "default.h1", time.Now().Add(time.Hour))
	}
	if err != nil || len(left) != 0 {
		t.Errorf("at last: left %q, %v; want nothing", left, err)
	}
}

func TestDrainRefuses(t *testing.T) {
	s, c := newControl(t)
	later := time.Now().Add(time.Hour)
	if left, err := c.Drain(t.Context(), "h1", "default.h1", later); err != nil || len(left) != 0 {
		t.Errorf("no node: got %q, %v; want nothing left", left, err)
	}
	s.put(t, nodes+"h1", node("h1", "other.h1", corev1.ConditionTrue))
	s.put(t, pods+"a", pod("a", nil))
	if _, err := c.Drain(t.Context(), "h1", "default.h1", later); !errors.Is(err, ErrOwned) {
		t.Errorf("another's node: got %v, want ErrOwned", err)
	}
	if _, err := c.Drain(t.Context(), "h1", "", later); err == nil {
		t.Error("no owner: got no error")
	}
	if got := s.writes(); len(got) != 0 {
		t.Errorf("refused drains wrote %q", got)
	}
	s.setAway(true)
	if _, err := c.Drain(t.Context(), "h1", "other.h1", later); err == nil {
		t.Error("control plane away: got no error")
	}
	s.setAway(false)
	for i := range 30 {
		name := fmt.Sprintf("b%02d", i)
		s.put(t, pods+name, pod(name, nil))
		s.setBudget(name, true)
	}
	s.remove(pods + "a")
	left, err := c.Drain(t.Context(), "h1", "other.h1", later)
	if err != nil || len(left) != 21 || left[20] != "and 10 more" || !strings.HasPrefix(left[0], "default/b00: ") {
		t.Errorf("thirty pods: got %d lines, last %q, %v", len(left), left[max(0, len(left)-1)], err)
	}
}
