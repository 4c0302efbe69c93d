// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"

	"metald.io/metald/internal/inventory"
)

// TestDefinitionsAcrossAStart starts twice over one inventory: what is right is not written again, what a person has bent
// is put right, and hosts are still there.
func TestDefinitionsAcrossAStart(t *testing.T) {
	store, err := inventory.Open(t.TempDir(), inventory.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	d := start(t, store)
	client := d.admin(t)
	const bent = "images.metald.io"
	if _, err := client.Resource(definitions).Patch(t.Context(), bent, types.JSONPatchType,
		[]byte(`[{"op":"replace","path":"/spec/versions/0/additionalPrinterColumns/0/name","value":"Bent"}]`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Resource(hosts).Namespace("metald").Create(t.Context(), hostNamed(t, "metald", "n1"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	before := versionsOf(t, d)
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}

	d = start(t, store)
	defer d.stop() //nolint:errcheck // the test is over then
	for name, version := range versionsOf(t, d) {
		if name != bent && version != before[name] {
			t.Errorf("definition %s was written at a start that changed nothing", name)
		}
	}
	definition, err := d.admin(t).Resource(definitions).Get(t.Context(), bent, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	versions, _, _ := unstructured.NestedSlice(definition.Object, "spec", "versions")
	columns := versions[0].(map[string]any)["additionalPrinterColumns"].([]any)
	if got := columns[0].(map[string]any)["name"]; got != "Arch" {
		t.Errorf("a bent column of %s is named %q after a start, want Arch", bent, got)
	}
	if _, err := d.admin(t).Resource(hosts).Namespace("metald").Get(t.Context(), "n1", metav1.GetOptions{}); err != nil {
		t.Errorf("reading a host after the restart: %v", err)
	}
}

func versionsOf(t *testing.T, d *door) map[string]string {
	t.Helper()
	list, err := d.admin(t).Resource(definitions).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	versions := map[string]string{}
	for _, definition := range list.Items {
		versions[definition.GetName()] = definition.GetResourceVersion()
	}
	return versions
}

// TestUsersOwnDefinition adds a kind as Cluster API's providers do, uses it, and takes it away again.
func TestUsersOwnDefinition(t *testing.T) {
	d, namespace := sharedDoor(t)
	client := d.admin(t)
	const name = "widgets.example.org"
	_, err := client.Resource(definitions).Create(t.Context(), object(t, `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.org}
spec:
  group: example.org
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget, listKind: WidgetList}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties:
              size: {type: integer, maximum: 3}
            x-kubernetes-validations:
            - {rule: "self.size != 2", message: "two is no size"}
`), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := discovery.NewDiscoveryClientForConfig(d.client(t, "admin", "system:masters"))
	if err != nil {
		t.Fatal(err)
	}
	listed := func() bool {
		groups, err := raw.WithLegacy().ServerGroups()
		if err != nil {
			t.Fatal(err)
		}
		for _, group := range groups.Groups {
			if group.Name == "example.org" {
				return true
			}
		}
		return false
	}
	eventually(t, "the kind is discovered", listed)

	widgets := client.Resource(schema.GroupVersionResource{Group: "example.org", Version: "v1", Resource: "widgets"}).Namespace(namespace)
	widget := func(size int64) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "example.org/v1", "kind": "Widget", "metadata": map[string]any{"name": "w"}, "spec": map[string]any{"size": size},
		}}
	}
	for size, want := range map[int64]bool{4: false, 2: false, 1: true} {
		_, err := widgets.Create(t.Context(), widget(size), metav1.CreateOptions{})
		if got := err == nil; got != want || (!want && !apierrors.IsInvalid(err)) {
			t.Errorf("size %d: got %v, want accepted %v", size, err, want)
		}
	}
	if err := client.Resource(definitions).Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the kind is gone", func() bool { return !listed() })
	eventually(t, "its objects are gone", func() bool {
		_, err := client.Resource(definitions).Get(t.Context(), name, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if done() {
			return
		}
	}
	t.Fatalf("not within 20 s: %s", what)
}
