// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-logr/logr"
	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"metald.io/metald/internal/inventory"
)

// served starts a whole daemon and returns an administrator's client of its API.
func served(t *testing.T) dynamic.Interface {
	t.Helper()
	klog.SetLogger(logr.Discard()) // the library logs each start of a server in a hundred lines
	dir := t.TempDir()
	store, err := inventory.Open(dir, inventory.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	var sockets Sockets
	if sockets.API, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if sockets.Admin, err = listenAdmin(filepath.Join(dir, "metald.sock")); err != nil {
		t.Fatal(err)
	}
	config := DefaultConfig()
	config.API.Listen = sockets.API.Addr().String()
	d, err := New(Options{Config: config, DataDir: dir, Logger: slog.New(slog.DiscardHandler)}, store, sockets)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the daemon ended: %v", err)
		}
	})
	select {
	case <-d.API.Ready():
	case err := <-ended:
		ended <- err
		t.Fatalf("the daemon ended before it was ready: %v", err)
	case <-time.After(time.Minute):
		t.Fatal("the daemon was not ready within a minute")
	}
	rest, err := clientcmd.BuildConfigFromFlags("", AdminKubeconfig(dir))
	if err != nil {
		t.Fatal(err)
	}
	client, err := dynamic.NewForConfig(rest)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// TestHostWithDeadBMCIsForgotten deletes a host through the API whose BMC is not there.
func TestHostWithDeadBMCIsForgotten(t *testing.T) {
	forget(t, served(t), "127.0.0.1:1", func(is *unstructured.Unstructured) bool {
		text, _, _ := unstructured.NestedString(is.Object, "status", "errorMessage")
		return text != ""
	})
}

// forget makes a host, waits until the mind has met its BMC, deletes it and waits until it is gone.
func forget(t *testing.T, client dynamic.Interface, address string, met func(is *unstructured.Unstructured) bool) {
	t.Helper()
	secret := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": "bmc"},
		"stringData": map[string]any{"username": "admin", "password": "secret"}}}
	if _, err := client.Resource(corev1.SchemeGroupVersion.WithResource("secrets")).Namespace("default").Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	hosts := client.Resource(metal3.GroupVersion.WithResource("baremetalhosts")).Namespace("default")
	host := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "metal3.io/v1alpha1", "kind": "BareMetalHost", "metadata": map[string]any{"name": "n1"},
		"spec": map[string]any{"online": true, "bootMACAddress": "52:54:00:00:00:01",
			"bmc": map[string]any{"address": "redfish+https://" + address + "/redfish/v1/Systems/1", "credentialsName": "bmc"}},
	}}
	if _, err := hosts.Create(t.Context(), host, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	until := func(what string, ok func(is *unstructured.Unstructured, err error) bool) {
		t.Helper()
		for end := time.Now().Add(2 * time.Minute); ; {
			is, err := hosts.Get(t.Context(), "n1", metav1.GetOptions{})
			if ok(is, err) {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%s: not within two minutes: %v, %v", what, is, err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	until("the mind holds it by its finalizer, and has met its BMC", func(is *unstructured.Unstructured, err error) bool {
		return err == nil && len(is.GetFinalizers()) == 1 && met(is)
	})
	if err := hosts.Delete(t.Context(), "n1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	until("it is forgotten", func(_ *unstructured.Unstructured, err error) bool { return apierrors.IsNotFound(err) })
}
