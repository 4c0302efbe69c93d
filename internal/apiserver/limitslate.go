// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"runtime/metrics"
	"time"
)

// lateness reads how long goroutines that could run had to wait for a core, from the runtime's own count.
type lateness struct {
	sample []metrics.Sample
	before []uint64
}

const schedulerLatencies = "/sched/latencies:seconds"

func newLateness() *lateness {
	l := &lateness{sample: []metrics.Sample{{Name: schedulerLatencies}}}
	l.late()
	return l
}

// lateShare is the share that waits no longer than what late returns.
const (
	lateShare  = 0.9
	lateFewest = 20 // of them tell something
)

// late is the time that most of those did not exceed which waited since the last call. It is false where there were too few.
func (l *lateness) late() (time.Duration, bool) {
	metrics.Read(l.sample)
	if l.sample[0].Value.Kind() != metrics.KindFloat64Histogram {
		return 0, false // another runtime
	}
	h := l.sample[0].Value.Float64Histogram()
	if len(l.before) != len(h.Counts) {
		l.before = make([]uint64, len(h.Counts))
	}
	var all uint64
	for i, count := range h.Counts {
		all += count - l.before[i]
	}
	var seen uint64
	late, found := time.Duration(0), false
	for i, count := range h.Counts {
		seen += count - l.before[i]
		l.before[i] = count
		if !found && all > 0 && float64(seen) >= lateShare*float64(all) {
			found = true
			late = time.Duration(h.Buckets[i] * float64(time.Second)) // the bucket's lower end: the upper may be infinite
		}
	}
	return max(late, 0), all >= lateFewest
}
