// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"
)

// TestWatchList asks for a list by watch, as informers do by themselves: a server that ignored the question would leave
// them waiting for ever.
func TestWatchList(t *testing.T) {
	d, namespace := sharedDoor(t)
	client := d.admin(t)
	for _, name := range []string{"a", "b"} {
		if _, err := client.Resource(hosts).Namespace(namespace).Create(t.Context(), hostNamed(t, namespace, name), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		secret := object(t, "{apiVersion: v1, kind: Secret, metadata: {name: "+name+"}}")
		if _, err := client.Resource(secrets).Namespace(namespace).Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	yes := true
	for _, resource := range []schema.GroupVersionResource{hosts, secrets} {
		t.Run(resource.Resource, func(t *testing.T) {
			w, err := client.Resource(resource).Namespace(namespace).Watch(t.Context(), metav1.ListOptions{
				SendInitialEvents: &yes, AllowWatchBookmarks: true, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Stop()
			var got []string
			for {
				select {
				case event := <-w.ResultChan():
					o, ok := event.Object.(*unstructured.Unstructured)
					if !ok {
						t.Fatalf("got %s with a %T", event.Type, event.Object)
					}
					if event.Type == watch.Bookmark {
						if o.GetAnnotations()[metav1.InitialEventsAnnotationKey] != "true" {
							continue
						}
						if diff := cmp.Diff([]string{"ADDED a", "ADDED b"}, got); diff != "" {
							t.Errorf("initial events (-want +got):\n%s", diff)
						}
						return
					}
					got = append(got, string(event.Type)+" "+o.GetName())
				case <-time.After(20 * time.Second):
					t.Fatalf("no end of the initial events within 20 s; got %v", got)
				}
			}
		})
	}
}

// TestBothWaysMeet writes through the inventory and reads through the door, and the other way round: an informer sees
// all, and a write of what is there already changes nothing.
func TestBothWaysMeet(t *testing.T) {
	d, namespace := sharedDoor(t)
	client := d.admin(t)
	factory := dynamicinformer.NewFilteredDynamicSharedInformerFactory(client, 0, namespace, nil)
	informer := factory.ForResource(hosts).Informer()
	seen := make(chan string, 100)
	tell := func(what string) func(any) {
		return func(o any) {
			if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = gone.Obj
			}
			host := o.(*unstructured.Unstructured)
			state, _, _ := unstructured.NestedString(host.Object, "status", "provisioning", "state")
			seen <- what + " " + host.GetName() + " " + state
		}
	}
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: tell("added"), UpdateFunc: func(_, o any) { tell("changed")(o) }, DeleteFunc: tell("gone"),
	}); err != nil {
		t.Fatal(err)
	}
	factory.Start(t.Context().Done())
	if !cache.WaitForCacheSync(t.Context().Done(), informer.HasSynced) {
		t.Fatal("the informer did not sync")
	}
	expect := func(want string) {
		t.Helper()
		select {
		case got := <-seen:
			if got != want {
				t.Errorf("the informer saw %q, want %q", got, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("the informer did not see %q within 20 s", want)
		}
	}

	made, err := d.store.Hosts().Create(t.Context(), &metal3.BareMetalHost{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "n1"},
		Spec: metal3.BareMetalHostSpec{
			// The direct way sets no defaults of the schema, so what is created by it says them.
			Online: true, BootMACAddress: "52:54:00:00:00:01", AutomatedCleaningMode: metal3.CleaningModeMetadata,
			BMC: metal3.BMCDetails{Address: "redfish://192.0.2.1", CredentialsName: "bmc"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	expect("added n1 ")
	if _, err := d.store.Hosts().Update(t.Context(), namespace, "n1", func(host *metal3.BareMetalHost) error {
		host.Status.Provisioning.State = metal3.StateInspecting
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	expect("changed n1 inspecting")

	n := client.Resource(hosts).Namespace(namespace)
	read, err := n.Get(t.Context(), "n1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if read.GetUID() != made.UID || read.GetGeneration() != 1 || read.GetAPIVersion() != "metal3.io/v1alpha1" {
		t.Errorf("read through the door: uid %s, generation %d, %s; want uid %s, 1, metal3.io/v1alpha1",
			read.GetUID(), read.GetGeneration(), read.GetAPIVersion(), made.UID)
	}
	for name, write := range map[string]func() (*unstructured.Unstructured, error){
		"update": func() (*unstructured.Unstructured, error) { return n.Update(t.Context(), read, metav1.UpdateOptions{}) },
		"status": func() (*unstructured.Unstructured, error) {
			return n.UpdateStatus(t.Context(), read, metav1.UpdateOptions{})
		},
	} {
		same, err := write()
		if err != nil {
			t.Errorf("%s with what is there: %v", name, err)
			continue
		}
		if same.GetResourceVersion() != read.GetResourceVersion() {
			t.Errorf("%s with what is there raised the version from %s to %s", name, read.GetResourceVersion(), same.GetResourceVersion())
		}
	}

	if _, err := n.Create(t.Context(), hostNamed(t, namespace, "n2"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	expect("added n2 ")
	host, err := d.store.Hosts().Get(t.Context(), namespace, "n2")
	if err != nil || host.Spec.BMC.Address != "redfish://192.0.2.1" {
		t.Errorf("read through the inventory: got %v, %v; want the host of the door", host, err)
	}
	if err := d.store.Hosts().Delete(t.Context(), namespace, "n2"); err != nil {
		t.Fatal(err)
	}
	expect("gone n2 ")
	if _, err := n.Get(t.Context(), "n2", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("after a delete through the inventory: got %v, want NotFound", err)
	}

	secret, err := d.store.Secrets().Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "bmc"}, Type: corev1.SecretTypeOpaque, Data: map[string][]byte{"z": []byte("1"), "a": []byte("2")},
	})
	if err != nil {
		t.Fatal(err)
	}
	s := client.Resource(secrets).Namespace(namespace)
	got, err := s.Get(t.Context(), "bmc", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	same, err := s.Update(t.Context(), got, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if same.GetResourceVersion() != secret.ResourceVersion {
		t.Errorf("a Secret written with what is there: version %s became %s", secret.ResourceVersion, same.GetResourceVersion())
	}
}
