// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
)

func TestOwnTime(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	phase := func(name string, from, to int) v1alpha1.Phase {
		p := v1alpha1.Phase{Name: name, Start: metav1.NewTime(start.Add(time.Duration(from) * time.Second))}
		if to > 0 {
			end := metav1.NewTime(start.Add(time.Duration(to) * time.Second))
			p.End = &end
		}
		return p
	}
	for _, c := range []struct {
		name     string
		phases   []v1alpha1.Phase
		own, all time.Duration
		bad      bool
	}{
		{name: "diskless", phases: []v1alpha1.Phase{phase("registering", 0, 2), phase("inspecting", 2, 20), phase("boot ramdisk", 3, 19),
			phase("provisioning", 21, 60), phase("boot image", 23, 45), phase("join", 45, 58)}, own: 22 * time.Second, all: time.Minute},
		{name: "overlapping", phases: []v1alpha1.Phase{phase("registering", 0, 2), phase("write image", 10, 40), phase("boot ramdisk", 12, 30),
			phase("boot disk", 38, 50), phase("provisioning", 8, 60)}, own: 20 * time.Second, all: time.Minute},
		{name: "not over", phases: []v1alpha1.Phase{phase("registering", 0, 2), phase("boot image", 3, 9), phase("provisioning", 2, 0)}, bad: true},
		{name: "no boots", phases: []v1alpha1.Phase{phase("registering", 0, 2), phase("provisioning", 2, 9)}, bad: true},
		{name: "nothing", bad: true},
	} {
		own, all, err := ownTime(c.phases)
		if own != c.own || all != c.all || (err != nil) != c.bad {
			t.Errorf("%s: %s of %s, %v; want %s of %s", c.name, own, all, err, c.own, c.all)
		}
	}
}

func TestPercentile(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{{nil, 0}, {[]float64{7}, 7}, {[]float64{5, 1, 3, 2, 4}, 5}} {
		if got := percentile(c.values, 95); got != c.want {
			t.Errorf("p95 of %v = %v, want %v", c.values, got, c.want)
		}
	}
}
