// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
)

// family makes and looks at objects of one namespace.
type family struct {
	t         *testing.T
	namespace string
	client    dynamic.Interface
}

func (f family) of(resource schema.GroupVersionResource) dynamic.ResourceInterface {
	return f.client.Resource(resource).Namespace(f.namespace)
}

// make creates a ConfigMap, or what else the text says, owned by owners.
func (f family) make(resource schema.GroupVersionResource, text string, owners ...map[string]any) *unstructured.Unstructured {
	f.t.Helper()
	o := object(f.t, text)
	var refs []any
	for _, owner := range owners {
		refs = append(refs, owner)
	}
	if refs != nil {
		if err := unstructured.SetNestedSlice(o.Object, refs, "metadata", "ownerReferences"); err != nil {
			f.t.Fatal(err)
		}
	}
	made, err := f.of(resource).Create(f.t.Context(), o, metav1.CreateOptions{})
	if err != nil {
		f.t.Fatal(err)
	}
	return made
}

func config(name string) string {
	return "{apiVersion: v1, kind: ConfigMap, metadata: {name: " + name + "}}"
}

// ref is a reference to an object, which may hold up its deletion.
func ref(to *unstructured.Unstructured, blocks bool) map[string]any {
	return map[string]any{
		"apiVersion": to.GetAPIVersion(), "kind": to.GetKind(), "name": to.GetName(), "uid": string(to.GetUID()), "blockOwnerDeletion": blocks,
	}
}

func (f family) delete(resource schema.GroupVersionResource, name string, policy metav1.DeletionPropagation) {
	f.t.Helper()
	if err := f.of(resource).Delete(f.t.Context(), name, metav1.DeleteOptions{PropagationPolicy: &policy}); err != nil {
		f.t.Fatal(err)
	}
}

