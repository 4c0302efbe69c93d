// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/bmc"
	"metald.io/metald/internal/inventory"
)

// After a restore from a backup the inventory may tell of a world that is gone: a host that it calls free may run somebody's
// work by now. So nothing is done to a host that was known before until it has been looked at again.

// RestoredHostRunning is why a host waits that was found running after a restore, and not known to do so.
const RestoredHostRunning = "RestoredHostRunning"

// observedBucket holds, by a host's UID, what was seen of it since the last restore.
const observedBucket = "observed"

// observation is one record of it.
type observation struct {
	Restored time.Time `json:"restored"` // the restore that it is after
	// Taken is what the annotation said at the first look: only a person who writes it anew speaks of what runs now.
	Taken string `json:"taken,omitempty"`
	Done  bool   `json:"done"`
}

// restore is what the store says of its last restore, read once.
type restore struct {
	once sync.Once
	inventory.Restored
	ok  bool
	err error
}

func (m *Mind) restored() *restore {
	r := &m.restore
	r.once.Do(func() { r.Restored, r.ok, r.err = m.Store.Restored() })
	return r
}

// nextEpoch is beyond every epoch that was ever given out, also by a daemon whose last writes a restore has lost. Epochs are
// not raised at once: an agent whose boot the backup still knows is believed, and the machine under it is not started anew.
func (m *Mind) nextEpoch(last int64) (int64, error) {
	r := m.restored()
	if r.err != nil {
		return 0, r.err
	}
	if r.ok {
		last = max(last, r.Epochs())
	}
	return last + 1, nil
}

// stale answers whether what is known of the host is from before a restore, and what was seen of it since then.
func (s *step) stale(ctx context.Context) (bool, observation, error) {
	r := s.restored()
	if !r.ok || r.err != nil {
		return r.err != nil, observation{}, r.err
	}
	if s.Host.CreationTimestamp.After(r.At) || s.observed(r.At) {
		return false, observation{}, nil
	}
	o := observation{Restored: r.At, Taken: s.takenBy()}
	text, err := s.Store.Records(observedBucket).Get(ctx, string(s.Host.UID))
	if err != nil {
		return true, o, err
	}
	var before observation
	if text != nil {
		if err := json.Unmarshal(text, &before); err != nil {
			return true, o, fmt.Errorf("reading what was seen since the restore: %w", err)
		}
	}
	if before.Restored.Equal(r.At) {
		o = before
	} else if err := s.keepObservation(ctx, o); err != nil {
		return true, o, err
	}
	if o.Done {
		s.observations.Store(s.Host.UID, r.At)
	}
	return !o.Done, o, nil
}

func (s *step) observed(since time.Time) bool {
	at, ok := s.observations.Load(s.Host.UID)
	return ok && at.(time.Time).Equal(since)
}

func (s *step) keepObservation(ctx context.Context, o observation) error {
	text, err := json.Marshal(o)
	if err == nil {
		err = s.Store.Records(observedBucket).Put(ctx, string(s.Host.UID), text)
	}
	if err == nil && o.Done {
		s.observations.Store(s.Host.UID, o.Restored)
	}
	return err
}

// noteUnseen has the view tell whether the host must be looked at again. It is asked at a host's first step after a restore,
// also of one that is paused: what a person says from then on is of what runs now.
func (s *step) noteUnseen(ctx context.Context) error {
	stale, o, err := s.stale(ctx)
	if err != nil {
		return fmt.Errorf("telling whether the host was seen since the inventory was restored: %w", err)
	}
	if stale {
		s.Unseen = o.Restored
	}
	return nil
}

// looksFirst answers whether nothing may be done to the host before it was looked at again: the rule of the mind and of a plan.
func (v View) looksFirst() bool {
	switch state := v.state(); {
	case state == metal3.StateNone, state == metal3.StateUnmanaged, state == metal3.StateRegistering, state == metal3.StateDeleting,
		state == metal3.StateDeprovisioning && v.deleting(): // they switch nothing and erase nothing
		return false
	}
	return !v.Unseen.IsZero()
}

// unseen is the condition of a host that must be looked at again; a host that need not be has none.
func unseen(v View) metav1.Condition {
	return condition(v1alpha1.ObservedCondition, false, "InventoryRestored", fmt.Sprintf("the inventory was restored from a backup at %s; "+
		"nothing is done to the machine until it was looked at again", v.Unseen.UTC().Format(time.RFC3339)))
}

// observeAgain looks at a host for the first time after a restore: its BMC must show the certificate and the machine that are
// pinned, and the machine must be off, or run what the inventory says it runs. held is true while that is not so.
func (s *step) observeAgain(ctx context.Context) (out outcome, held bool) {
	if !s.looksFirst() {
		return outcome{}, false
	}
	stale, o, err := s.stale(ctx)
	if err != nil {
		return failed(metal3.PowerManagementError, err), true
	}
	if !stale {
		return outcome{}, false
	}
	bctx, cancel := context.WithTimeout(ctx, bmcTimeout)
	defer cancel()
	out, seen := s.observe(bctx, o)
	if !seen {
		return s.letStrangerGo(ctx, out), true
	}
	o.Done = true
	if err := s.keepObservation(ctx, o); err != nil {
		return failed(metal3.PowerManagementError, err), true
	}
	s.Unseen = time.Time{}
	s.log.Info("host seen again after the restore", "host", s.key, "state", string(s.state()))
	return outcome{}, false
}

func (s *step) observe(ctx context.Context, o observation) (out outcome, seen bool) {
	c, err := s.controller(ctx)
	if err != nil {
		return s.bmcTrouble(ctx, metal3.PowerManagementError, err), false
	}
	id, err := c.Identity(ctx)
	if err != nil {
		return s.bmcTrouble(ctx, metal3.PowerManagementError, err), false
	}
	if out := s.keepIdentity(ctx, id); out.err != nil {
		return out, false
	}
	p, err := s.powered(ctx, c, 0)
	if err != nil {
		return s.bmcTrouble(ctx, metal3.PowerManagementError, err), false
	}
	a := s.agent()
	known := s.epoch() > 0 && a.Epoch == s.epoch() && a.LastSeen != nil && a.LastSeen.After(o.Restored)
	if p == bmc.Off || known || s.takenBy() != o.Taken && s.taken() {
		return outcome{}, true
	}
	return heldBack(RestoredHostRunning, fmt.Sprintf("its agent, or a person: the inventory was restored at %s, and what the machine "+
		"runs since then is not known; it is only read, not switched", o.Restored.UTC().Format(time.RFC3339)),
		fmt.Sprintf("if it is free to use: metald host take %s --reason TEXT, or switch it off at its BMC", s.Host.Name)), false
}

// letStrangerGo ends a deletion that would wait for a machine that nobody knows any more: it is let go as it is.
func (s *step) letStrangerGo(ctx context.Context, out outcome) outcome {
	if s.stopped != nil || s.state() != metal3.StatePoweringOffBeforeDelete || out.err != nil && !out.person && s.Progress.Status.Attempts+1 < deleteTries {
		return out
	}
	err := out.err
	if err == nil {
		err = errors.New("it waits for " + out.waiting.For)
	}
	s.log.Warn("letting go of a host that was not switched off", "host", s.key, "err", err)
	s.tell(ctx, "Warning", "PowerOffSkipped", "the host was let go and its power was not switched: "+err.Error())
	return moved(Stopped)
}
