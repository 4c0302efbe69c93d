// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/inventory"
	"metald.io/metald/internal/inventory/audit"
)

const (
	// seenEvery is how old LastSeen may get: a poll is not worth a commit each time.
	seenEvery = time.Minute
	// refusedEvery is how often the same refusal of the same machine is written, refusedAny how often any of one host: who
	// is turned away must not be able to keep the disk busy.
	refusedEvery = time.Minute
	refusedAny   = 2 * time.Second
	// progressEvery is how often a host's progress is written at most; what comes sooner is dropped, for more will come.
	progressEvery = 4 * time.Second
)

// record writes the agent's part of HostInventory: status.agent and nothing else. Every method returns when the change
// is on disk, and may be repeated.
type record struct {
	inventories Inventories
	now         func() time.Time

	mu      sync.Mutex
	last    map[string]time.Time        // LastSeen as written, by UID
	refusal map[string]v1alpha1.Refusal // as written, by UID
	moved   map[string]time.Time        // ProgressAt as written, by UID
}

func newRecord(inventories Inventories, now func() time.Time) *record {
	return &record{
		inventories: inventories, now: now, last: make(map[string]time.Time), refusal: make(map[string]v1alpha1.Refusal),
		moved: make(map[string]time.Time),
	}
}

// opened writes a new session. It ends an earlier refusal, unless the session is there to report one.
func (r *record) opened(ctx context.Context, s Session, version string) error {
	if s.Mode == v1alpha1.InitrdMode {
		return nil // what it has to say comes with its Done
	}
	now := metav1.NewTime(r.now())
	// The session's token is a credential: that it is handed out is in the record before it is.
	err := r.change(inventory.WithAct(ctx, s.Host.Namespace+"/"+s.Host.Name, audit.Act{Verb: "release agent session", Phase: audit.Done,
		Target: text(s.RemoteIP), Detail: fmt.Sprintf("%s, boot %s, proof by %s", s.Mode, s.BootID, s.Proof), Epoch: s.Epoch}), s.Host, func(agent *v1alpha1.AgentFacts) {
		if agent.BootID != s.BootID || agent.FirstSeen == nil {
			agent.FirstSeen = &now
			agent.Progress, agent.ProgressAt = nil, nil // of a boot that is over
		}
		agent.Mode, agent.Version, agent.BootID, agent.Slot = s.Mode, version, s.BootID, s.Slot
		agent.LastSeen, agent.Proof, agent.EKSHA256, agent.Refusal = &now, s.Proof, s.EKSHA256, nil
		enter(agent, s.Epoch)
	})
	if err == nil {
		r.mu.Lock()
		r.last[s.Host.UID] = now.Time
		delete(r.refusal, s.Host.UID)
		r.mu.Unlock()
	}
	return err
}

// seen writes that the agent is there, about once a minute.
func (r *record) seen(ctx context.Context, s Session) error {
	now := r.now()
	r.mu.Lock()
	fresh := now.Sub(r.last[s.Host.UID]) < seenEvery
	r.mu.Unlock()
	if fresh {
		return nil
	}
	at := metav1.NewTime(now)
	err := r.change(ctx, s.Host, func(agent *v1alpha1.AgentFacts) { agent.LastSeen = &at })
	if err == nil {
		r.mu.Lock()
		r.last[s.Host.UID] = now
		r.mu.Unlock()
	}
	return err
}

// refused writes who was turned away.
func (r *record) refused(ctx context.Context, host v1alpha1.HostRef, note v1alpha1.Refusal) error {
	note.At = metav1.NewTime(r.now())
	r.mu.Lock()
	before, found := r.refusal[host.UID]
	age := note.At.Sub(before.At.Time)
	same := before
	same.At = note.At
	if found && (age < refusedAny || (age < refusedEvery && same == note)) {
		r.mu.Unlock()
		return nil
	}
	r.refusal[host.UID] = note // before the write, so that a flood waits for one write and does not queue many
	r.mu.Unlock()
	err := r.change(ctx, host, func(agent *v1alpha1.AgentFacts) { agent.Refusal = &note })
	if err != nil {
		r.mu.Lock()
		delete(r.refusal, host.UID)
		r.mu.Unlock()
	}
	return err
}

// facts writes an inspection.
func (r *record) facts(ctx context.Context, s Session, facts *v1alpha1.HostFacts) error {
	return r.change(ctx, s.Host, func(agent *v1alpha1.AgentFacts) {
		agent.Facts, agent.Inspected = facts, s.Epoch
	})
}