func (f family) there(resource schema.GroupVersionResource, name string) *unstructured.Unstructured {
	f.t.Helper()
	found, err := f.of(resource).Get(f.t.Context(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		f.t.Fatal(err)
	}
	return found
}

func (f family) gone(resource schema.GroupVersionResource, name string) {
	f.t.Helper()
	eventually(f.t, name+" is gone", func() bool { return f.there(resource, name) == nil })
}

func (f family) finalizers(resource schema.GroupVersionResource, name string, finalizers ...string) {
	f.t.Helper()
	list := "[]"
	if len(finalizers) > 0 {
		list = `["` + strings.Join(finalizers, `","`) + `"]`
	}
	if _, err := f.of(resource).Patch(f.t.Context(), name, types.MergePatchType, []byte(`{"metadata":{"finalizers":`+list+`}}`), metav1.PatchOptions{}); err != nil {
		f.t.Fatal(err)
	}
}

func TestOwnersAreFollowed(t *testing.T) {
	d, namespace := sharedDoor(t)
	_, elsewhere := sharedDoor(t)
	f := family{t, namespace, d.admin(t)}

	t.Run("in the background, through generations and kinds", func(t *testing.T) {
		f := family{t, namespace, f.client}
		a := f.make(configMaps, config("a"))
		host := f.make(hosts, "{apiVersion: metal3.io/v1alpha1, kind: BareMetalHost, metadata: {name: owned}, spec: {online: false}}", ref(a, true))
		f.make(configMaps, config("c"), ref(host, false))
		f.make(configMaps, config("free"))
		f.delete(configMaps, "a", metav1.DeletePropagationBackground)
		f.gone(hosts, "owned")
		f.gone(configMaps, "c")
		if f.there(configMaps, "free") == nil {
			t.Error("what nobody owns was deleted")
		}
		list, err := f.of(events).List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=owned,reason=OwnerGone"})
		if err != nil {
			t.Fatal(err)
		}
		if len(list.Items) != 1 || !strings.Contains(fmt.Sprint(list.Items[0].Object["message"]), "ConfigMap a") {
			t.Errorf("Events on the host: got %v, want one that names its owner", list.Items)
		}
	})
	t.Run("one owner is enough", func(t *testing.T) {
		f := family{t, namespace, f.client}
		a, b := f.make(configMaps, config("a2")), f.make(configMaps, config("b2"))
		f.make(configMaps, config("child2"), ref(a, false), ref(b, false))
		f.delete(configMaps, "a2", metav1.DeletePropagationBackground)
		eventually(t, "the owner that is gone is taken off", func() bool {
			child := f.there(configMaps, "child2")
			return child != nil && len(child.GetOwnerReferences()) == 1 && child.GetOwnerReferences()[0].Name == "b2"
		})
	})
	t.Run("orphans stay", func(t *testing.T) {
		f := family{t, namespace, f.client}
		a := f.make(configMaps, config("a3"))
		f.make(configMaps, config("child3"), ref(a, true))
		f.delete(configMaps, "a3", metav1.DeletePropagationOrphan)
		f.gone(configMaps, "a3")
		if child := f.there(configMaps, "child3"); child == nil || len(child.GetOwnerReferences()) != 0 {
			t.Errorf("the child: got %v, want one without owners", child)
		}
	})
	t.Run("in the foreground the owner goes last", func(t *testing.T) {
		f := family{t, namespace, f.client}
		a := f.make(configMaps, config("a4"))
		f.make(configMaps, config("child4"), ref(a, true))
		f.finalizers(configMaps, "child4", "example.org/hold")
		f.delete(configMaps, "a4", metav1.DeletePropagationForeground)
		eventually(t, "the child is being deleted", func() bool { return f.there(configMaps, "child4").GetDeletionTimestamp() != nil })
		if owner := f.there(configMaps, "a4"); owner == nil || !slices.Contains(owner.GetFinalizers(), metav1.FinalizerDeleteDependents) {
			t.Fatalf("the owner: got %v, want it to wait", owner)
		}
		f.finalizers(configMaps, "child4")
		f.gone(configMaps, "child4")
		f.gone(configMaps, "a4")
	})
	t.Run("in the foreground, with nothing that holds it up", func(t *testing.T) {
		f := family{t, namespace, f.client}
		a := f.make(configMaps, config("a5"))
		f.make(configMaps, config("child5"), ref(a, false))
		f.delete(configMaps, "a5", metav1.DeletePropagationForeground)
		f.gone(configMaps, "a5")
		f.gone(configMaps, "child5")
	})
	t.Run("an owner of another UID is none", func(t *testing.T) {
		f := family{t, namespace, f.client}
		a := f.make(configMaps, config("a6"))
		wrong := ref(a, false)
		wrong["uid"] = "11111111-2222-3333-4444-555555555555"
		f.make(configMaps, config("child6"), wrong)
		f.gone(configMaps, "child6")
		if f.there(configMaps, "a6") == nil {
			t.Error("the namesake of the owner was deleted")
		}
	})
	t.Run("an owner in another namespace is none, and that is said", func(t *testing.T) {
		f := family{t, namespace, f.client}
		a := family{t, elsewhere, f.client}.make(configMaps, config("a7"))
		f.make(configMaps, config("child7"), ref(a, false))
		f.gone(configMaps, "child7")
		eventually(t, "an Event says why", func() bool {
			list, err := f.of(events).List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=child7,reason=OwnerRefInvalidNamespace"})
			return err == nil && len(list.Items) == 1
		})
	})
	t.Run("an owner of a kind that nobody serves is left alone", func(t *testing.T) {
		f := family{t, namespace, f.client}
		a := f.make(configMaps, config("a8"))
		f.make(configMaps, config("child8"), map[string]any{"apiVersion": "example.com/v1", "kind": "Nobody", "name": "x", "uid": "22222222-2222-3333-4444-555555555555"})
		f.make(configMaps, config("marker8"), ref(a, false))
		f.delete(configMaps, "a8", metav1.DeletePropagationBackground)
		f.gone(configMaps, "marker8") // it came later and is gone: the collector has seen both
		if f.there(configMaps, "child8") == nil {
			t.Error("it was deleted")
		}
	})
}
