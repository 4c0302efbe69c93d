// SPDX-License-Identifier: Apache-2.0

package clients

import (
	"fmt"
	"slices"
	"strconv"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// counter is the annotation that numbers an object's changes, from 1.
const counter = "clients.metald.io/change"

// gone is the number of an object that was deleted.
const gone = 1 << 30

func number(o metav1.Object) int {
	n, err := strconv.Atoi(o.GetAnnotations()[counter])
	if err != nil {
		return 0
	}
	return n
}

// ledger is what was acknowledged: for each object the number of its last change.
type ledger struct {
	mu   sync.Mutex
	last map[string]int
	all  int
}

func (l *ledger) note(name string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last == nil {
		l.last = map[string]int{}
	}
	l.last[name], l.all = n, l.all+1
}

func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all
}

// copy is the ledger as it is now.
func (l *ledger) copy() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := map[string]int{}
	for name, n := range l.last {
		last[name] = n
	}
	return last
}

// seen is what a client was told: for each object the numbers of its changes, in the order of telling.
type seen struct {
	mu    sync.Mutex
	told  map[string][]int
	wrong []string
}

func (s *seen) note(name string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.told == nil {
		s.told = map[string][]int{}
	}
	before := s.told[name]
	switch {
	case len(before) > 0 && before[len(before)-1] == n:
		// The same state once more: a list after a lost connection, or a change of status.
	case len(before) > 0 && before[len(before)-1] > n:
		s.wrong = append(s.wrong, fmt.Sprintf("%s: %d after %d", name, n, before[len(before)-1]))
	default:
		s.told[name] = append(before, n)
	}
}

// handler tells seen all that an informer is told.
func (s *seen) handler() cache.ResourceEventHandlerFuncs {
	object := func(o any) {
		if o, ok := o.(metav1.Object); ok {
			s.note(o.GetName(), number(o))
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    object,
		UpdateFunc: func(_, o any) { object(o) },
		DeleteFunc: func(o any) {
			if unknown, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = unknown.Obj
			}
			if o, ok := o.(metav1.Object); ok {
				s.note(o.GetName(), gone)
			}
		},
	}
}

// lacks says how what a client knows differs from the ledger; nil is not at all.
func (s *seen) lacks(want map[string]int) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var lacks []string
	for name, n := range want {
		told := s.told[name]
		if len(told) == 0 {
			lacks = append(lacks, fmt.Sprintf("%s: never seen, want %d", name, n))
		} else if told[len(told)-1] != n {
			lacks = append(lacks, fmt.Sprintf("%s: seen %d, want %d", name, told[len(told)-1], n))
		}
	}
	slices.Sort(lacks)
	return lacks
}

// skipped counts for each object the runs of numbers that were not told, where there are any.
func (s *seen) skipped() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	runs := map[string]int{}
	for name, told := range s.told {
		last := 0
		for _, n := range told {
			if n != last+1 && n != gone {
				runs[name]++
			}
			last = n
		}
	}
	return runs
}

// disorder is each time that a client was told an older state after a newer one.
func (s *seen) disorder() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.wrong)
}
