// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
)

const (
	// drainNames is how many of the pods that are left are named; the rest is counted.
	drainNames = 20
	// drainPage is how many pods are read at once. A Node has some hundred at most.
	drainPage = 500
)

// Drain is one pass of a drain of the Node of the given owner, to be repeated every few seconds until nothing is left: it asks
// for the eviction of every pod that is not yet going, and waits for none. Mirror pods, the pods of DaemonSets and finished
// pods that nobody deletes stay, as they go with the Node; pods without a controller and with emptyDir volumes go, since the
// host is leaving.
//
// left names what is still there, as "namespace/name: why", sorted, at most 20 and then "and N more". That a
// PodDisruptionBudget forbids an eviction is no error but such a reason. Past until nothing more is evicted, and nothing is
// killed: the caller is told what is left and goes on. A Node that is gone has nothing left; one of another owner is ErrOwned.
//
// It needs the verbs get on nodes, list on pods and create on pods/eviction.
func (c *Cluster) Drain(ctx context.Context, node, host string, until time.Time) (left []string, err error) {
	n, err := c.client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
	if gone(err) {
		return nil, nil
	}
	if err == nil {
		err = owned(n, host)
	}
	if err != nil {
		return nil, fmt.Errorf("draining node %s: %w", node, err)
	}
	pods, err := c.podsOf(ctx, node)
	if err != nil {
		return nil, fmt.Errorf("draining node %s: listing its pods: %w", node, err)
	}
	for _, p := range pods {
		why, err := c.evict(ctx, p, until)
		if err != nil {
			return nil, fmt.Errorf("draining node %s: evicting %s/%s: %w", node, p.Namespace, p.Name, err)
		}
		if why != "" {
			left = append(left, fmt.Sprintf("%s/%s: %s", p.Namespace, p.Name, why))
		}
	}
	slices.Sort(left)
	if more := len(left) - drainNames; more > 0 {
		left = append(left[:drainNames], fmt.Sprintf("and %d more", more))
	}
	return left, nil
}

// podsOf lists the pods of a Node that must leave it.
func (c *Cluster) podsOf(ctx context.Context, node string) ([]*corev1.Pod, error) {
	var pods []*corev1.Pod
	options := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("spec.nodeName", node).String(), Limit: drainPage}
	for {
		page, err := c.client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, options)
		if err != nil {
			return nil, err
		}
		for i := range page.Items {
			// The name is compared again: evicting a pod of another Node would be worse than any error.
			if p := &page.Items[i]; p.Spec.NodeName == node && leaves(p) {
				pods = append(pods, p)
			}
		}
		if options.Continue = page.Continue; options.Continue == "" {
			return pods, nil
		}
	}
}

// leaves says whether a drain must move the pod.
func leaves(p *corev1.Pod) bool {
	if _, mirror := p.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		return false
	}
	if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		// An evicted pod is finished a moment before the kubelet removes it. Without the kubelet it would stay until some
		// controller finds that its Node is gone. What holds finalizers waits for others than the kubelet.
		return p.DeletionTimestamp != nil && len(p.Finalizers) == 0
	}
	owner := metav1.GetControllerOf(p)
	return owner == nil || owner.Kind != "DaemonSet" || !strings.HasPrefix(owner.APIVersion, "apps/")
}

// evict asks for one eviction, and says why the pod is still there; empty means that it is gone.
func (c *Cluster) evict(ctx context.Context, p *corev1.Pod, until time.Time) (why string, err error) {
	if p.DeletionTimestamp != nil {
		return "is ending", nil
	}
	if !c.now().Before(until) {
		return "not evicted in time", nil
	}
	// Not by Evictions().Evict: where the control plane says when to come again, client-go would sleep until then, ten times.
	err = c.client.PolicyV1().RESTClient().Post().MaxRetries(0).AbsPath("/api/v1").Namespace(p.Namespace).Resource("pods").
		Name(p.Name).SubResource("eviction").Body(&policyv1.Eviction{
		ObjectMeta:    metav1.ObjectMeta{Name: p.Name, Namespace: p.Namespace},
		DeleteOptions: &metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(p.UID))},
	}).Do(ctx).Error()
	switch {
	case err == nil:
		return "is ending", nil
	case gone(err), apierrors.IsConflict(err): // the second is a pod of the same name, made since
		return "", nil
	case apierrors.IsTooManyRequests(err):
		return refusal(err), nil
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return "its namespace is ending", nil
	}
	return "", err
}

// refusal is what the control plane says of an eviction that it forbids, with its cause, which names the budget; cut to a line:
// it is shown to a person.
func refusal(err error) string {
	const most = 200
	text := err.Error()
	if cause, ok := apierrors.StatusCause(err, policyv1.DisruptionBudgetCause); ok {
		text += " " + cause.Message
	}
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f }), " ")
	if r := []rune(text); len(r) > most {
		text = string(r[:most]) + "..."
	}
	return text
}
