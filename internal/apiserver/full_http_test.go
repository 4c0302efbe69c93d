// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
)

const fullChild = "METALD_TEST_FULL_DISK"

// TestFullDiskOverHTTP runs in a process of its own, whose files may not be written to.
func TestFullDiskOverHTTP(t *testing.T) {
	if os.Getenv(fullChild) != "" {
		runFullDisk(t)
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFullDiskOverHTTP$", "-test.v")
	cmd.Env = append(os.Environ(), fullChild+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestFullDiskOverHTTP") {
		t.Errorf("%v: %s", err, out)
	}
}

// room says how far the files of this process may be written; -1 is as far as it likes.
func room(t *testing.T, bytes int64) {
	t.Helper()
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &l); err != nil {
		t.Fatal(err)
	}
	l.Cur = l.Max
	if bytes >= 0 {
		l.Cur = uint64(bytes)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &l); err != nil {
		t.Fatal(err)
	}
}

func runFullDisk(t *testing.T) {
	d := open(t)
	client := d.admin(t)
	makeNamespace(t, d, "full")
	kinds := map[string]struct {
		of   dynamic.ResourceInterface
		make func(name string) *unstructured.Unstructured
	}{
		"compiled in": {client.Resource(configMaps).Namespace("full"), func(name string) *unstructured.Unstructured {
			return object(t, "{apiVersion: v1, kind: ConfigMap, metadata: {name: "+name+"}}")
		}},
		"custom": {client.Resource(hosts).Namespace("full"), func(name string) *unstructured.Unstructured {
			return hostNamed(t, "full", name)
		}},
	}
	was := map[string]*unstructured.Unstructured{}
	for title, kind := range kinds {
		made, err := kind.of.Create(t.Context(), kind.make("a"), metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		was[title] = made
	}

	room(t, 1)
	for title, kind := range kinds {
		changed := was[title].DeepCopy()
		changed.SetLabels(map[string]string{"changed": "true"})
		patch := []byte(`{"metadata":{"labels":{"changed":"true"}}}`)
		for verb, err := range map[string]error{
			"create": second(kind.of.Create(t.Context(), kind.make("b"), metav1.CreateOptions{})),
			"update": second(kind.of.Update(t.Context(), changed, metav1.UpdateOptions{})),
			"patch":  second(kind.of.Patch(t.Context(), "a", types.MergePatchType, patch, metav1.PatchOptions{})),
			"apply":  second(kind.of.Apply(t.Context(), "b", kind.make("b"), metav1.ApplyOptions{FieldManager: "test"})),
			"delete": kind.of.Delete(t.Context(), "a", metav1.DeleteOptions{}),
			"delete all": kind.of.DeleteCollection(t.Context(), metav1.DeleteOptions{},
				metav1.ListOptions{FieldSelector: "metadata.name=a"}),
		} {
			var status apierrors.APIStatus
			if !errors.As(err, &status) {
				t.Errorf("%s, %s: got %v, want a refusal", title, verb, err)
				continue
			}
			if s := status.Status(); s.Code != 507 || s.Reason != "InsufficientStorage" || !strings.Contains(s.Message, "make room") {
				t.Errorf("%s, %s: got %d %s %q, want 507 InsufficientStorage and what to do", title, verb, s.Code, s.Reason, s.Message)
			}
		}
		if _, err := kind.of.Create(t.Context(), kind.make("b"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}); err != nil {
			t.Errorf("%s, trying a create: got %v, want it tried: it writes nothing", title, err)
		}
		is, err := kind.of.Get(t.Context(), "a", metav1.GetOptions{})
		if err != nil || is.GetResourceVersion() != was[title].GetResourceVersion() || len(is.GetLabels()) != 0 {
			t.Errorf("%s, read without room: got %v, %v; want it as it was", title, is, err)
		}
		list, err := kind.of.List(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name!=kube-root-ca.crt"})
		if err != nil || len(list.Items) != 1 {
			t.Errorf("%s, listed without room: got %v, %v; want one", title, list, err)
		}
	}

	room(t, -1)
	for title, kind := range kinds {
		watch, err := kind.of.Watch(t.Context(), metav1.ListOptions{ResourceVersion: was[title].GetResourceVersion()})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := kind.of.Create(t.Context(), kind.make("b"), metav1.CreateOptions{}); err != nil {
			t.Errorf("%s, created with room again: %v", title, err)
		}
		if event := <-watch.ResultChan(); event.Type != "ADDED" {
			t.Errorf("%s, watched since before: got %s first, want what was created, and nothing that was refused", title, event.Type)
		}
		watch.Stop()
		if err := kind.of.Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
			t.Errorf("%s, deleted with room again: %v", title, err)
		}
	}
	// What works behind the door goes on as well.
	if err := client.Resource(namespaces).Delete(t.Context(), "full", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the namespace is emptied", func() bool {
		_, err := client.Resource(namespaces).Get(context.Background(), "full", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
}

func second[T any](_ T, err error) error { return err }
