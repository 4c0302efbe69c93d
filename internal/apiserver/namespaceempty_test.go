// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"metald.io/metald/internal/inventory"
)

// condition is the status and the message of one of a namespace's conditions.
func condition(t *testing.T, client dynamic.Interface, name string, kind corev1.NamespaceConditionType) (string, string) {
	t.Helper()
	found, err := client.Resource(namespaces).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var namespace corev1.Namespace
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(found.Object, &namespace); err != nil {
		t.Fatal(err)
	}
	for _, c := range namespace.Status.Conditions {
		if c.Type == kind {
			return string(c.Status), c.Message
		}
	}
	return "", ""
}

func ended(t *testing.T, client dynamic.Interface, name string) func() bool {
	return func() bool {
		_, err := client.Resource(namespaces).Get(t.Context(), name, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	}
}

// TestNamespaceEnds deletes a namespace that holds a bit of everything, one of it held by a finalizer.
func TestNamespaceEnds(t *testing.T) {
	d, namespace := sharedDoor(t)
	f := family{t, namespace, d.admin(t)}
	all := f.client.Resource(namespaces)
	fresh, err := all.Get(t.Context(), namespace, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got, _, _ := unstructured.NestedStringSlice(fresh.Object, "spec", "finalizers"); len(got) != 1 || got[0] != "kubernetes" {
		t.Errorf("a fresh namespace's finalizers: got %v, want kubernetes", got)
	}
	host := f.make(hosts, "{apiVersion: metal3.io/v1alpha1, kind: BareMetalHost, metadata: {name: n1, finalizers: [example.org/hold]}, spec: {online: false}}")
	f.make(configMaps, config("record"), ref(host, false))
	f.make(secrets, "{apiVersion: v1, kind: Secret, metadata: {name: bmc}}")
	f.make(events, "{apiVersion: v1, kind: Event, metadata: {name: e}, involvedObject: {kind: BareMetalHost, namespace: "+namespace+", name: n1}}")

	if err := all.Delete(t.Context(), namespace, metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}); err != nil {
		t.Fatal(err)
	}
	if kept, err := all.Get(t.Context(), namespace, metav1.GetOptions{}); err != nil || kept.GetDeletionTimestamp() != nil {
		t.Fatalf("after a dry run: got %v, %v; want it as it was", kept.GetDeletionTimestamp(), err)
	}
	stranger := "33333333-2222-3333-4444-555555555555"
	if err := all.Delete(t.Context(), namespace, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(stranger)}); !apierrors.IsConflict(err) {
		t.Fatalf("deleting another one of this name: got %v, want a conflict", err)
	}
	for range 2 { // the second time changes nothing
		if err := all.Delete(t.Context(), namespace, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the namespace says what it waits for", func() bool {
		left, text := condition(t, f.client, namespace, corev1.NamespaceContentRemaining)
		return left == "True" && strings.Contains(text, "baremetalhosts.metal3.io has 1 resource instances (n1)")
	})
	if held, text := condition(t, f.client, namespace, corev1.NamespaceFinalizersRemaining); held != "True" || !strings.Contains(text, "example.org/hold in 1") {
		t.Errorf("finalizers remaining: got %s %q, want the one of the host", held, text)
	}
	if found := f.there(hosts, "n1"); found.GetDeletionTimestamp() == nil {
		t.Error("the host is not being deleted")
	}
	if f.there(secrets, "bmc") == nil || f.there(configMaps, "record") == nil {
		t.Error("the host's Secret or what belongs to it went before the host")
	}
	f.finalizers(hosts, "n1")
	eventually(t, "the namespace is gone", ended(t, f.client, namespace))
	if left := keysIn(t, d.store, namespace); len(left) > 0 {
		t.Errorf("left in the store: %v", left)
	}
	if _, err := f.of(configMaps).Create(t.Context(), object(t, config("late")), metav1.CreateOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("creating something in it: got %v, want NotFound", err)
	}
}

// keysIn is the keys of a namespace, as they are stored.
func keysIn(t *testing.T, store *inventory.Store, namespace string) (left []string) {
	t.Helper()
	found, err := store.Etcd().Get(t.Context(), "/registry/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		t.Fatal(err)
	}
	for _, pair := range found.Kvs {
		if strings.Contains(string(pair.Key), "/"+namespace+"/") {
			left = append(left, string(pair.Key))
		}
	}
	return left
}

// TestNamespaceEndsAfterARestart ends the server while a namespace waits, and a ring of owners is in it.
func TestNamespaceEndsAfterARestart(t *testing.T) {
	store, err := inventory.Open(t.TempDir(), inventory.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	d := start(t, store)
	f := family{t, "waits", d.admin(t)}
	if _, err := f.client.Resource(namespaces).Create(t.Context(), object(t, "{apiVersion: v1, kind: Namespace, metadata: {name: waits}}"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	host := func(name string) string {
		return "{apiVersion: metal3.io/v1alpha1, kind: BareMetalHost, metadata: {name: " + name + ", finalizers: [example.org/hold]}, spec: {online: false}}"
	}
	a := f.make(hosts, host("a"))
	b := f.make(hosts, host("b"), ref(a, true))
	list := []any{ref(b, true)}
	if err := unstructured.SetNestedSlice(a.Object, list, "metadata", "ownerReferences"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.of(hosts).Update(t.Context(), a, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := f.client.Resource(namespaces).Delete(t.Context(), "waits", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	d = start(t, store)
	f.client = d.admin(t)
	for _, name := range []string{"a", "b"} {
		eventually(t, name+" is being deleted", func() bool { return f.there(hosts, name).GetDeletionTimestamp() != nil })
		f.finalizers(hosts, name)
	}
	eventually(t, "the namespace is gone", ended(t, f.client, "waits"))
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
}

// TestNamespaceCannotBeEndedByOthers tries what a writer may not do to the life of a namespace.
func TestNamespaceCannotBeEndedByOthers(t *testing.T) {
	d, namespace := sharedDoor(t)
	client, err := corev1client.NewForConfig(d.client(t, "admin", "system:masters"))
	if err != nil {
		t.Fatal(err)
	}
	found, err := client.Namespaces().Get(t.Context(), namespace, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	found.Spec.Finalizers = nil
	found.Status.Phase = corev1.NamespaceTerminating
	found.Labels["a"] = "b"
	found, err = client.Namespaces().Update(t.Context(), found, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(found.Spec.Finalizers) != 1 || found.Status.Phase != corev1.NamespaceActive || found.Labels["a"] != "b" {
		t.Errorf("an update: got %v, %s, %v; want the label alone changed", found.Spec.Finalizers, found.Status.Phase, found.Labels)
	}
	found.Status.Phase, found.Labels["a"] = corev1.NamespaceTerminating, "c"
	found.Status.Conditions = []corev1.NamespaceCondition{{Type: "Seen", Status: corev1.ConditionTrue}}
	if found, err = client.Namespaces().UpdateStatus(t.Context(), found, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if found.Status.Phase != corev1.NamespaceActive || found.Labels["a"] != "b" || len(found.Status.Conditions) != 1 {
		t.Errorf("an update of the status: got %s, %v, %v; want the condition alone changed", found.Status.Phase, found.Labels, found.Status.Conditions)
	}
	found.Spec.Finalizers = nil
	if found, err = client.Namespaces().Finalize(t.Context(), found, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if len(found.Spec.Finalizers) != 0 || found.DeletionTimestamp != nil || len(found.Status.Conditions) != 1 {
		t.Errorf("finalizing: got %v, %v; want an empty list and nothing else", found.Spec.Finalizers, found.DeletionTimestamp)
	}
}
