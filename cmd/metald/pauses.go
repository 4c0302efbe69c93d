// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"metald.io/metald/api/v1alpha1"
)

// pauses are those that hold more than one host: a pool's, and the one over everything.
type pauses struct {
	all   string
	pools map[string]string // by namespace/name
}

// pauses reads them; an empty namespace is all of them.
func (d *door) pauses(ctx context.Context, namespace string) (pauses, error) {
	p := pauses{pools: map[string]string{}}
	var own corev1.Namespace
	err := d.core.Get().Resource("namespaces").Name(v1alpha1.OwnNamespace).Do(ctx).Into(&own)
	if err != nil && !apierrors.IsNotFound(err) {
		return p, fmt.Errorf("reading namespace %s: %w", v1alpha1.OwnNamespace, err)
	}
	p.all = pausedWhy(own.Annotations)
	pools, err := d.pools(ctx, namespace)
	if err != nil {
		return p, err
	}
	for _, pool := range pools {
		if why := pausedWhy(pool.Annotations); why != "" {
			p.pools[pool.Namespace+"/"+pool.Name] = why
		}
	}
	return p, nil
}

func (d *door) pools(ctx context.Context, namespace string) ([]v1alpha1.NodePool, error) {
	var list v1alpha1.NodePoolList
	if err := d.metald.Get().Namespace(namespace).Resource("nodepools").Do(ctx).Into(&list); err != nil {
		return nil, fmt.Errorf("listing pools: %w", err)
	}
	return list.Items, nil
}

// of says who paused a host and why, the narrowest pause first; empty where nobody did.
func (p pauses) of(h *metal3.BareMetalHost) string {
	return cmp.Or(pausedWhy(h.Annotations), p.above(h))
}

// above says what pauses a host besides its own annotation.
func (p pauses) above(h *metal3.BareMetalHost) string {
	if pool := poolOf(h); p.pools[pool] != "" {
		return fmt.Sprintf("NodePool %s (%s)", pool, p.pools[pool])
	}
	return optional("all of metald (%s)", p.all)
}

// poolOf is the NodePool that owns a host, as namespace/name; empty where none does.
func poolOf(h *metal3.BareMetalHost) string {
	if c := h.Spec.ConsumerRef; c != nil && c.Kind == "NodePool" {
		return cmp.Or(c.Namespace, h.Namespace) + "/" + c.Name
	}
	return ""
}

// pausedWhy is the reason of a pause; a pause without one is a pause too.
func pausedWhy(annotations map[string]string) string {
	why, paused := annotations[v1alpha1.PausedAnnotation]
	if !paused {
		return ""
	}
	return cmp.Or(why, "no reason was given")
}
