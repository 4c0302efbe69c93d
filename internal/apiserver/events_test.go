// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	recording "k8s.io/client-go/tools/events"
)

var newEvents = schema.GroupVersionResource{Group: "events.k8s.io", Version: "v1", Resource: "events"}

// TestRecorderOfEvents has client-go's newer recorder tell the same twice, and reads it as kubectl does.
func TestRecorderOfEvents(t *testing.T) {
	d, namespace := sharedDoor(t)
	client := d.typed(t)
	broadcaster := recording.NewBroadcaster(&recording.EventSinkImpl{Interface: client.EventsV1()})
	if err := broadcaster.StartRecordingToSinkWithContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer broadcaster.Shutdown()
	recorder := broadcaster.NewRecorder(scheme.Scheme, "example.org/controller")
	about := &corev1.ObjectReference{APIVersion: "metal3.io/v1alpha1", Kind: "BareMetalHost", Namespace: namespace, Name: "n1", UID: "u1"}
	var list *corev1.EventList
	told := func(times int32) func() bool {
		return func() bool {
			var err error
			list, err = client.CoreV1().Events(namespace).List(t.Context(), metav1.ListOptions{
				FieldSelector: "involvedObject.name=n1,involvedObject.kind=BareMetalHost,involvedObject.uid=u1,reportingComponent=example.org/controller"})
			if err != nil {
				t.Fatal(err)
			}
			return len(list.Items) == 1 && (times == 1 || list.Items[0].Series != nil && list.Items[0].Series.Count >= times)
		}
	}
	recorder.Eventf(about, nil, corev1.EventTypeWarning, "Scratched", "Scratch", "found %d scratches", 3)
	eventually(t, "core/v1 shows it", told(1))
	if e := list.Items[0]; e.Message != "found 3 scratches" || e.Reason != "Scratched" || e.Action != "Scratch" || e.Type != "Warning" || e.EventTime.IsZero() {
		t.Errorf("as core/v1 shows it: got %+v", e)
	}
	recorder.Eventf(about, nil, corev1.EventTypeWarning, "Scratched", "Scratch", "found %d scratches", 3)
	eventually(t, "core/v1 counts it", told(2))
}

// TestEventsOfBothGroups writes in one group and reads in the other.
func TestEventsOfBothGroups(t *testing.T) {
	d, namespace := sharedDoor(t)
	client := d.typed(t)
	watch, err := client.EventsV1().Events(namespace).Watch(t.Context(), metav1.ListOptions{FieldSelector: "regarding.name=n1"})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()
	at := metav1.NewMicroTime(time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC))
	old := &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Name: "old"},
		InvolvedObject: corev1.ObjectReference{Kind: "BareMetalHost", Namespace: namespace, Name: "n1", FieldPath: "spec"},
		Related:        &corev1.ObjectReference{Kind: "Secret", Name: "s"},
		Reason:         "R", Message: "text", Type: "Normal", Count: 7, Source: corev1.EventSource{Component: "c", Host: "h"},
		FirstTimestamp: metav1.NewTime(at.Truncate(time.Second)), LastTimestamp: metav1.NewTime(at.Add(time.Hour).Truncate(time.Second)),
		EventTime: at, Series: &corev1.EventSeries{Count: 2, LastObservedTime: at}, Action: "A", ReportingController: "rc", ReportingInstance: "ri",
	}
	if _, err := client.CoreV1().Events(namespace).Create(t.Context(), old, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Events(namespace).Create(t.Context(), &corev1.Event{ObjectMeta: metav1.ObjectMeta{Name: "of-another"},
		InvolvedObject: corev1.ObjectReference{Kind: "BareMetalHost", Namespace: namespace, Name: "n2"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	select {
	case event := <-watch.ResultChan():
		if e, ok := event.Object.(*eventsv1.Event); !ok || e.Name != "old" || e.Note != "text" {
			t.Errorf("the watch: got %s %+v", event.Type, event.Object)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the watch told nothing")
	}
	list, err := client.EventsV1().Events(namespace).List(t.Context(), metav1.ListOptions{FieldSelector: "regarding.name=n1,reportingController=rc"})
	if err != nil || len(list.Items) != 1 {
		t.Fatalf("the list: got %v, %v; want one", list, err)
	}
	want := &eventsv1.Event{
		Regarding: old.InvolvedObject, Related: old.Related, Reason: "R", Note: "text", Type: "Normal", DeprecatedCount: 7, DeprecatedSource: old.Source,
		DeprecatedFirstTimestamp: old.FirstTimestamp, DeprecatedLastTimestamp: old.LastTimestamp, EventTime: at,
		Series: &eventsv1.EventSeries{Count: 2, LastObservedTime: at}, Action: "A", ReportingController: "rc", ReportingInstance: "ri",
	}
	got := list.Items[0].DeepCopy()
	got.ObjectMeta = metav1.ObjectMeta{}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("in the new group (-want +got):\n%s", diff)
	}
	// Back through the new group, with one change: nothing of the old one's is lost.
	change := list.Items[0].DeepCopy()
	change.Note = "another text"
	if _, err := client.EventsV1().Events(namespace).Update(t.Context(), change, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	back, err := client.CoreV1().Events(namespace).Get(t.Context(), "old", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	back.ObjectMeta, old.ObjectMeta, old.Message = metav1.ObjectMeta{}, metav1.ObjectMeta{}, "another text"
	if diff := cmp.Diff(old, back); diff != "" {
		t.Errorf("back in core/v1 (-want +got):\n%s", diff)
	}
	// By apply, and as a table.
	applied := object(t, `{apiVersion: events.k8s.io/v1, kind: Event, metadata: {name: old}, note: applied}`)
	if _, err := d.admin(t).Resource(newEvents).Namespace(namespace).Apply(t.Context(), "old", applied, metav1.ApplyOptions{FieldManager: "test", Force: true}); err != nil {
		t.Errorf("applying it: %v", err)
	}
	table, err := client.EventsV1().RESTClient().Get().Namespace(namespace).Resource("events").SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").DoRaw(t.Context())
	if err != nil || !strings.Contains(string(table), `"Normal","R","baremetalhost/n1","c","applied"`) {
		t.Errorf("as a table: got %v, %s", err, table)
	}
	if _, err := client.EventsV1().Events(namespace).List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=n1"}); !apierrors.IsBadRequest(err) {
		t.Errorf("a selector of the other group: got %v, want a bad request", err)
	}
	if err := client.EventsV1().Events(namespace).Delete(t.Context(), "old", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Events(namespace).Get(t.Context(), "old", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("after it was deleted in the new group: got %v, want it gone", err)
	}
}
