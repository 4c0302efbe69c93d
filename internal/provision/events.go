// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"fmt"
	"hash/fnv"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// eventSlots caps the events that are kept of one host: a text has a slot, and a new text may take an old one's.
const eventSlots = 64

// tell keeps an Event for people. What is said again counts up; losing one is no failure.
func (s *step) tell(ctx context.Context, kind, reason, message string) {
	if len(message) > 1024 {
		message = message[:1024]
	}
	sum := fnv.New64a()
	fmt.Fprintf(sum, "%s\x00%s\x00%s", kind, reason, message)
	slot := fmt.Sprintf("%s.%02x", s.Host.Name, sum.Sum64()%eventSlots)
	now := metav1.NewTime(s.now())
	fill := func(e *corev1.Event) {
		if e.Reason != reason || e.Message != message {
			e.Count, e.FirstTimestamp = 0, now
		}
		e.Type, e.Reason, e.Message = kind, reason, message
		e.Count++
		e.LastTimestamp = now
		e.Source.Component, e.ReportingController = "metald", "metald.io/provision"
		e.InvolvedObject = corev1.ObjectReference{APIVersion: metal3.GroupVersion.String(), Kind: "BareMetalHost",
			Namespace: s.Host.Namespace, Name: s.Host.Name, UID: s.Host.UID}
	}
	_, err := s.Store.Events().Update(ctx, s.Host.Namespace, slot, func(e *corev1.Event) error { fill(e); return nil })
	if apierrors.IsNotFound(err) {
		e := &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: s.Host.Namespace, Name: slot}}
		fill(e)
		_, err = s.Store.Events().Create(ctx, e)
	}
	if err != nil && !apierrors.IsAlreadyExists(err) {
		s.log.Warn("writing an event", "host", s.key, "err", err)
	}
}
