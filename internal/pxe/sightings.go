// SPDX-License-Identifier: Apache-2.0

package pxe

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"
)

const (
	// sightingInterval is how often one unknown machine is reported.
	sightingInterval = time.Minute
	// mostSightings bounds the unknown machines that are remembered, and so what a flood of invented MACs costs.
	mostSightings = 1000
)

// limiter lets one thing about each of a bounded number of machines through in sightingInterval.
type limiter struct {
	mu   sync.Mutex
	last map[string]time.Time
}

// allow says whether it is m's turn, and takes it.
func (l *limiter) allow(m Machine, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	mac := m.MAC.String()
	if at, ok := l.last[mac]; ok && now.Sub(at) < sightingInterval {
		return false
	}
	if len(l.last) >= mostSightings {
		maps.DeleteFunc(l.last, func(_ string, at time.Time) bool { return now.Sub(at) >= sightingInterval })
		if len(l.last) >= mostSightings {
			return false
		}
	}
	if l.last == nil {
		l.last = map[string]time.Time{}
	}
	l.last[mac] = now
	return true
}

// sightings tells the Lookout of unknown machines from a goroutine of its own: it may write to disk, and a known machine
// must not wait for that.
type sightings struct {
	lookout Lookout
	queue   chan sighting
	limiter limiter
}

type sighting struct {
	m    Machine
	what string
}

func newSightings(l Lookout) *sightings {
	return &sightings{lookout: l, queue: make(chan sighting, 64)}
}

// see reports m, and what it did, unless it was reported within the last minute, or too many others were, or the Lookout is
// behind.
func (s *sightings) see(m Machine, now time.Time, what string) {
	if !s.limiter.allow(m, now) {
		return
	}
	select {
	case s.queue <- sighting{m, what}:
	default:
	}
}

// asked is what an unknown machine did.
func asked(m Machine) string {
	return fmt.Sprintf("asked for an address by DHCP as %s on %s", described(m), m.Interface)
}

func (s *sightings) run(ctx context.Context) {
	for {
		select {
		case seen := <-s.queue:
			s.lookout.Seen(seen.m, seen.what)
		case <-ctx.Done():
			return
		}
	}
}

// described says in words what kind of client asked.
func described(m Machine) string {
	switch {
	case m.Client == Other && m.Class == "":
		return "a client without a class"
	case m.Client == Other:
		return "a client of class " + m.Class
	case m.Arch == NoArch:
		return m.Client.String()
	}
	return fmt.Sprintf("%s (%s)", m.Client, m.Arch)
}
