// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"sync"

	"metald.io/metald/api/v1alpha1"
)

// meter tells how far the work is.
type meter struct {
	mu     sync.Mutex
	report func(v1alpha1.StepProgress)
	at     v1alpha1.StepProgress
}

func newMeter(report func(v1alpha1.StepProgress)) *meter {
	if report == nil {
		report = func(v1alpha1.StepProgress) {}
	}
	return &meter{report: report}
}

// begin names the next part of the work, of total bytes or of nobody knows how many.
func (m *meter) begin(doing string, total int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at = v1alpha1.StepProgress{Doing: doing, Total: max(total, 0)}
	m.report(m.at)
}

func (m *meter) add(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at.Done += n
	m.report(m.at)
}
