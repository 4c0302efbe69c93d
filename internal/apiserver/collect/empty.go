// SPDX-License-Identifier: Apache-2.0

package collect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/util/retry"
)

const (
	// emptyAgain is how long it takes to look again at a namespace whose objects are still on their way out. A change of
	// one of them is looked at sooner.
	emptyAgain = 2 * time.Second
	// shownNames is how many objects of a kind are named where a namespace says what it waits for.
	shownNames = 5
)

func (c *Collector) namespaceKey(name string) string {
	return c.at.key(corev1.Resource("namespaces"), "", name)
}

func isNamespace(i *item) bool { return i.resource == corev1.Resource("namespaces") }

// empty removes what is in a namespace that is being deleted, says what is left, and lets the namespace go when nothing is. It
// may be repeated, and goes on after a restart where it was, since all it knows is in the store.
func (c *Collector) empty(ctx context.Context, name string) error {
	namespace, err := c.core.Namespaces().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading namespace %s: %w", name, err)
	}
	if namespace.DeletionTimestamp == nil || !slices.Contains(namespace.Spec.Finalizers, corev1.FinalizerKubernetes) {
		return nil
	}
	content := c.graph.within(name)
	unknown, failed := c.clear(ctx, content)
	if len(content) == 0 {
		left, err := c.sweep(ctx, name)
		if err != nil {
			return err
		}
		if left == 0 {
			namespace.Spec.Finalizers = slices.DeleteFunc(namespace.Spec.Finalizers, func(f corev1.FinalizerName) bool { return f == corev1.FinalizerKubernetes })
			if _, err := c.core.Namespaces().Finalize(ctx, namespace, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) {
				return fmt.Errorf("letting go of namespace %s: %w", name, err)
			}
			c.logger.Info("namespace is gone", "namespace", name)
			return nil
		}
		return again{collectAgain}
	}
	if err := c.sayWhatIsLeft(ctx, name, content, unknown, failed); err != nil {
		return err
	}
	return again{emptyAgain}
}

// clear deletes the content of a namespace in three waves: custom objects that nobody in it owns, then those that are owned,
// where their owners did not take them along, and last the compiled-in kinds. So a host finds its Secret while it is let go
// of, what records its work outlasts it, and whoever works on the rest keeps the right to.
func (c *Collector) clear(ctx context.Context, content []*item) (unknown []string, failed error) {
	var roots, owned, native []*item
	kinds := map[schema.GroupResource]Kind{}
	here := map[string]bool{}
	for _, i := range content {
		here[string(i.uid)] = true
	}
	for _, i := range content {
		kind, ok := kinds[i.resource]
		if !ok {
			var err error
			if kind, ok, err = c.kinds.resource(i.resource); err != nil {
				return nil, err
			}
			if !ok {
				if !slices.Contains(unknown, i.resource.String()) {
					unknown = append(unknown, i.resource.String())
				}
				continue
			}
			kinds[i.resource] = kind
		}
		switch {
		case !kind.custom:
			native = append(native, i)
		case slices.ContainsFunc(i.owners, func(o owner) bool { return here[string(o.uid)] }):
			owned = append(owned, i)
		default:
			roots = append(roots, i)
		}
	}
	wave := roots
	if len(wave) == 0 {
		wave = owned // rings, and what outlived its owners
	}
	if len(wave) == 0 && len(unknown) == 0 {
		wave = native
	}
	background := metav1.DeletePropagationBackground
	for _, i := range wave {
		if i.deleting {
			continue
		}
		err := c.of(i, kinds[i.resource]).Delete(ctx, i.name, metav1.DeleteOptions{
			Preconditions: &metav1.Preconditions{UID: &i.uid}, PropagationPolicy: &background,
		})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			failed = errors.Join(failed, fmt.Errorf("deleting %s %s: %w", i.resource, i.name, err))
		}
	}
	return unknown, failed
}

