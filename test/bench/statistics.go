// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math/rand/v2"
	"slices"
)

// median of the values; they are not changed.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n == 0 {
		return 0
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// interval is the bootstrap's 95 % interval of the median, with a seed of its own so that equal values give equal bounds.
func interval(values []float64) (low, high float64) {
	if len(values) == 0 {
		return 0, 0
	}
	random := rand.New(rand.NewPCG(1, 2))
	medians := make([]float64, 2000)
	draw := make([]float64, len(values))
	for n := range medians {
		for k := range draw {
			draw[k] = values[random.IntN(len(values))]
		}
		medians[n] = median(draw)
	}
	slices.Sort(medians)
	return medians[len(medians)*25/1000], medians[len(medians)*975/1000]
}

// percentile is the smallest value that at least p of a hundred values do not exceed.
func percentile(values []float64, p int) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[(len(sorted)*p+99)/100-1]
}

// trimmed is the values without the best and the worst, where there are enough.
func trimmed(values []float64) []float64 {
	if len(values) < 5 {
		return values
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[1 : len(sorted)-1]
}