// done writes how a step ended. The same success again changes nothing, not even its time; a failure again is written
// with its time, for it may be the end of another attempt.
func (r *record) done(ctx context.Context, s Session, in v1alpha1.Done) error {
	result := v1alpha1.StepResult{Step: in.Step, Epoch: s.Epoch, At: metav1.NewTime(r.now()), OK: in.OK, Message: in.Text,
		Erased: in.Erased, AlreadyThere: in.AlreadyThere}
	return r.change(ctx, s.Host, func(agent *v1alpha1.AgentFacts) {
		enter(agent, s.Epoch)
		if s.Mode == v1alpha1.InitrdMode { // its session was not written when it opened
			agent.Mode, agent.BootID, agent.Proof, agent.EKSHA256 = s.Mode, s.BootID, s.Proof, s.EKSHA256
			agent.Slot = s.Slot
		}
		agent.Progress, agent.ProgressAt = nil, nil
		at := slices.IndexFunc(agent.Steps, func(have v1alpha1.StepResult) bool { return have.Step == in.Step })
		switch {
		case at < 0:
			agent.Steps = append(agent.Steps, result)
		case result.OK && same(agent.Steps[at], result):
			return
		default:
			agent.Steps[at] = result
		}
		if in.Step == v1alpha1.RefuseStep {
			agent.Refusal = &v1alpha1.Refusal{
				At: result.At, Reason: "ImageRefused", Message: in.Text, EKSHA256: s.EKSHA256, RemoteIP: text(s.RemoteIP),
			}
		}
	})
}

// same says whether two results say the same, but for when they came.
func same(a, b v1alpha1.StepResult) bool {
	a.At = b.At
	return equality.Semantic.DeepEqual(a, b)
}

// progress writes how far a step is, and with it that the agent is there. What arrives behind the step's end is dropped.
func (r *record) progress(ctx context.Context, s Session, step string, p v1alpha1.StepProgress) error {
	now := r.now()
	r.mu.Lock()
	before, found := r.moved[s.Host.UID]
	if found && now.Sub(before) < progressEvery {
		r.mu.Unlock()
		return nil
	}
	r.moved[s.Host.UID] = now
	r.mu.Unlock()
	at := metav1.NewTime(now)
	err := r.change(ctx, s.Host, func(agent *v1alpha1.AgentFacts) {
		enter(agent, s.Epoch)
		if slices.ContainsFunc(agent.Steps, func(have v1alpha1.StepResult) bool { return have.Step == step && have.OK }) {
			return
		}
		agent.Progress, agent.ProgressAt, agent.LastSeen = &p, &at, &at
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		delete(r.moved, s.Host.UID)
		return err
	}
	r.last[s.Host.UID] = now
	return nil
}

// enter begins an epoch: results of steps belong to the one in which they were ordered.
func enter(agent *v1alpha1.AgentFacts, epoch int64) {
	if agent.Epoch != epoch {
		agent.Epoch, agent.Steps, agent.Progress, agent.ProgressAt = epoch, nil, nil, nil
	}
}

// change edits the agent's part of a host's inventory, and makes the inventory where there is none yet.
func (r *record) change(ctx context.Context, host v1alpha1.HostRef, edit func(*v1alpha1.AgentFacts)) error {
	owner := metav1.OwnerReference{
		APIVersion: "metal3.io/v1alpha1", Kind: "BareMetalHost", Name: host.Name, UID: types.UID(host.UID),
	}
	apply := func(object *v1alpha1.HostInventory) error {
		for _, other := range object.OwnerReferences {
			if other.Kind == owner.Kind && other.UID != owner.UID {
				return errors.New("it belongs to an earlier host of this name, which is not swept away yet")
			}
		}
		if object.Status.Agent == nil {
			object.Status.Agent = &v1alpha1.AgentFacts{}
		}
		edit(object.Status.Agent)
		return nil
	}
	for range 3 { // the mind makes the same object; either may be first
		_, err := r.inventories.Update(ctx, host.Namespace, host.Name, apply)
		if err == nil {
			return nil
		}
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("writing the inventory of %s/%s: %w", host.Namespace, host.Name, err)
		}
		fresh := &v1alpha1.HostInventory{
			TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "HostInventory"},
			ObjectMeta: metav1.ObjectMeta{
				Namespace: host.Namespace, Name: host.Name, OwnerReferences: []metav1.OwnerReference{owner},
			},
		}
		_ = apply(fresh)
		_, err = r.inventories.Create(ctx, fresh)
		if err == nil {
			return nil
		}
		if !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("making the inventory of %s/%s: %w", host.Namespace, host.Name, err)
		}
	}
	return fmt.Errorf("writing the inventory of %s/%s: it comes and goes", host.Namespace, host.Name)
}
