// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"context"
	"fmt"
	"strings"

	"metald.io/metald/internal/inventory/audit"
)

// said is what a context tells the record of what is done under it.
type said struct {
	actor   audit.Actor
	request string
	reason  string
	host    string
	act     *audit.Act
	guard   func(context.Context) error
}

type saidKey struct{}

func saidIn(ctx context.Context) said {
	if s, ok := ctx.Value(saidKey{}).(said); ok {
		return s
	}
	return said{actor: audit.Actor{User: manager, Via: audit.ViaMind}}
}

// WithActor returns a context whose writes and acts are recorded as this actor's; a context without one is metald's own.
// request is the id that another log has for it, or "".
func WithActor(ctx context.Context, actor audit.Actor, request string) context.Context {
	s := saidIn(ctx)
	s.actor, s.request = actor, request
	return context.WithValue(ctx, saidKey{}, s)
}

// WithReason returns a context whose writes and acts are recorded with why they are done.
func WithReason(ctx context.Context, reason string) context.Context {
	s := saidIn(ctx)
	s.reason = reason
	return context.WithValue(ctx, saidKey{}, s)
}

// WithAct returns a context for one write that announces or ends an act on the world: both are recorded as one, in the
// commit of the write. It is for acts that others do, such as an agent's erase. host is namespace/name.
func WithAct(ctx context.Context, host string, act audit.Act) context.Context {
	s := saidIn(ctx)
	s.host, s.act = host, &act
	return context.WithValue(ctx, saidKey{}, s)
}

// WithHost returns a context whose writes and acts are recorded as being about this host, as namespace/name.
func WithHost(ctx context.Context, host string) context.Context {
	s := saidIn(ctx)
	s.host = host
	return context.WithValue(ctx, saidKey{}, s)
}

// WithGuard returns a context under which an act begins only if guard lets it: Act, and a write that announces an act, fail with
// its error, and nothing of them is done or recorded. What follows an act that has begun is not asked.
func WithGuard(ctx context.Context, guard func(context.Context) error) context.Context {
	s := saidIn(ctx)
	s.guard = guard
	return context.WithValue(ctx, saidKey{}, s)
}

// Guarded asks the context's guard, for what has an effect on the world and no act of its own.
func Guarded(ctx context.Context) error {
	if s := saidIn(ctx); s.guard != nil {
		return s.guard(ctx)
	}
	return nil
}

// Record records an act by itself, of the given host or else of the context's, and returns the number of its entry when that is durable.
func (s *Store) Record(ctx context.Context, host string, act audit.Act) (uint64, error) {
	say := saidIn(ctx)
	if host == "" {
		host = say.host
	}
	payload, err := audit.Record{
		Time: s.now(), Actor: say.actor, Request: say.request, Host: host, Reason: say.reason, Act: &act,
	}.Encode()
	if err != nil {
		return 0, err
	}
	entry, err := s.backend.Append(ctx, payload)
	if err != nil {
		return 0, fmt.Errorf("recording the act %q: %w", act.Verb, err)
	}
	return entry.Seq, nil
}

// Act does something to the world. That it is about to be done is durable before, what came of it is recorded after; what
// cannot be recorded is not done. A daemon that dies in between leaves an intent without an outcome, which says just that.
func (s *Store) Act(ctx context.Context, host string, act audit.Act, do func(context.Context) error) error {
	if err := Guarded(ctx); err != nil {
		return err
	}
	act.Phase, act.Intent, act.Error = audit.Intent, 0, ""
	intent, err := s.Record(ctx, host, act)
	if err != nil {
		return err
	}
	err = do(ctx)
	act.Phase, act.Intent = audit.Done, intent
	if err != nil {
		act.Phase, act.Error = audit.Failed, err.Error()
	}
	// A conversation with a BMC that hung has used up its time; its outcome is told all the same.
	if _, failed := s.Record(context.WithoutCancel(ctx), host, act); failed != nil {
		s.logger.Error("the outcome of an act is not in the record", "host", host, "event", act.Verb, "err", failed)
	}
	return err
}

// hostOf names the host that an object is about, by the kinds that have their host's name.
func hostOf(o audit.Object) string {
	if o.Namespace == "" || o.Group != metal3Group.Group && !strings.HasPrefix(o.Resource, "host") {
		return ""
	}
	switch o.Resource {
	case "baremetalhosts", "hardwaredata", "hostinventories", "hostprogresses", "hostfirmwaresettings", "hostfirmwarecomponents",
		"preprovisioningimages", "dataimages":
		return o.Namespace + "/" + o.Name
	}
	return ""
}
