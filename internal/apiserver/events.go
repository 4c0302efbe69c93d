// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
)

// Events have two groups: core/v1, in which they are stored and which kubectl reads, and events.k8s.io/v1, which newer
// recorders write. Both are one set of objects under one set of keys.

// addEventConversions teaches a scheme what an Event of one group is in the other. Nothing is lost on the way: the new group
// keeps the old one's fields under names that begin with "deprecated".
func addEventConversions(scheme *runtime.Scheme) error {
	for _, add := range []error{
		scheme.AddConversionFunc((*corev1.Event)(nil), (*eventsv1.Event)(nil), func(from, to any, _ conversion.Scope) error {
			newEvent(from.(*corev1.Event), to.(*eventsv1.Event))
			return nil
		}),
		scheme.AddConversionFunc((*eventsv1.Event)(nil), (*corev1.Event)(nil), func(from, to any, _ conversion.Scope) error {
			coreEvent(from.(*eventsv1.Event), to.(*corev1.Event))
			return nil
		}),
		scheme.AddConversionFunc((*corev1.EventList)(nil), (*eventsv1.EventList)(nil), func(from, to any, _ conversion.Scope) error {
			in, out := from.(*corev1.EventList), to.(*eventsv1.EventList)
			out.ListMeta, out.Items = in.ListMeta, make([]eventsv1.Event, len(in.Items))
			for i := range in.Items {
				newEvent(&in.Items[i], &out.Items[i])
			}
			return nil
		}),
		scheme.AddConversionFunc((*eventsv1.EventList)(nil), (*corev1.EventList)(nil), func(from, to any, _ conversion.Scope) error {
			in, out := from.(*eventsv1.EventList), to.(*corev1.EventList)
			out.ListMeta, out.Items = in.ListMeta, make([]corev1.Event, len(in.Items))
			for i := range in.Items {
				coreEvent(&in.Items[i], &out.Items[i])
			}
			return nil
		}),
		scheme.AddFieldLabelConversionFunc(eventsv1.SchemeGroupVersion.WithKind("Event"), eventSelector),
	} {
		if add != nil {
			return add
		}
	}
	return nil
}

func newEvent(in *corev1.Event, out *eventsv1.Event) {
	out.ObjectMeta = in.ObjectMeta
	out.EventTime = in.EventTime
	out.Series = nil
	if in.Series != nil {
		out.Series = &eventsv1.EventSeries{Count: in.Series.Count, LastObservedTime: in.Series.LastObservedTime}
	}
	out.ReportingController, out.ReportingInstance = in.ReportingController, in.ReportingInstance
	out.Action, out.Reason, out.Type, out.Note = in.Action, in.Reason, in.Type, in.Message
	out.Regarding, out.Related = in.InvolvedObject, in.Related
	out.DeprecatedSource, out.DeprecatedCount = in.Source, in.Count
	out.DeprecatedFirstTimestamp, out.DeprecatedLastTimestamp = in.FirstTimestamp, in.LastTimestamp
}

func coreEvent(in *eventsv1.Event, out *corev1.Event) {
	out.ObjectMeta = in.ObjectMeta
	out.EventTime = in.EventTime
	out.Series = nil
	if in.Series != nil {
		out.Series = &corev1.EventSeries{Count: in.Series.Count, LastObservedTime: in.Series.LastObservedTime}
	}
	out.ReportingController, out.ReportingInstance = in.ReportingController, in.ReportingInstance
	out.Action, out.Reason, out.Type, out.Message = in.Action, in.Reason, in.Type, in.Note
	out.InvolvedObject, out.Related = in.Regarding, in.Related
	out.Source, out.Count = in.DeprecatedSource, in.DeprecatedCount
	out.FirstTimestamp, out.LastTimestamp = in.DeprecatedFirstTimestamp, in.DeprecatedLastTimestamp
}

// eventLabels are the fields that a selector of events.k8s.io may name, with their names where they are stored.
var eventLabels = map[string]string{
	"metadata.name": "metadata.name", "metadata.namespace": "metadata.namespace",
	"reason": "reason", "type": "type", "reportingController": "reportingComponent",
	"regarding.kind": "involvedObject.kind", "regarding.namespace": "involvedObject.namespace", "regarding.name": "involvedObject.name",
	"regarding.uid": "involvedObject.uid", "regarding.apiVersion": "involvedObject.apiVersion",
	"regarding.resourceVersion": "involvedObject.resourceVersion", "regarding.fieldPath": "involvedObject.fieldPath",
}

func eventSelector(label, value string) (string, string, error) {
	stored, ok := eventLabels[label]
	if !ok {
		return "", "", fmt.Errorf("%q is not a field that events can be selected by", label)
	}
	return stored, value, nil
}
