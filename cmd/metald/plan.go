// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/provision"
)

// planOptions is what the flags of `metald plan` say.
type planOptions struct {
	output  output
	release bool
	pool    string
}

func newPlanCommand(a *access) *cobra.Command {
	var o planOptions
	c := takesHosts(a, 1, &cobra.Command{
		Use: "plan HOST...", Short: "Show what metald would do to hosts next, and do none of it",
		Long: `Show each BMC call, power switch, boot, write and erase that metald would do to a host next, in order, which of them destroy
something, and what holds it back: a pause, a host that nobody took, the cap on destructive acts, something that is missing.

It reads metald's API and asks no BMC: power and disks are those that were last seen. The plan comes from the same rules that
the daemon goes by, so this program and the daemon should be of one version. A host that no pool has claimed is planned for the
pool that selects it; --pool says another, --release says what would happen if nobody wanted the host any more.

It exits with 4 where something holds a host back, with 0 where nothing does.`,
		Example: `  metald plan r1n07
  metald plan r1n07 --pool workers
  metald plan 'r1n[01-18]' --release -o json`,
		RunE: func(c *cobra.Command, args []string) error {
			if f := o.output.format; f == "wide" || f == "name" {
				return usageErrorf("-o %s: want json, yaml or jsonpath=TEMPLATE", f)
			}
			if _, err := o.output.printer(); err != nil {
				return err
			}
			if o.release && o.pool != "" {
				return usageErrorf("--release and --pool do not go together")
			}
			d, err := a.open()
			if err != nil {
				return err
			}
			return o.run(c, d, args)
		},
	})
	c.Flags().StringVarP(&o.output.format, "output", "o", "", "output: json, yaml or jsonpath=TEMPLATE (default: text)")
	c.Flags().BoolVar(&o.release, "release", false, "as if nobody wanted the hosts any more")
	c.Flags().StringVar(&o.pool, "pool", "", "as if this NodePool claimed the hosts that are free")
	c.RegisterFlagCompletionFunc("pool", completePools(a))
	return c
}

func (o planOptions) run(c *cobra.Command, d *door, args []string) error {
	t := tally{c: c, of: len(args)}
	var plans []hostPlan
	held := 0
	for _, arg := range args {
		p, err := o.plan(c.Context(), d, arg)
		t.count(arg, err)
		if err != nil {
			continue
		}
		if len(p.HeldBack) > 0 || p.Then != "" {
			held++
		}
		plans = append(plans, p)
	}
	if err := o.print(c.OutOrStdout(), plans, len(args) == 1, time.Now()); err != nil {
		return err
	}
	if err := t.end(); err != nil || held == 0 {
		return err
	}
	return codedError{exitRefused, errTold}
}

// hostPlan is one item of the command's JSON.
type hostPlan struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        viewMeta `json:"metadata"`
	State           string   `json:"state"`
	// Power is what the BMC last said.
	Power string `json:"power"`
	// Release says that the plan is for a host that nobody wants; Pool is the NodePool it is for, as namespace/name.
	Release bool   `json:"release,omitempty"`
	Pool    string `json:"pool,omitempty"`
	// Waiting is what the host waits for right now.
	Waiting *v1alpha1.Waiting `json:"waiting,omitempty"`
	Acts    []provision.Act   `json:"acts"`
	// Destructive counts the acts that are.
	Destructive int `json:"destructive"`
	// HeldBack is what keeps metald from these acts now; Then is what will keep it from going on after them.
	HeldBack []string `json:"heldBack,omitempty"`
	Then     string   `json:"thenHeldBack,omitempty"`
}

// plan reads what is known of one host and asks the mind's own rules. It decides nothing itself.
func (o planOptions) plan(ctx context.Context, d *door, arg string) (hostPlan, error) {
	h, err := d.host(ctx, arg)
	if err != nil {
		return hostPlan{}, err
	}
	v := provision.View{Host: h, Progress: &v1alpha1.HostProgress{}, Inventory: &v1alpha1.HostInventory{}}
	if err := d.beside(ctx, "hostprogresses", h.Namespace, h.Name, v.Progress); err != nil {
		return hostPlan{}, err
	}
	if err := d.beside(ctx, "hostinventories", h.Namespace, h.Name, v.Inventory); err != nil {
		return hostPlan{}, err
	}
	world, err := o.world(ctx, d, h)
	if err != nil {
		return hostPlan{}, err
	}
	pauses, err := d.pauses(ctx, h.Namespace)
	if err != nil {
		return hostPlan{}, err
	}
	if c := meta.FindStatusCondition(h.Status.Conditions, v1alpha1.ObservedCondition); c != nil && c.Status == metav1.ConditionFalse {
		v.Unseen = c.LastTransitionTime.Time
	}
	if pausedWhy(h.Annotations) == "" {
		v.PausedBy = pauses.above(h)
	}
	look := provision.Plan
	if o.release {
		look = provision.PlanRelease
	}
	p := newPlan(v, look(v, world))
	p.Release = o.release
	if world.Pool != nil {
		p.Pool = world.Pool.Namespace + "/" + world.Pool.Name
		if v.Progress.Status.Deployment == nil && !o.release {
			p.judge(*world.Pool)
		}
	}
	return p, nil
}

