// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/inventory"
)

// errTaken says that a host was claimed by somebody else between the look and the claim.
var errTaken = errors.New("the host is no longer free")

// pool brings a NodePool to the number of hosts it wants: it claims available hosts and lets surplus ones go.
func (m *Mind) pool(ctx context.Context, key string) (time.Duration, error) {
	ns, name, _ := strings.Cut(key, "/")
	p, err := m.Store.Pools().Get(ctx, ns, name)
	if apierrors.IsNotFound(err) {
		return 0, m.letPoolGo(ctx, key)
	}
	if err != nil {
		return 0, err
	}
	if _, paused := p.Annotations[v1alpha1.PausedAnnotation]; paused || m.allPaused() {
		return 0, nil // it neither claims nor lets go
	}
	selector := labels.Everything()
	if p.Spec.HostSelector != nil {
		if selector, err = metav1.LabelSelectorAsSelector(p.Spec.HostSelector); err != nil {
			return 0, m.judgePool(ctx, p, nil, condition("Satisfied", false, "SelectorInvalid", err.Error()))
		}
	}
	mine, free := m.poolHosts(p, selector)
	want := int(p.Spec.Replicas)
	if p.DeletionTimestamp != nil {
		want = 0
	}
	for len(mine) > want {
		last := mine[len(mine)-1]
		if err := m.unclaim(ctx, last, key); err != nil {
			return 0, err
		}
		mine = mine[:len(mine)-1]
	}
	verdict := condition("Satisfied", true, "EnoughHosts", "")
	if len(mine) < want {
		if _, problem := m.usable(p); problem != nil {
			verdict = *problem
			free = nil
		} else {
			verdict = condition("Satisfied", false, "TooFewHosts",
				fmt.Sprintf("%d more host(s) wanted, none is available in namespace %s", want-len(mine), ns))
		}
	}
	for _, h := range free {
		if len(mine) >= want {
			break
		}
		switch err := m.claimFor(ctx, p, h); {
		case errors.Is(err, errTaken), apierrors.IsNotFound(err):
			continue
		case err != nil:
			return 0, err
		}
		m.log.Info("pool claims host", "pool", key, "host", keyOf(h))
		mine = append(mine, h)
	}
	if len(mine) >= want {
		verdict = condition("Satisfied", true, "EnoughHosts", "")
	}
	return 0, m.judgePool(ctx, p, mine, verdict)
}

// poolHosts answers the pool's hosts, those that run before those that do not, and the free ones it may claim.
func (m *Mind) poolHosts(p *v1alpha1.NodePool, selector labels.Selector) (mine, free []*metal3.BareMetalHost) {
	for _, h := range m.hosts.all() {
		switch {
		case h.Namespace != p.Namespace || h.DeletionTimestamp != nil:
		case consumes(h, p):
			mine = append(mine, h)
		case h.Spec.ConsumerRef == nil && claimable(h) && selector.Matches(labels.Set(h.Labels)) && m.disksFree(p, h):
			free = append(free, h)
		}
	}
	sort.Slice(mine, func(i, j int) bool {
		ri, rj := mine[i].Status.Provisioning.State == metal3.StateProvisioned, mine[j].Status.Provisioning.State == metal3.StateProvisioned
		if ri != rj {
			return ri
		}
		return mine[i].Name < mine[j].Name
	})
	sort.Slice(free, func(i, j int) bool { return free[i].Name < free[j].Name })
	return mine, free
}

// disksFree answers whether a pool may have a host's disks.
func (m *Mind) disksFree(p *v1alpha1.NodePool, h *metal3.BareMetalHost) bool {
	v, ok := m.glance(keyOf(h))
	return ok && (p.Spec.OverwriteDisks || len(v.disksInUse()) == 0)
}

func consumes(h *metal3.BareMetalHost, p *v1alpha1.NodePool) bool {
	c := h.Spec.ConsumerRef
	return c != nil && c.Kind == "NodePool" && c.Namespace == p.Namespace && c.Name == p.Name
}

// claimable answers whether a host is fit to be claimed by a pool.
func claimable(h *metal3.BareMetalHost) bool {
	_, paused := h.Annotations[v1alpha1.PausedAnnotation]
	return h.Status.Provisioning.State == metal3.StateAvailable && h.Status.OperationalStatus == metal3.OperationalStatusOK &&
		!paused && !h.Spec.ExternallyProvisioned && h.Spec.Image == nil && h.Spec.CustomDeploy == nil
}

func (m *Mind) claimFor(ctx context.Context, p *v1alpha1.NodePool, h *metal3.BareMetalHost) error {
	_, err := m.Store.Hosts().Update(inventory.As(ctx, v1alpha1.PoolFieldManager), h.Namespace, h.Name, func(h *metal3.BareMetalHost) error {
		if h.Spec.ConsumerRef != nil || !claimable(h) || h.DeletionTimestamp != nil {
			return errTaken
		}
		h.Spec.ConsumerRef = &corev1.ObjectReference{APIVersion: v1alpha1.GroupVersion.String(), Kind: "NodePool",
			Namespace: p.Namespace, Name: p.Name, UID: p.UID}
		h.Spec.CustomDeploy = &metal3.CustomDeploy{Method: "metald-" + first(p.Spec.Method, "diskless")}
		h.Spec.Online = true
		if h.Labels == nil {
			h.Labels = map[string]string{}
		}
		h.Labels[v1alpha1.PoolLabel] = p.Name
		return nil
	})
	return err
}

func (m *Mind) unclaim(ctx context.Context, h *metal3.BareMetalHost, pool string) error {
	m.log.Info("pool lets host go", "pool", pool, "host", keyOf(h))
	_, err := m.Store.Hosts().Update(inventory.As(ctx, v1alpha1.PoolFieldManager), h.Namespace, h.Name, func(h *metal3.BareMetalHost) error {
		if c := h.Spec.ConsumerRef; c == nil || c.Kind != "NodePool" || c.Namespace+"/"+c.Name != pool {
			return nil
		}
		h.Spec.ConsumerRef, h.Spec.CustomDeploy, h.Spec.Online = nil, nil, false
		delete(h.Labels, v1alpha1.PoolLabel)
		return nil
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// letPoolGo lets go the hosts of a pool that is gone.
func (m *Mind) letPoolGo(ctx context.Context, key string) error {
	for _, h := range m.hosts.all() {
		if c := h.Spec.ConsumerRef; c != nil && c.Kind == "NodePool" && c.Namespace+"/"+c.Name == key {
			if err := m.unclaim(ctx, h, key); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *Mind) judgePool(ctx context.Context, p *v1alpha1.NodePool, mine []*metal3.BareMetalHost, verdict metav1.Condition) error {
	ready := int32(0)
	for _, h := range mine {
		if meta.IsStatusConditionTrue(h.Status.Conditions, metal3.ReadyCondition) {
			ready++
		}
	}
	_, err := m.Store.Pools().Update(ctx, p.Namespace, p.Name, func(p *v1alpha1.NodePool) error {
		p.Status.Claimed, p.Status.Ready = int32(len(mine)), ready
		verdict.ObservedGeneration, verdict.LastTransitionTime = p.Generation, metav1.NewTime(m.now())
		meta.SetStatusCondition(&p.Status.Conditions, verdict)
		return nil
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
