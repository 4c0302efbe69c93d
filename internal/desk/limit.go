// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// maxSources bounds the table of addresses; a rack row has a few hundred.
	maxSources = 8192
	// sourceIdle is after how long an address is forgotten. Its bucket is full again by then.
	sourceIdle = time.Minute
)

// limits bounds how often one address may ask for the costly, unproved calls.
type limits struct {
	each rate.Limit

	mu      sync.Mutex
	sources map[netip.Addr]*source
}

type source struct {
	*rate.Limiter
	last time.Time
}

func newLimits(each rate.Limit) *limits {
	return &limits{each: each, sources: make(map[netip.Addr]*source)}
}

// allow says whether an address may ask now. When the table is full of addresses that asked within the last minute, a
// new one has to wait: the busy ones keep their place, so that a flood from made-up addresses does not push them out.
func (l *limits) allow(from netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	s := l.sources[from]
	if s == nil {
		if len(l.sources) >= maxSources {
			l.forget(now)
		}
		if len(l.sources) >= maxSources {
			return false
		}
		s = &source{Limiter: rate.NewLimiter(l.each, max(1, int(10*l.each)))}
		l.sources[from] = s
	}
	s.last = now
	return s.AllowN(now, 1)
}

func (l *limits) forget(now time.Time) {
	for addr, s := range l.sources {
		if now.Sub(s.last) > sourceIdle {
			delete(l.sources, addr)
		}
	}
}
