// SPDX-License-Identifier: Apache-2.0

package main

import "testing"

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := median(c.values); got != c.want {
			t.Errorf("median(%v) = %v, want %v", c.values, got, c.want)
		}
	}
}

func TestInterval(t *testing.T) {
	values := []float64{1.02, 1.10, 0.98, 1.05, 1.04, 1.07, 1.01}
	low, high := interval(values)
	if m := median(values); low > m || high < m || low < 0.98 || high > 1.10 || low == high {
		t.Errorf("interval = %v to %v around %v", low, high, m)
	}
	if a, b := interval(values); a != low || b != high {
		t.Error("equal values give different bounds")
	}
	if low, high := interval([]float64{2, 2, 2}); low != 2 || high != 2 {
		t.Errorf("interval of equal values = %v to %v", low, high)
	}
}
