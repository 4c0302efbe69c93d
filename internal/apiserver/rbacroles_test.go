// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/internal/apiserver/crds"
	"metald.io/metald/internal/inventory"
)

// TestReadyRolesAreMended narrows roles and bindings and starts the server again: what was marked to be kept is whole again,
// what somebody took over is not touched, what somebody added is still there.
func TestReadyRolesAreMended(t *testing.T) {
	store, err := inventory.Open(t.TempDir(), inventory.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	first := start(t, store)
	client := first.person(t, "admin", "system:masters").RbacV1()
	extra := rbacv1.PolicyRule{APIGroups: []string{"example.com"}, Resources: []string{"things"}, Verbs: []string{"get"}}
	change := func(name string, f func(*rbacv1.ClusterRole)) {
		t.Helper()
		role, err := client.ClusterRoles().Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		f(role)
		if _, err := client.ClusterRoles().Update(t.Context(), role, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	change("metald:viewer", func(r *rbacv1.ClusterRole) { r.Rules = []rbacv1.PolicyRule{extra} })
	change("metald:operator", func(r *rbacv1.ClusterRole) {
		r.Rules, r.Annotations[rbacv1.AutoUpdateAnnotationKey] = []rbacv1.PolicyRule{extra}, "false"
	})
	if err := client.ClusterRoles().Delete(t.Context(), "metald:tenant", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	viewers, err := client.ClusterRoleBindings().Get(t.Context(), "metald:viewers", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	viewers.Subjects = []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "vera"}}
	if _, err := client.ClusterRoleBindings().Update(t.Context(), viewers, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}

	second := start(t, store)
	t.Cleanup(func() {
		if err := second.stop(); err != nil {
			t.Error(err)
		}
	})
	for who, want := range map[string][2]bool{ // hosts, things
		"metald:viewers":   {true, true},
		"metald:operators": {false, true},
		"metald:admins":    {true, true},
		"others":           {false, false},
	} {
		person := second.person(t, "somebody", who)
		got := [2]bool{may(t, person, "list baremetalhosts.metal3.io"), may(t, person, "get things.example.com")}
		if got != want {
			t.Errorf("%s may see hosts and things: got %v, want %v", who, got, want)
		}
	}
	if !may(t, second.person(t, "vera"), "list baremetalhosts.metal3.io") {
		t.Error("vera, who was added to the viewers: got no, want yes")
	}
	roles, err := second.person(t, "admin", "system:masters").RbacV1().ClusterRoles().List(t.Context(), metav1.ListOptions{})
	if err != nil || !slices.ContainsFunc(roles.Items, func(r rbacv1.ClusterRole) bool { return r.Name == "metald:tenant" }) {
		t.Errorf("the role that was deleted: got %v, want it back", err)
	}
}

// TestImagesNameNobody holds what all tenants may read to its promise: an Image has no field that could tell who uses it or
// where. A field that is added here is told to every tenant.
func TestImagesNameNobody(t *testing.T) {
	files, err := crds.All()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	var walk func(path string, schema apiextensionsv1.JSONSchemaProps)
	walk = func(path string, schema apiextensionsv1.JSONSchemaProps) {
		for name, property := range schema.Properties {
			walk(path+"."+name, property)
		}
		if schema.Items != nil {
			walk(path+"[]", *schema.Items.Schema)
		}
		if len(schema.Properties) == 0 && schema.Items == nil {
			got = append(got, strings.TrimPrefix(path, "."))
		}
	}
	for _, file := range files {
		definition, err := file.Parse()
		if err != nil {
			t.Fatal(err)
		}
		if definition.Spec.Names.Kind == "Image" {
			for _, version := range definition.Spec.Versions {
				walk("", *version.Schema.OpenAPIV3Schema)
			}
		}
	}
	slices.Sort(got)
	want := strings.Fields(`apiVersion kind metadata
		spec.architecture spec.kernel spec.kubernetesVersion spec.loader.sha256 spec.loader.sizeBytes spec.lockSHA256 spec.os
		spec.root.format spec.root.hashOffset spec.root.sha256 spec.root.sizeBytes spec.rootHash spec.uki.sha256 spec.uki.sizeBytes
		status.conditions[].lastTransitionTime status.conditions[].message status.conditions[].observedGeneration
		status.conditions[].reason status.conditions[].status status.conditions[].type`)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("fields of an Image (-want +got):\n%s", diff)
	}
}
