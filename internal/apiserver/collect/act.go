// SPDX-License-Identifier: Apache-2.0

package collect

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"
)

// ties is what holds an object: owners that live, owners that are gone, owners that wait for it to go first.
type ties struct {
	solid, gone, waiting []owner
}

// attempt does for one object what its owners and its finalizers ask for. It may be repeated.
func (c *Collector) attempt(ctx context.Context, key string) error {
	i := c.graph.at(key)
	switch {
	case i == nil:
		return nil
	case i.foreground():
		return c.releaseForeground(ctx, i)
	case i.orphan():
		return c.releaseOrphans(ctx, i)
	case i.deleting || len(i.owners) == 0:
		return nil
	}
	t, err := c.classify(ctx, i)
	if err != nil {
		return err
	}
	switch {
	case len(t.solid) > 0 && len(t.gone)+len(t.waiting) == 0:
		return nil
	case len(t.solid) > 0: // one owner is enough to live; the others are let go of
		return c.disown(ctx, i, append(t.gone, t.waiting...))
	default:
		return c.collect(ctx, i, t)
	}
}

// classify asks for each owner of an object. An owner that cannot be looked up leaves the object as it is.
func (c *Collector) classify(ctx context.Context, i *item) (t ties, err error) {
	for _, o := range i.owners {
		kind, ok, err := c.kinds.kind(o.group, o.kind)
		if err != nil {
			return t, fmt.Errorf("looking up the kind of owner %s: %w", o, err)
		}
		if !ok {
			return t, again{strangerAgain} // its kind may come (back)
		}
		namespace := ""
		if kind.Namespaced {
			if namespace = i.namespace; namespace == "" {
				c.tell(ctx, i, corev1.EventTypeWarning, "OwnerRefInvalidNamespace",
					fmt.Sprintf("ownerReference to %s cannot be followed: an object outside of namespaces cannot be owned by one inside", o))
				return t, again{time.Hour}
			}
		}
		found := c.graph.at(c.at.key(kind.Resource, namespace, o.name))
		if found == nil || found.uid != o.uid { // before anything is deleted, the store itself is asked
			if found, err = c.live(ctx, c.at.key(kind.Resource, namespace, o.name)); err != nil {
				return t, err
			}
		}
		switch {
		case found == nil || found.uid != o.uid:
			if other := c.graph.of(o.uid); other != nil && other.namespace != namespace {
				c.tell(ctx, i, corev1.EventTypeWarning, "OwnerRefInvalidNamespace",
					fmt.Sprintf("owner %s is not in namespace %q", o, namespace))
			}
			t.gone = append(t.gone, o)
		case found.foreground() && o.blocks:
			t.waiting = append(t.waiting, o)
		default:
			// An owner that is deleted in the foreground and is not held up by this object keeps it until it is really gone: what
			// records an owner's work must outlast the work.
			t.solid = append(t.solid, o)
		}
	}
	return t, nil
}

