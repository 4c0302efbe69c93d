// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/util/retry"

	"metald.io/metald/api/v1alpha1"
)

// ErrOwned is a Node that belongs to another host of the same name.
var ErrOwned = errors.New("node belongs to another host")

// NodeState is what a Node says of itself.
type NodeState struct {
	Name string
	UID  string
	// Host is the owner's v1alpha1.HostLabel, empty for a Node that nobody claimed.
	Host  string
	Ready bool
	// Reason and Message are the Ready condition's, Since its last change.
	Reason, Message string
	Since           time.Time
	Unschedulable   bool
	KubeletVersion  string
	InternalIP      string
	BootID          string
	Labels          map[string]string
	Created         time.Time
}

func nodeOf(n *corev1.Node) NodeState {
	s := NodeState{
		Name: n.Name, UID: string(n.UID), Host: n.Labels[v1alpha1.HostLabel], Unschedulable: n.Spec.Unschedulable,
		KubeletVersion: n.Status.NodeInfo.KubeletVersion, BootID: n.Status.NodeInfo.BootID,
		Labels: maps.Clone(n.Labels), Created: n.CreationTimestamp.Time, Reason: "NoReadyCondition",
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			s.Ready, s.Reason, s.Message, s.Since = c.Status == corev1.ConditionTrue, c.Reason, c.Message, c.LastTransitionTime.Time
		}
	}
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP && s.InternalIP == "" {
			s.InternalIP = a.Address
		}
	}
	return s
}

// Label gives a Node these labels and leaves its others alone; nothing is written where all are there. Among them must be
// v1alpha1.HostLabel, the owner: a Node that another host owns is ErrOwned.
func (c *Cluster) Label(ctx context.Context, node string, labels map[string]string) error {
	if err := validLabels(labels); err != nil {
		return fmt.Errorf("labelling node %s: %w", node, err)
	}
	return c.change(ctx, "labelling", node, labels[v1alpha1.HostLabel], func(n *corev1.Node) map[string]any {
		missing := map[string]string{}
		for k, v := range labels {
			if have, ok := n.Labels[k]; !ok || have != v {
				missing[k] = v
			}
		}
		if len(missing) == 0 {
			return nil
		}
		return map[string]any{"metadata": map[string]any{"labels": missing}}
	})
}

// Cordon says whether new pods may come to the Node of the given owner.
func (c *Cluster) Cordon(ctx context.Context, node, host string, on bool) error {
	return c.change(ctx, "cordoning", node, host, func(n *corev1.Node) map[string]any {
		if n.Spec.Unschedulable == on {
			return nil
		}
		return map[string]any{"spec": map[string]any{"unschedulable": on}}
	})
}

// DeleteNode removes the Node of the given owner. One that is gone is no error; one of another owner is ErrOwned, and
// stays. A Node that nobody claimed goes: it never got as far as its labels.
func (c *Cluster) DeleteNode(ctx context.Context, node, host string) error {
	n, err := c.client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
	if err == nil {
		if err = owned(n, host); err == nil {
			err = c.client.CoreV1().Nodes().Delete(ctx, node, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(n.UID))})
		}
	}
	if err != nil && !gone(err) {
		return fmt.Errorf("deleting node %s: %w", node, err)
	}
	return nil
}

// change patches a Node with what diff asks for, against the very version that diff saw.
func (c *Cluster) change(ctx context.Context, doing, node, host string, diff func(*corev1.Node) map[string]any) error {
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		n, err := c.client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if err := owned(n, host); err != nil {
			return err
		}
		patch := diff(n)
		if patch == nil {
			return nil
		}
		meta, _ := patch["metadata"].(map[string]any)
		if meta == nil {
			meta = map[string]any{}
			patch["metadata"] = meta
		}
		meta["resourceVersion"], meta["uid"] = n.ResourceVersion, n.UID
		body, err := json.Marshal(patch)
		if err != nil {
			return err
		}
		_, err = c.client.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, body, metav1.PatchOptions{FieldManager: "metald"})
		return err
	})
	if err != nil {
		return fmt.Errorf("%s node %s: %w", doing, node, err)
	}
	return nil
}

func owned(n *corev1.Node, host string) error {
	if host == "" {
		return fmt.Errorf("no owner is given (label %s)", v1alpha1.HostLabel)
	}
	if owner := n.Labels[v1alpha1.HostLabel]; owner != "" && owner != host {
		return fmt.Errorf("%w: %s", ErrOwned, owner)
	}
	return nil
}

func validLabels(labels map[string]string) error {
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		if problems := validation.IsQualifiedName(k); len(problems) > 0 {
			return fmt.Errorf("label %q: %s", k, strings.Join(problems, ", "))
		}
		if problems := validation.IsValidLabelValue(labels[k]); len(problems) > 0 {
			return fmt.Errorf("label %s: value %q: %s", k, labels[k], strings.Join(problems, ", "))
		}
	}
	return nil
}
