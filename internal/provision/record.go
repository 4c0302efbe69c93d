// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"fmt"
	"reflect"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
)

const keptTransitions = 50

// record writes what a step came to: the mind's own record first, then the host's status that is made from it. waiting
// is true between two tries, when nothing new happened.
func (s *step) record(ctx context.Context, out outcome, waiting bool) error {
	from := s.state()
	to, known := from, false
	if out.event != "" {
		if to, known = follow(from, out.event); !known {
			s.log.Warn("ignoring an event that this state does not have", "host", s.key, "state", string(from), "event", string(out.event))
			s.tell(ctx, corev1.EventTypeWarning, "UnexpectedEvent", fmt.Sprintf("%s does not apply in state %q", out.event, from))
			to = from
		}
	}
	asked, wasAsked := s.asked.LoadAndDelete(s.key)
	p, err := s.Store.Progresses().Update(ctx, s.Host.Namespace, s.Host.Name, func(p *v1alpha1.HostProgress) error {
		if !waiting {
			s.writeProgress(&p.Status, from, to, out)
		}
		if wasAsked && p.Status.Boot != nil {
			t := asked.(metav1.Time)
			p.Status.Boot.Asked = &t
		}
		if b := p.Status.Boot; b != nil {
			if sent := s.transfers.sent(s.key, b.Digest); sent != nil && !sent.Before(&b.Ordered) {
				b.Sent = sent
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.Progress = p
	if known {
		s.log.Info("state changed", "host", s.key, "from", string(from), "event", string(out.event), "state", string(to))
		s.tell(ctx, corev1.EventTypeNormal, "StateChanged", fmt.Sprintf("%s: %s -> %s", out.event, name(from), name(to)))
	} else if out.err != nil && !waiting && s.Host.Status.ErrorMessage != out.err.Error() {
		s.log.Warn("step failed", "host", s.key, "state", string(from), "err", out.err)
		s.tell(ctx, corev1.EventTypeWarning, "StepFailed", out.err.Error())
	}
	if to == metal3.StateDeleting && from == to && out.event == "" && out.err == nil && out.waiting == nil {
		return nil // letGo has ended the object
	}
	return s.writeHost(ctx, out)
}

func name(s State) string {
	if s == metal3.StateNone {
		return "(none)"
	}
	return string(s)
}

// writeProgress notes a step in the mind's record.
func (s *step) writeProgress(p *v1alpha1.HostProgressStatus, from, to State, out outcome) {
	now := metav1.NewTime(s.at)
	if out.event != "" && to != from || p.Since == nil {
		if p.Since != nil || out.event != "" {
			p.Transitions = append(p.Transitions, v1alpha1.Transition{From: string(from), On: string(out.event), To: string(to), At: now})
			if len(p.Transitions) > keptTransitions {
				p.Transitions = p.Transitions[len(p.Transitions)-keptTransitions:]
			}
		}
		endPhase(p, string(from), now)
		if row(to).limit > 0 && to != metal3.StateNone {
			startPhase(p, string(to), now)
		}
		p.State, p.Since = string(to), &now
		p.Attempts, p.NextTry, p.LastError, p.Waiting = 0, nil, "", nil
	}
	switch {
	case out.event != "":
	case out.err != nil:
		p.LastError = out.err.Error()
		p.NextTry = nil
		if !out.person {
			p.Attempts++
			t := metav1.NewTime(s.at.Add(backoff(p.Attempts)))
			p.NextTry = &t
			out.waiting = &v1alpha1.Waiting{For: "the next try, after: " + p.LastError, Reason: "Retrying", Until: &t}
		}
	default:
		p.LastError, p.NextTry = "", nil
		if out.waiting == nil {
			p.Attempts = 0 // it is where it should be: the next trouble is a new one
		}
	}
	if out.event == "" {
		p.Waiting = keepSince(p.Waiting, out.waiting, now)
	}
}

// keepSince keeps the time at which a wait began while it stays the same wait.
func keepSince(old, next *v1alpha1.Waiting, now metav1.Time) *v1alpha1.Waiting {
	if next == nil {
		return nil
	}
	w := *next
	w.Since = now
	if old != nil && old.Reason == w.Reason {
		w.Since = old.Since
	}
	return &w
}

// startPhase begins a timed part of the host's way; one of the same name starts anew.
func startPhase(p *v1alpha1.HostProgressStatus, name string, now metav1.Time) {
	kept := p.Phases[:0]
	for _, ph := range p.Phases {
		if ph.Name != name {
			kept = append(kept, ph)
		}
	}
	p.Phases = append(kept, v1alpha1.Phase{Name: name, Start: now})
}

func endPhase(p *v1alpha1.HostProgressStatus, name string, now metav1.Time) {
	for i := range p.Phases {
		if p.Phases[i].Name == name && p.Phases[i].End == nil {
			p.Phases[i].End = &now
		}
	}
}

// writeHost makes the host's status true. Only a real change is written, so that watchers hear nothing else.
func (s *step) writeHost(ctx context.Context, out outcome) error {
	tried, good, on := s.Host.Status.TriedCredentials, s.Host.Status.GoodCredentials, s.Host.Status.PoweredOn
	h, err := s.Store.Hosts().Update(ctx, s.Host.Namespace, s.Host.Name, func(h *metal3.BareMetalHost) error {
		before := h.Status.DeepCopy()
		h.Status.TriedCredentials, h.Status.GoodCredentials, h.Status.PoweredOn = tried, good, on
		v := View{Host: h, Progress: s.Progress, Inventory: s.Inventory, Unseen: s.Unseen}
		writeStatus(v, out, s.at)
		before.LastUpdated = h.Status.LastUpdated
		if !reflect.DeepEqual(*before, h.Status) && !equality.Semantic.DeepEqual(*before, h.Status) { // the first is much cheaper
			now := metav1.NewTime(s.at)
			h.Status.LastUpdated = &now
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.Host = h
	return nil
}
