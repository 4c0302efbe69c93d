// SPDX-License-Identifier: Apache-2.0

package clients

import (
	"context"
	"slices"
	"testing"

	"github.com/go-logr/logr"
	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

// A manager has two recorders, one for each group that Events have had. Both write, and either group shows what both wrote.
func TestManagersEvents(t *testing.T) {
	m := startMetald(t)
	ctrl.SetLogger(logr.Discard())
	manager, err := ctrl.NewManager(m.client(t, m.login(t, "teller", "metald:operators")), ctrl.Options{
		Scheme: scheme(t), Metrics: server.Options{BindAddress: "0"}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- manager.Start(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the manager: %v", err)
		}
	})
	c, err := client.New(manager.GetConfig(), client.Options{Scheme: manager.GetScheme()})
	if err != nil {
		t.Fatal(err)
	}
	host := &metal3.BareMetalHost{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "told"}, Spec: metal3.BareMetalHostSpec{
		BootMACAddress: "52:54:00:00:80:01", BMC: metal3.BMCDetails{Address: "redfish://127.0.0.1:1/redfish/v1/Systems/1", CredentialsName: "not-there"}}}
	if err := c.Create(t.Context(), host); err != nil {
		t.Fatal(err)
	}
	//lint:ignore SA1019 most controllers still use it
	manager.GetEventRecorderFor("old").Event(host, corev1.EventTypeNormal, "OldWord", "by the old recorder")
	manager.GetEventRecorder("new").Eventf(host, nil, corev1.EventTypeNormal, "NewWord", "Telling", "by the %s recorder", "new")

	eventually(t, "core/v1 shows both words and the daemon's own", func() bool {
		var events corev1.EventList
		if err := c.List(t.Context(), &events, client.InNamespace("default"), client.MatchingFields{"involvedObject.name": "told"}); err != nil {
			t.Fatal(err)
		}
		return hasAll(events.Items, func(e corev1.Event) string { return e.Reason + ": " + e.Message },
			"OldWord: by the old recorder", "NewWord: by the new recorder", "StepFailed: secret default/not-there does not exist")
	})
	eventually(t, "events.k8s.io/v1 shows them as well", func() bool {
		var events eventsv1.EventList
		if err := c.List(t.Context(), &events, client.InNamespace("default")); err != nil {
			t.Fatal(err)
		}
		return hasAll(events.Items, func(e eventsv1.Event) string { return e.Reason + ": " + e.Note },
			"OldWord: by the old recorder", "NewWord: by the new recorder", "StepFailed: secret default/not-there does not exist")
	})
}

// hasAll says whether each text is that of an item.
func hasAll[T any](items []T, text func(T) string, want ...string) bool {
	for _, w := range want {
		if !slices.ContainsFunc(items, func(item T) bool { return text(item) == w }) {
			return false
		}
	}
	return true
}