func newPlan(v provision.View, acts []provision.Act) hostPlan {
	seen := view(v.Host, v.Progress)
	p := hostPlan{
		TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "HostPlan"},
		Metadata: seen.Metadata, State: seen.State, Power: seen.Power, Waiting: seen.Waiting, Acts: []provision.Act{},
	}
	for _, a := range acts {
		switch {
		case a.Kind == "hold" && len(p.Acts) > 0:
			p.Then = a.What
			continue
		case a.Kind == "hold":
			p.HeldBack = append(p.HeldBack, a.What)
			continue
		}
		if a.Destructive {
			p.Destructive++
		}
		p.Acts = append(p.Acts, a)
	}
	if w := seen.Waiting; w != nil && w.Reason == "Capped" {
		p.HeldBack = append(p.HeldBack, w.For)
	}
	c := meta.FindStatusCondition(v.Host.Status.Conditions, v1alpha1.StalledCondition)
	told := c != nil && (c.Reason == "Paused" || c.Reason == provision.RestoredHostRunning)
	if c != nil && c.Status == metav1.ConditionTrue && !told {
		p.HeldBack = append(p.HeldBack, strings.TrimSuffix(fmt.Sprintf("stalled, %s: %s", c.Reason, c.Message), ": "))
	}
	return p
}

// judge adds what the mind says that a pool lacks, for a host that is yet to be deployed. Too few hosts is no reason then.
func (p *hostPlan) judge(pool v1alpha1.NodePool) {
	c := meta.FindStatusCondition(pool.Status.Conditions, "Satisfied")
	if c == nil || c.Status != metav1.ConditionFalse || c.Reason == "TooFewHosts" {
		return
	}
	p.HeldBack = append(p.HeldBack, fmt.Sprintf("pool %s, %s: %s", p.Pool, c.Reason, c.Message))
}

// world finds the pool that owns a host, or for a free one the pool that was named or else selects it, and the pool's image.
func (o planOptions) world(ctx context.Context, d *door, h *metal3.BareMetalHost) (provision.World, error) {
	var w provision.World
	pools, err := d.pools(ctx, h.Namespace)
	if err != nil {
		return w, err
	}
	slices.SortFunc(pools, func(a, b v1alpha1.NodePool) int { return cmp.Compare(a.Name, b.Name) })
	for i, p := range pools {
		var fits bool
		switch owner := poolOf(h); {
		case owner != "":
			fits = owner == p.Namespace+"/"+p.Name
		case o.release || h.Spec.ConsumerRef != nil || h.Spec.CustomDeploy != nil || h.Spec.Image != nil:
		case o.pool != "":
			fits = p.Name == o.pool
		default:
			fits = p.Status.Claimed < p.Spec.Replicas && selects(p, h)
		}
		if fits {
			w.Pool = &pools[i]
			break
		}
	}
	switch {
	case w.Pool == nil && o.pool != "":
		return w, d.notFor(ctx, h, o.pool)
	case w.Pool == nil:
		return w, nil
	case o.pool != "" && w.Pool.Name != o.pool:
		return w, refusedErrorf("pool %s/%s has it already", w.Pool.Namespace, w.Pool.Name)
	}
	var image v1alpha1.Image
	err = d.metald.Get().Resource("images").Name(w.Pool.Spec.Image).Do(ctx).Into(&image)
	switch {
	case apierrors.IsNotFound(err): // the pool's own condition says so
	case err != nil:
		return w, fmt.Errorf("reading image %s: %w", w.Pool.Spec.Image, err)
	default:
		w.Image = &image
	}
	return w, nil
}

// notFor says why a host cannot be planned for a pool that was named.
func (d *door) notFor(ctx context.Context, h *metal3.BareMetalHost, pool string) error {
	if _, err := d.pool(ctx, h.Namespace, pool); err != nil {
		return err
	}
	return refusedErrorf("somebody else claims it: see its spec.consumerRef, spec.customDeploy and spec.image")
}

func selects(p v1alpha1.NodePool, h *metal3.BareMetalHost) bool {
	if p.Spec.HostSelector == nil {
		return true
	}
	selector, err := metav1.LabelSelectorAsSelector(p.Spec.HostSelector)
	return err == nil && selector.Matches(labels.Set(h.Labels))
}

func (o planOptions) print(w io.Writer, plans []hostPlan, single bool, now time.Time) error {
	printer, err := o.output.printer()
	if err != nil {
		return err
	}
	if printer == nil {
		out := &pageWriter{w: w}
		for i, p := range plans {
			p.text(out, i > 0, now)
		}
		return out.err
	}
	list, err := objects("HostPlanList", plans, single)
	if err != nil {
		return err
	}
	return printer.PrintObj(list, w)
}
