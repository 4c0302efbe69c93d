// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
)

// capHour is the time in which destructive acts are counted.
const capHour = time.Hour

// acts is the cap on destructive acts: erases, writes to disks that may hold something, and power-offs of machines that run
// something. A wrong label on a pool must not empty a hall before somebody looks. It is kept on disk, so a restart is no
// way round it.
type acts struct {
	mu     sync.Mutex
	loaded bool
	done   []act
}

type act struct {
	At   time.Time `json:"at"`
	Host string    `json:"host"`
	What string    `json:"what"`
}

// capKey is the one record of bucket "acts".
const capKey = "last hour"

// spend counts one destructive act, on disk before it is done. The outcome is empty where it may go on; else the host waits
// until an older act is an hour past.
func (s *step) spend(ctx context.Context, what string) outcome {
	if s.Limits.DestructivePerHour < 0 {
		return outcome{}
	}
	a := &s.acts
	a.mu.Lock()
	defer a.mu.Unlock()
	records := s.Store.Records("acts")
	if !a.loaded {
		all, err := records.All(ctx)
		if err != nil {
			return failed(metal3.PowerManagementError, fmt.Errorf("reading the destructive acts of the last hour: %w", err))
		}
		if text, ok := all[capKey]; ok {
			if err := json.Unmarshal(text, &a.done); err != nil {
				return failed(metal3.PowerManagementError, fmt.Errorf("reading the destructive acts of the last hour: %w", err))
			}
		}
		a.loaded = true
	}
	now := s.now()
	recent := slices.DeleteFunc(slices.Clone(a.done), func(d act) bool { return now.Sub(d.At) >= capHour })
	if len(recent) >= s.Limits.DestructivePerHour {
		until := now.Add(capHour)
		if len(recent) > 0 {
			until = recent[0].At.Add(capHour)
		}
		out := awaits(fmt.Sprintf("the cap of %d destructive acts an hour, before metald may %s", s.Limits.DestructivePerHour, what), "Capped",
			until, "wait, or raise limits.destructiveActsPerHour if all of this is meant", min(until.Sub(now)+time.Second, time.Minute))
		return out
	}
	next := append(recent, act{At: now, Host: s.key, What: what})
	text, err := json.Marshal(next)
	if err == nil {
		err = records.Put(ctx, capKey, text)
	}
	if err != nil {
		return failed(metal3.PowerManagementError, fmt.Errorf("counting a destructive act: %w", err))
	}
	a.done = next
	s.log.Info("destructive act", "host", s.key, "event", what, "lastHour", len(next), "cap", s.Limits.DestructivePerHour)
	return outcome{}
}

// slots bounds the machines that boot at once: a hall that comes back together must not starve its own boot server.
type slots struct {
	mu sync.Mutex
	on map[string]bool
}

// take gives a host a slot, or says how many are taken. most is 0 where there is no bound.
func (b *slots) take(key string, most int) (taken int, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.on == nil {
		b.on = map[string]bool{}
	}
	if !b.on[key] && most > 0 && len(b.on) >= most {
		return len(b.on), false
	}
	b.on[key] = true
	return len(b.on), true
}

func (b *slots) leave(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.on, key)
}
