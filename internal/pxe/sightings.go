// SPDX-License-Identifier: Apache-2.0

package pxe

import (
	"context"
	"fmt"
	"time"
)

const (
	// sightingInterval is how often one unknown machine is reported.
	sightingInterval = time.Minute
	// mostSightings bounds the unknown machines that are remembered, and so what a flood of invented MACs costs.
	mostSightings = 1000
)

// sightings tells the Lookout of unknown machines from a goroutine of its own: it may write to disk, and a known machine
// must not wait for that.
type sightings struct {
	lookout Lookout
	queue   chan Machine
	last    chan map[string]time.Time // holds the one map, as its lock
}

func newSightings(l Lookout) *sightings {
	s := &sightings{lookout: l, queue: make(chan Machine, 64), last: make(chan map[string]time.Time, 1)}
	s.last <- map[string]time.Time{}
	return s
}

// see reports m unless it was reported within the last minute, or too many others were.
func (s *sightings) see(m Machine, now time.Time) {
	last := <-s.last
	defer func() { s.last <- last }()
	mac := m.MAC.String()
	if at, ok := last[mac]; ok && now.Sub(at) < sightingInterval {
		return
	}
	if len(last) >= mostSightings {
		for mac, at := range last {
			if now.Sub(at) >= sightingInterval {
				delete(last, mac)
			}
		}
		if len(last) >= mostSightings {
			return
		}
	}
	select {
	case s.queue <- m:
		last[mac] = now
	default:
	}
}

func (s *sightings) run(ctx context.Context) {
	for {
		select {
		case m := <-s.queue:
			s.lookout.Seen(m, fmt.Sprintf("asked for an address by DHCP as %s on %s", described(m), m.Interface))
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
