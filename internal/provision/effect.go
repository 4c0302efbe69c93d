// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"fmt"
	"strings"
	"time"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/bmc"
	"metald.io/metald/internal/cluster"
	"metald.io/metald/internal/inventory"
	"metald.io/metald/internal/inventory/audit"
)

// Whatever the mind does to the world goes through here, so that its intent is on disk before and its outcome after.

// dial logs in to the host's BMC. Where the BMC ends the session later, each login anew is told by itself.
func (s *step) dial(ctx context.Context, t bmc.Target) (c bmc.Controller, err error) {
	act := audit.Act{Verb: "log in to BMC", Target: s.Host.Spec.BMC.Address, Detail: "as " + t.Username, Epoch: s.epoch()}
	store, key, later := s.Store, s.key, act // the session outlives the step
	later.Detail, later.Epoch = later.Detail+", its session had ended", 0
	t.Again = func(ctx context.Context, login func(context.Context) error) error {
		return store.Act(ctx, key, later, login)
	}
	err = s.Store.Act(ctx, s.key, act, func(ctx context.Context) (err error) {
		c, err = s.BMCs.Dial(ctx, t)
		return err
	})
	return c, err
}

// power switches the machine, for the reason of the power lease that was taken for it.
func (s *step) power(ctx context.Context, c *session, action bmc.PowerAction) error {
	return s.Store.Act(s.leased(ctx), s.key, s.actOnMachine("switch power", string(action)), func(ctx context.Context) error {
		return c.Switch(ctx, action)
	})
}

// bootOnce tells the machine what it boots from the next time.
func (s *step) bootOnce(ctx context.Context, c *session, from bmc.BootTarget) error {
	return s.Store.Act(s.leased(ctx), s.key, s.actOnMachine("set one-time boot", string(from)), func(ctx context.Context) error {
		return c.SetOneTimeBoot(ctx, from)
	})
}

func (s *step) leased(ctx context.Context) context.Context {
	if p := s.Progress.Status.Power; p != nil {
		return inventory.WithReason(ctx, p.Reason)
	}
	return ctx
}

func (s *step) actOnMachine(verb, detail string) audit.Act {
	return audit.Act{Verb: verb, Target: s.Host.Spec.BMC.Address, Detail: detail, Epoch: s.epoch()}
}

// erasing is, as writing below, an act that the agent does: it is announced and ended in the commit of
// the order that the agent gets.
func erasing(e v1alpha1.Erase, epoch int64) audit.Act {
	act := audit.Act{Verb: "erase drives", Phase: audit.Intent, Epoch: epoch, Detail: fmt.Sprintf("%s, begun %s", e.Mode, e.Begun.UTC().Format(time.RFC3339))}
	switch {
	case e.Ended != nil && e.OK:
		act.Phase = audit.Done
	case e.Ended != nil:
		act.Phase, act.Error = audit.Failed, failures(&e)
	}
	return act
}

func writing(d *v1alpha1.Deployment, phase, problem string, epoch int64) audit.Act {
	return audit.Act{Verb: "write image", Phase: phase, Target: diskName(d.Install.Disk), Epoch: epoch, Error: problem,
		Detail: fmt.Sprintf("%s, plan %s", first(d.Image, "the user's own"), d.Install.ID)}
}

// draining is the act of many passes: it is announced in the commit that notes the cordon, before the first eviction, and ended
// in the one that notes that the Node is empty or that its time is up.
func (s *step) draining(phase string, left []string) audit.Act {
	act := audit.Act{Verb: "drain node", Phase: phase, Epoch: s.epoch(),
		Detail: fmt.Sprintf("node %s, until %s", s.nodeName(), s.Progress.Status.Leaving.DrainUntil.UTC().Format(time.RFC3339))}
	if d := s.Progress.Status.Deployment; d != nil {
		act.Target = d.Cluster
	}
	if len(left) > 0 {
		act.Phase, act.Error = audit.Failed, "left behind: "+strings.Join(left, "; ")
	}
	return act
}

// released records that a secret is handed to a host's agent, before it is.
func (s *step) released(ctx context.Context, what, target, detail string) error {
	_, err := s.Store.Record(ctx, s.key, audit.Act{Verb: "release " + what, Phase: audit.Done, Target: target, Detail: detail, Epoch: s.epoch()})
	return err
}

// witnessed is a control plane whose credentials and Nodes are given and taken on record, for the host that the context is
// about. What is not here only reads, but Drain: see draining.
type witnessed struct {
	Cluster
	store *inventory.Store
	key   string // of the KubernetesCluster
}

func (w witnessed) Grant(ctx context.Context, node string, ttl time.Duration) (g cluster.Grant, err error) {
	act := audit.Act{Verb: "make join credential", Target: w.key, Detail: "node " + node}
	err = w.store.Act(ctx, "", act, func(ctx context.Context) (err error) {
		g, err = w.Cluster.Grant(ctx, node, ttl)
		return err
	})
	return g, err
}

func (w witnessed) Revoke(ctx context.Context, tokenID string) error {
	act := audit.Act{Verb: "revoke join credential", Target: w.key, Detail: "token " + tokenID}
	return w.store.Act(ctx, "", act, func(ctx context.Context) error { return w.Cluster.Revoke(ctx, tokenID) })
}

func (w witnessed) Approve(ctx context.Context, csr string, want cluster.Expected) error {
	act := audit.Act{Verb: "approve certificate request", Target: w.key, Detail: fmt.Sprintf("%s, node %s, token %s", csr, want.NodeName, want.TokenID)}
	return w.store.Act(ctx, "", act, func(ctx context.Context) error { return w.Cluster.Approve(ctx, csr, want) })
}

func (w witnessed) Label(ctx context.Context, node string, labels map[string]string) error {
	act := audit.Act{Verb: "label node", Target: w.key, Detail: "node " + node}
	return w.store.Act(ctx, "", act, func(ctx context.Context) error { return w.Cluster.Label(ctx, node, labels) })
}

func (w witnessed) Cordon(ctx context.Context, node, host string, on bool) error {
	act := audit.Act{Verb: "cordon node", Target: w.key, Detail: "node " + node}
	if !on {
		act.Verb = "uncordon node"
	}
	return w.store.Act(ctx, "", act, func(ctx context.Context) error { return w.Cluster.Cordon(ctx, node, host, on) })
}

func (w witnessed) DeleteNode(ctx context.Context, node, host string) error {
	act := audit.Act{Verb: "delete node", Target: w.key, Detail: "node " + node}
	return w.store.Act(ctx, "", act, func(ctx context.Context) error { return w.Cluster.DeleteNode(ctx, node, host) })
}

// Drain is no act of its own: see draining. But each pass of it asks pods to go.
func (w witnessed) Drain(ctx context.Context, node, host string, until time.Time) ([]string, error) {
	if err := inventory.Guarded(ctx); err != nil {
		return nil, err
	}
	return w.Cluster.Drain(ctx, node, host, until)
}