// collect deletes an object that no owner holds. What it does is told first, in an Event on the object.
func (c *Collector) collect(ctx context.Context, i *item, t ties) error {
	kind, ok, err := c.kinds.resource(i.resource)
	if err != nil {
		return fmt.Errorf("looking up the kind of %s: %w", i.key, err)
	}
	if !ok {
		return again{strangerAgain}
	}
	policy := metav1.DeletePropagationBackground
	switch {
	case slices.Contains(i.finalizers, metav1.FinalizerOrphanDependents):
		policy = metav1.DeletePropagationOrphan
	case slices.Contains(i.finalizers, metav1.FinalizerDeleteDependents), len(t.waiting) > 0 && c.blocked(i):
		policy = metav1.DeletePropagationForeground
	}
	if kind.custom {
		why := fmt.Sprintf("is deleted because its owner is gone: %s", join(t.gone))
		if len(t.waiting) > 0 {
			why = fmt.Sprintf("is deleted before its owner, which waits for it: %s", join(t.waiting))
		}
		if err := c.tell(ctx, i, corev1.EventTypeNormal, "OwnerGone", why); err != nil {
			return err
		}
	}
	version := strconv.FormatInt(i.revision, 10)
	err = c.of(i, kind).Delete(ctx, i.name, metav1.DeleteOptions{
		Preconditions:     &metav1.Preconditions{UID: &i.uid, ResourceVersion: &version},
		PropagationPolicy: &policy,
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("deleting what nobody owns any more: %w", err)
	}
	c.logger.Info("object collected", "object", i.key, "owners", join(append(t.gone, t.waiting...)))
	return nil
}

// blocked says whether an object has to wait for dependents of its own. One of them that waits as well is a ring, which a
// plain delete breaks.
func (c *Collector) blocked(i *item) bool {
	dependents := c.graph.dependentsOf(i.uid)
	return len(dependents) > 0 && !slices.ContainsFunc(dependents, (*item).foreground)
}

// releaseForeground lets an object go once none of its dependents holds it up.
func (c *Collector) releaseForeground(ctx context.Context, i *item) error {
	held := false
	for _, d := range c.graph.dependentsOf(i.uid) {
		for _, o := range d.owners {
			if o.uid == i.uid && o.blocks {
				held = true
				c.queue.Add(d.key)
			}
		}
	}
	if held {
		return nil // the last of them to go brings us back
	}
	return c.unfinalize(ctx, i, metav1.FinalizerDeleteDependents)
}

// releaseOrphans cuts the dependents loose, then lets the object go.
func (c *Collector) releaseOrphans(ctx context.Context, i *item) error {
	for _, d := range c.graph.dependentsOf(i.uid) {
		if err := c.disown(ctx, d, []owner{{uid: i.uid}}); err != nil {
			return err
		}
	}
	return c.unfinalize(ctx, i, metav1.FinalizerOrphanDependents)
}

// disown takes owners off an object.
func (c *Collector) disown(ctx context.Context, i *item, owners []owner) error {
	return c.amend(ctx, i, func(meta *metav1.PartialObjectMetadata) map[string]any {
		return map[string]any{"ownerReferences": slices.DeleteFunc(meta.OwnerReferences, func(r metav1.OwnerReference) bool {
			return slices.ContainsFunc(owners, func(o owner) bool { return o.uid == r.UID })
		})}
	})
}

func (c *Collector) unfinalize(ctx context.Context, i *item, finalizer string) error {
	return c.amend(ctx, i, func(meta *metav1.PartialObjectMetadata) map[string]any {
		return map[string]any{"finalizers": slices.DeleteFunc(meta.Finalizers, func(f string) bool { return f == finalizer })}
	})
}

// amend changes the metadata of an object as it is now, if it is still the one that is meant.
func (c *Collector) amend(ctx context.Context, i *item, change func(*metav1.PartialObjectMetadata) map[string]any) error {
	kind, ok, err := c.kinds.resource(i.resource)
	if err != nil || !ok {
		return again{strangerAgain}
	}
	meta, err := c.of(i, kind).Get(ctx, i.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && meta.UID != i.uid {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading metadata: %w", err)
	}
	fields := change(meta)
	fields["uid"], fields["resourceVersion"] = meta.UID, meta.ResourceVersion
	patch, err := json.Marshal(map[string]any{"metadata": fields})
	if err != nil {
		return fmt.Errorf("writing a patch: %w", err)
	}
	_, err = c.of(i, kind).Patch(ctx, i.name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: c.writer})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("changing metadata: %w", err)
	}
	return nil
}

func (c *Collector) of(i *item, kind Kind) metadata.ResourceInterface {
	if i.namespace == "" {
		return c.objects.Resource(kind.at())
	}
	return c.objects.Resource(kind.at()).Namespace(i.namespace)
}

// tell leaves an Event on an object. Saying the same twice is once; a namespace that is being deleted takes no Events, and
// whoever deleted it knows what becomes of its objects.
func (c *Collector) tell(ctx context.Context, i *item, severity, reason, message string) error {
	namespace := i.namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	now := metav1.Now()
	_, err := c.core.Events(namespace).Create(ctx, &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: strings.ToLower(i.name + "." + reason + "." + string(i.uid)), Namespace: namespace},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: i.apiVersion(), Kind: i.kind, Namespace: i.namespace, Name: i.name, UID: i.uid,
		},
		Reason: reason, Message: message, Type: severity, Source: corev1.EventSource{Component: c.writer},
		ReportingController: "metald.io/collector", FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}, metav1.CreateOptions{FieldManager: c.writer})
	if err == nil || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil
	}
	return fmt.Errorf("writing an Event: %w", err)
}

func (i *item) apiVersion() string {
	if i.resource.Group == "" {
		return i.version
	}
	return i.resource.Group + "/" + i.version
}

func join(owners []owner) string {
	words := make([]string, len(owners))
	for n, o := range owners {
		words[n] = o.String()
	}
	return strings.Join(words, ", ")
}
