// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"metald.io/metald/api/v1alpha1"
)

func newPauseCommand(a *access) *cobra.Command {
	var off, all bool
	var pools []string
	var reason string
	c := takesHosts(a, 0, &cobra.Command{
		Use: "pause {HOST... | --pool NAME | --all}", Short: "Stop all work on hosts at the next safe point, or let it go on",
		Long: `Stop all work on hosts at the next safe point: metald then switches no power, boots, writes and erases nothing there, and goes on
where it was after the same command with --off. Machines that run go on running.

  metald pause HOST... --reason TEXT      these hosts
  metald pause --pool NAME --reason TEXT  a pool's hosts, also those it claims later; the pool itself claims and releases none
  metald pause --all --reason TEXT        every host, also those that are imported later

The three do not know of each other: a host goes on when none of them holds it. A pause that another tool put on is left to it.`,
		Example: "  metald pause 'r1n[01-18]' --reason 'power work in rack 1'\n  metald pause --all --reason 'wait for me'\n  metald pause --all --off",
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case !off && reason == "":
				return usageErrorf("pause: want --reason, which status shows to whoever wonders")
			case exactlyOne(len(args) > 0, len(pools) > 0, all) != nil:
				return usageErrorf("pause: want hosts, or --pool, or --all, and one of them only")
			case all && c.Flags().Changed("namespace"):
				return usageErrorf("pause --all: it means every namespace: leave out -n")
			}
			d, err := a.open()
			if err != nil {
				return err
			}
			do := pausing{d: d, off: off, reason: reason}
			switch {
			case all:
				return eachHost(c, []string{"everything"}, func(string) (string, error) { return do.all(c.Context()) })
			case len(pools) > 0:
				return eachHost(c, pools, func(arg string) (string, error) { return do.pool(c.Context(), arg) })
			}
			return eachHost(c, args, func(arg string) (string, error) { return do.host(c.Context(), arg) })
		},
	})
	c.Flags().BoolVar(&off, "off", false, "end the pause")
	c.Flags().BoolVar(&all, "all", false, "all hosts of all namespaces, also those that are imported later")
	c.Flags().StringSliceVar(&pools, "pool", nil, "the hosts of this NodePool, and its claiming")
	c.Flags().StringVar(&reason, "reason", "", "why, in a few words")
	c.RegisterFlagCompletionFunc("pool", completePools(a))
	return c
}

func exactlyOne(given ...bool) error {
	n := 0
	for _, g := range given {
		if g {
			n++
		}
	}
	if n != 1 {
		return fmt.Errorf("%d are given", n)
	}
	return nil
}

// pausing puts Metal3's pause annotation on an object, or takes it off.
type pausing struct {
	d      *door
	off    bool
	reason string
}

func (p pausing) host(ctx context.Context, arg string) (string, error) {
	h, err := p.d.host(ctx, arg)
	if err != nil {
		return "", err
	}
	done, err := p.put(ctx, p.d.metal3, "baremetalhosts", h.Namespace, h.Name, h.Annotations)
	if err != nil || !p.off {
		return done, err
	}
	// Whoever ends a pause wants to see work go on; say what else holds it.
	pauses, err := p.d.pauses(ctx, h.Namespace)
	if err != nil {
		return "", err
	}
	if why := pauses.above(h); why != "" {
		done += ", but is still paused by " + why
	}
	return done, nil
}

func (p pausing) pool(ctx context.Context, arg string) (string, error) {
	namespace, name := p.d.locate(arg)
	pool, err := p.d.pool(ctx, namespace, name)
	if err != nil {
		return "", err
	}
	return p.put(ctx, p.d.metald, "nodepools", namespace, name, pool.Annotations)
}

func (p pausing) all(ctx context.Context) (string, error) {
	var own corev1.Namespace
	if err := p.d.core.Get().Resource("namespaces").Name(v1alpha1.OwnNamespace).Do(ctx).Into(&own); err != nil {
		return "", fmt.Errorf("reading namespace %s: %w", v1alpha1.OwnNamespace, err)
	}
	return p.put(ctx, p.d.core, "namespaces", "", own.Name, own.Annotations)
}

// put changes one object's annotation, where it is not as wanted already.
func (p pausing) put(ctx context.Context, c *rest.RESTClient, resource, namespace, name string, have map[string]string) (string, error) {
	old, paused := have[v1alpha1.PausedAnnotation]
	var value any
	switch {
	case p.off && !paused:
		return "not paused", nil
	case p.off && old == capm3Pause:
		return "", refusedErrorf("paused by Cluster API (%s), which ends that pause itself", old)
	case !p.off && paused:
		return fmt.Sprintf("already paused: %s", old), nil
	case !p.off:
		value = byWhom(p.reason)
	}
	patch := tree{}
	patch.put(value, "metadata", "annotations", v1alpha1.PausedAnnotation)
	body, err := json.Marshal(patch)
	if err == nil {
		err = c.Patch(types.MergePatchType).NamespaceIfScoped(namespace, namespace != "").Resource(resource).Name(name).
			VersionedParams(&metav1.PatchOptions{FieldManager: fieldManager}, metav1.ParameterCodec).Body(body).Do(ctx).Error()
	}
	switch {
	case err != nil:
		return "", fmt.Errorf("writing %s %s: %w", resource, name, err)
	case p.off:
		return "goes on", nil
	}
	return "paused", nil
}

// capm3Pause is the value of Metal3's pause annotation that Cluster API's provider puts on while it moves hosts.
const capm3Pause = "metal3.io/capm3"

func (d *door) pool(ctx context.Context, namespace, name string) (*v1alpha1.NodePool, error) {
	var pool v1alpha1.NodePool
	err := d.metald.Get().Namespace(namespace).Resource("nodepools").Name(name).Do(ctx).Into(&pool)
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("no pool %q in namespace %q", name, namespace)
	}
	if err != nil {
		return nil, fmt.Errorf("reading pool %s: %w", name, err)
	}
	return &pool, nil
}
