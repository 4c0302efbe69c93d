// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestNamespaces(t *testing.T) {
	d, namespace := sharedDoor(t)
	client := d.admin(t)
	all := client.Resource(namespaces)

	t.Run("kept ones are there and stay", func(t *testing.T) {
		for _, name := range []string{"default", "kube-system", "metald"} {
			if _, err := all.Get(t.Context(), name, metav1.GetOptions{}); err != nil {
				t.Errorf("reading %s: %v", name, err)
			}
			if err := all.Delete(t.Context(), name, metav1.DeleteOptions{}); !apierrors.IsForbidden(err) {
				t.Errorf("deleting %s: got %v, want Forbidden", name, err)
			}
		}
		if err := all.DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); !apierrors.IsMethodNotSupported(err) {
			t.Errorf("deleting all: got %v, want MethodNotAllowed", err)
		}
	})
	t.Run("a missing one takes nothing", func(t *testing.T) {
		_, err := client.Resource(hosts).Namespace("missing").Create(t.Context(), hostNamed(t, "missing", "n1"), metav1.CreateOptions{})
		if !apierrors.IsNotFound(err) || !strings.Contains(err.Error(), `namespaces "missing" not found`) {
			t.Errorf("creating a host: got %v, want the namespace NotFound", err)
		}
		config := object(t, `{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}`)
		_, err = client.Resource(configMaps).Namespace("missing").Create(t.Context(), config, metav1.CreateOptions{})
		if !apierrors.IsNotFound(err) || !strings.Contains(err.Error(), `namespaces "missing" not found`) {
			t.Errorf("creating a ConfigMap: got %v, want the namespace NotFound", err)
		}
	})
	t.Run("one that is being deleted takes nothing", func(t *testing.T) {
		name := namespace + "-held"
		held := object(t, `{apiVersion: v1, kind: Namespace, metadata: {name: `+name+`, finalizers: [example.org/hold]}}`)
		if _, err := all.Create(t.Context(), held, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := all.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		_, err := client.Resource(hosts).Namespace(name).Create(t.Context(), hostNamed(t, name, "n1"), metav1.CreateOptions{})
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "is being deleted") {
			t.Errorf("got %v, want Forbidden because it is being deleted", err)
		}
		if !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			t.Errorf("got %#v, want the cause that controllers look for", err)
		}
	})
}