// sweep looks into the store itself for what the graph does not show, Events among it, and says how much there is left.
func (c *Collector) sweep(ctx context.Context, namespace string) (left int, err error) {
	events := corev1.SchemeGroupVersion.WithResource("events")
	if err := c.objects.Resource(events).Namespace(namespace).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		return 0, fmt.Errorf("deleting the Events of namespace %s: %w", namespace, err)
	}
	from, end := c.at.prefix+"/", clientv3.GetPrefixRangeEnd(c.at.prefix+"/")
	for {
		page, err := c.client.KV.Get(ctx, from, clientv3.WithRange(end), clientv3.WithKeysOnly(), clientv3.WithLimit(10*collectPage))
		if err != nil {
			return 0, fmt.Errorf("listing what is left in namespace %s: %w", namespace, err)
		}
		for _, pair := range page.Kvs {
			if parts := strings.Split(strings.TrimPrefix(string(pair.Key), c.at.prefix+"/"), "/"); len(parts) == 4 && parts[2] == namespace {
				left++
			}
		}
		if !page.More || len(page.Kvs) == 0 {
			return left, nil
		}
		from = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
	}
}

// sayWhatIsLeft puts into the namespace's conditions, in Kubernetes' words, what its end waits for.
func (c *Collector) sayWhatIsLeft(ctx context.Context, name string, content []*item, unknown []string, failed error) error {
	conditions := remains(content, unknown, failed)
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		namespace, err := c.core.Namespaces().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		was := slices.Clone(namespace.Status.Conditions)
		for _, condition := range conditions {
			setNamespaceCondition(&namespace.Status, condition)
		}
		if reflect.DeepEqual(was, namespace.Status.Conditions) {
			return nil
		}
		_, err = c.core.Namespaces().UpdateStatus(ctx, namespace, metav1.UpdateOptions{FieldManager: c.writer})
		return err
	})
}

func setNamespaceCondition(status *corev1.NamespaceStatus, condition corev1.NamespaceCondition) {
	at := slices.IndexFunc(status.Conditions, func(c corev1.NamespaceCondition) bool { return c.Type == condition.Type })
	if at < 0 {
		condition.LastTransitionTime = metav1.Now()
		status.Conditions = append(status.Conditions, condition)
		return
	}
	was := status.Conditions[at]
	condition.LastTransitionTime = was.LastTransitionTime
	if was.Status != condition.Status {
		condition.LastTransitionTime = metav1.Now()
	}
	status.Conditions[at] = condition
}

// remains is the conditions of a namespace that still holds content.
func remains(content []*item, unknown []string, failed error) []corev1.NamespaceCondition {
	names, finalizers := map[string][]string{}, map[string]int{}
	for _, i := range content {
		names[i.resource.String()] = append(names[i.resource.String()], i.name)
		for _, f := range i.finalizers {
			finalizers[f]++
		}
	}
	var resources, holds []string
	for _, resource := range slices.Sorted(maps.Keys(names)) {
		shown := slices.SortedFunc(slices.Values(names[resource]), cmp.Compare[string])
		count := len(shown)
		if count > shownNames {
			shown = append(shown[:shownNames], "...")
		}
		resources = append(resources, fmt.Sprintf("%s has %d resource instances (%s)", resource, count, strings.Join(shown, " ")))
	}
	for _, finalizer := range slices.Sorted(maps.Keys(finalizers)) {
		holds = append(holds, fmt.Sprintf("%s in %d resource instances", finalizer, finalizers[finalizer]))
	}
	condition := func(kind corev1.NamespaceConditionType, bad bool, badReason, badText, goodReason, goodText string) corev1.NamespaceCondition {
		if bad {
			return corev1.NamespaceCondition{Type: kind, Status: corev1.ConditionTrue, Reason: badReason, Message: badText}
		}
		return corev1.NamespaceCondition{Type: kind, Status: corev1.ConditionFalse, Reason: goodReason, Message: goodText}
	}
	failure := ""
	if failed != nil {
		failure = failed.Error()
	}
	return []corev1.NamespaceCondition{
		condition(corev1.NamespaceDeletionDiscoveryFailure, len(unknown) > 0, "DiscoveryFailed",
			"Objects of kinds that nobody serves any more are in the way: "+strings.Join(unknown, ", "), "ResourcesDiscovered", "All resources successfully discovered"),
		condition(corev1.NamespaceDeletionContentFailure, failed != nil, "ContentDeletionFailed", failure,
			"ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
		condition(corev1.NamespaceContentRemaining, len(resources) > 0, "SomeResourcesRemain", "Some resources are remaining: "+strings.Join(resources, ", "),
			"ContentRemoved", "All content successfully removed"),
		condition(corev1.NamespaceFinalizersRemaining, len(holds) > 0, "SomeFinalizersRemain",
			"Some content in the namespace has finalizers remaining: "+strings.Join(holds, ", "), "ContentHasNoFinalizers", "All content-preserving finalizers finished"),
	}
}
