// SPDX-License-Identifier: Apache-2.0

package clients

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	metald1 "metald.io/metald/api/v1alpha1"
)

// The package api/v1alpha1 is all that a program of somebody else's needs to speak of metald's own kinds.
func TestSchemeOutsideTheTree(t *testing.T) {
	m := startMetald(t)
	s := scheme(t)
	c, err := client.NewWithWatch(m.client(t, m.login(t, "program", "metald:operators")), client.Options{Scheme: s})
	if err != nil {
		t.Fatal(err)
	}
	// Each kind of the package is served, in the scope that the client library finds out by discovery.
	for kind := range s.KnownTypes(metald1.GroupVersion) {
		object, err := s.New(metald1.GroupVersion.WithKind(kind))
		if err != nil {
			t.Fatal(err)
		}
		list, isList := object.(client.ObjectList)
		if !isList || !meta.IsListType(list) {
			continue // itself no list, or one of the options that every group has
		}
		if err := c.List(t.Context(), list); err != nil {
			t.Errorf("listing %s: %v", kind, err)
		}
	}

	pool := &metald1.NodePool{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "workers"},
		Spec: metald1.NodePoolSpec{Replicas: 2, Image: "node", Cluster: "prod",
			HostSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"rack": "a"}}},
	}
	if gvk, err := apiutil.GVKForObject(pool, s); err != nil || gvk.Kind != "NodePool" {
		t.Errorf("kind of a NodePool: got %v, err %v", gvk, err)
	}
	watcher, err := c.Watch(t.Context(), &metald1.NodePoolList{}, client.InNamespace("default"))
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Stop()
	want := pool.Spec.DeepCopy()
	want.Method, want.Cleaning = "diskless", "full" // by the schema's defaults
	if err := c.Create(t.Context(), pool); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(*want, pool.Spec); diff != "" {
		t.Errorf("the pool as stored (-want +got):\n%s", diff)
	}
	for event := range watcher.ResultChan() {
		if event.Type == watch.Added && event.Object.(*metald1.NodePool).UID == pool.UID {
			break
		}
	}

	applied := &metald1.NodePool{
		TypeMeta:   metav1.TypeMeta{APIVersion: metald1.GroupVersion.String(), Kind: "NodePool"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "workers"},
		Spec:       metald1.NodePoolSpec{Replicas: 3, Image: "node", Cluster: "prod"},
	}
	//lint:ignore SA1019 the package has plain types, and no generated apply configurations
	if err := c.Patch(t.Context(), applied, client.Apply, client.FieldOwner("gitops")); !apierrors.IsConflict(err) {
		t.Errorf("applying what another manager owns: got %v, want a conflict", err)
	}

	image := &metald1.Image{ObjectMeta: metav1.ObjectMeta{Name: "node"}, Spec: metald1.ImageSpec{Architecture: "riscv64"}}
	if err := c.Create(t.Context(), image); !apierrors.IsInvalid(err) {
		t.Errorf("an image of no known architecture: got %v, want it invalid", err)
	}
	if err := c.Delete(t.Context(), pool); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pool is gone", func() bool {
		return apierrors.IsNotFound(c.Get(t.Context(), client.ObjectKeyFromObject(pool), pool))
	})
}
