// SPDX-License-Identifier: Apache-2.0

package rack

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
)

func TestPace(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	phase := func(name string, took time.Duration) v1alpha1.Phase {
		p := v1alpha1.Phase{Name: name, Start: metav1.NewTime(start)}
		if took > 0 {
			end := metav1.NewTime(start.Add(took))
			p.End = &end
		}
		return p
	}
	for _, c := range []struct {
		name   string
		host   string
		phases []v1alpha1.Phase
		want   time.Duration // of ten seconds
	}{
		{"nothing known", "r1n00", nil, 10 * time.Second},
		{"on its way", "r1n00", []v1alpha1.Phase{phase("boot ramdisk", 0)}, 10 * time.Second},
		{"another machine", "r1n01", []v1alpha1.Phase{phase("boot ramdisk", time.Minute)}, 10 * time.Second},
		{"slow", "r1n00", []v1alpha1.Phase{phase("registering", time.Hour), phase("boot ramdisk", 45*time.Second)}, 30 * time.Second},
		{"fast machines get no less", "r1n00", []v1alpha1.Phase{phase("boot ramdisk", 3*time.Second)}, 10 * time.Second},
		{"broken", "r1n00", []v1alpha1.Phase{phase("boot ramdisk", time.Hour)}, 100 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := testRack(t)
			r.measurePace(Host{Name: c.host, Progress: v1alpha1.HostProgressStatus{Phases: c.phases}})
			if got := r.Scale(10 * time.Second); got != c.want {
				t.Errorf("10s become %s, want %s", got, c.want)
			}
			// It is measured once: a second boot beside others says nothing of the machine.
			before := r.Factor()
			r.measurePace(Host{Name: "r1n00", Progress: v1alpha1.HostProgressStatus{Phases: []v1alpha1.Phase{phase("boot ramdisk", 75*time.Second)}}})
			if before > 1 && r.Factor() != before {
				t.Errorf("the factor went from %.2f to %.2f", before, r.Factor())
			}
		})
	}
}
