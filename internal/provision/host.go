// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/inventory"
)

// step is one look at one host: what is known, and the means to act.
type step struct {
	*Mind
	View
	key string
	at  time.Time
	// stopped is the pause that an act of this step has met.
	stopped *pausedError
}

// handlers is the work inside each state.
var handlers = map[State]func(*step, context.Context) outcome{
	metal3.StateNone:                    (*step).meet,
	metal3.StateUnmanaged:               (*step).meet,
	metal3.StateRegistering:             (*step).register,
	metal3.StateInspecting:              (*step).inspect,
	metal3.StatePreparing:               (*step).prepare,
	metal3.StateAvailable:               (*step).rest,
	metal3.StateProvisioning:            (*step).provision,
	metal3.StateProvisioned:             (*step).keep,
	metal3.StateExternallyProvisioned:   (*step).leaveAlone,
	metal3.StateDeprovisioning:          (*step).deprovision,
	metal3.StatePoweringOffBeforeDelete: (*step).stop,
	metal3.StateDeleting:                (*step).letGo,
}

// host takes one step with one host and answers when to look again.
func (m *Mind) host(ctx context.Context, key string) (time.Duration, error) {
	ns, name, _ := strings.Cut(key, "/")
	ctx = inventory.WithHost(ctx, key)
	s, err := m.view(ctx, ns, name)
	if apierrors.IsNotFound(err) {
		m.bmcs.drop(key)
		m.transfers.forget(key)
		m.slots.leave(key)
		return 0, m.sweepAway(ctx, ns, name)
	}
	if err != nil {
		return 0, err
	}
	if err := s.noteUnseen(ctx); err != nil {
		return 0, err
	}
	_, leaves := follow(s.state(), Removed)
	if next := s.Progress.Status.NextTry; next != nil && s.at.Before(next.Time) && !(s.deleting() && leaves) && !s.credentialsChanged(ctx) {
		return next.Time.Sub(s.at) + time.Millisecond, s.record(ctx, outcome{err: errors.New(s.Progress.Status.LastError),
			errType: s.Host.Status.ErrorType, waiting: s.Progress.Status.Waiting}, true)
	}
	out := s.act(s.begins(ctx))
	if s.stopped != nil {
		out = s.pause(s.stopped.by)
	}
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	if err := s.record(ctx, out, false); err != nil {
		if apierrors.IsNotFound(err) {
			return 0, nil // it ended meanwhile; its deletion queues it again
		}
		return 0, err
	}
	return s.again(out), nil
}

// act decides which work is due. Deletion goes before the state's own work, a pause before both.
func (s *step) act(ctx context.Context) outcome {
	state := s.state()
	if state == metal3.StateReady {
		state = metal3.StateAvailable
	}
	if s.paused() && state != metal3.StateDeleting {
		return s.pause(s.PausedBy)
	}
	if s.deleting() {
		if _, ok := follow(state, Removed); ok && (state != metal3.StateDeprovisioning || s.Progress.Status.Join == nil) {
			return moved(Removed)
		}
	}
	if twins := s.twins(); twins != "" && !s.deleting() {
		return stuck(metal3.RegistrationError, "DuplicateIdentity",
			fmt.Errorf("%s has the same boot MAC address, system UUID, TPM or serial number", twins),
			"correct bootMACAddress of one of them, or delete it; neither is touched until then")
	}
	if out, held := s.observeAgain(ctx); held {
		return out
	}
	work, ok := handlers[state]
	if !ok {
		return stuck(metal3.RegistrationError, "UnknownState", fmt.Errorf("state %q is not one that metald knows", state),
			"clear status.provisioning.state")
	}
	return work(s, ctx)
}

// twins names another host with the same evidence of identity.
func (s *step) twins() string {
	id := s.identity()
	for _, w := range []string{macWord(s.bootMAC()), uuidWord(id.SystemUUID), ekWord(id.EKSHA256), serialWord(s.bmc().Manufacturer, id.SerialNumber)} {
		if w == "" {
			continue
		}
		for _, other := range s.evidence.find(w) {
			if other != s.key {
				return "host " + other
			}
		}
	}
	return ""
}

// view is a host as it is stored now, with its two companions, which are made where they are missing. What nobody has
// written since it was last seen is not read again: all but the host is shared, and must not be changed.
func (m *Mind) view(ctx context.Context, ns, name string) (*step, error) {
	h, err := m.Store.Hosts().Newest(ctx, ns, name)
	if err != nil {
		return nil, err
	}
	h = h.DeepCopy() // a step notes in its status what it learns
	if !slices.Contains(h.Finalizers, v1alpha1.HostFinalizer) && h.DeletionTimestamp == nil {
		h, err = m.Store.Hosts().Update(ctx, ns, name, func(h *metal3.BareMetalHost) error {
			h.Finalizers = append(h.Finalizers, v1alpha1.HostFinalizer)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	s := &step{Mind: m, key: ns + "/" + name, at: m.now()}
	s.Host = h
	if s.PausedBy, err = m.stoppedBy(ctx, h); err != nil {
		return nil, err
	}
	meta := metav1.ObjectMeta{Namespace: ns, Name: name, OwnerReferences: []metav1.OwnerReference{ownerRef(h)}}
	s.Progress, err = companion(ctx, m.Store.Progresses(), h.UID, ns, name, func() *v1alpha1.HostProgress {
		p := &v1alpha1.HostProgress{ObjectMeta: meta}
		p.Status.State = string(h.Status.Provisioning.State) // a restored status (clusterctl move) is gone on from
		return p
	})
	if err != nil {
		return nil, err
	}
	s.Inventory, err = companion(ctx, m.Store.Inventories(), h.UID, ns, name, func() *v1alpha1.HostInventory {
		return &v1alpha1.HostInventory{ObjectMeta: meta}
	})
	return s, err
}

func ownerRef(h *metal3.BareMetalHost) metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: metal3.GroupVersion.String(), Kind: "BareMetalHost", Name: h.Name, UID: h.UID}
}

// ownedBy answers whether an object belongs to this very host, not to an earlier one of the same name.
func ownedBy(o metav1.Object, host types.UID) bool {
	for _, r := range o.GetOwnerReferences() {
		if r.UID == host {
			return true
		}
	}
	return false
}

// again answers when to look at the host without any change.
func (s *step) again(out outcome) time.Duration {
	switch {
	case out.event != "":
		return time.Millisecond
	case out.err != nil && !out.person:
		return s.Progress.Status.NextTry.Time.Sub(s.at) + time.Millisecond
	case out.after > 0:
		return out.after
	case s.Limits.Poll > 0:
		return s.Limits.Poll
	}
	return time.Minute
}
