// SPDX-License-Identifier: Apache-2.0

//go:build long

package apiserver_test

import (
	"fmt"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"

	"metald.io/metald/internal/inventory"
	"metald.io/metald/internal/inventory/etcd/etcdtest"
)

// With METALD_STORE=etcd the doors of this package's tests stand before an etcd, each data directory under a prefix of its own.
func init() {
	if os.Getenv("METALD_STORE") != "etcd" {
		return
	}
	launch := sync.OnceValue(func() *etcdtest.Server {
		dir, err := os.MkdirTemp("", "metald-etcd")
		if err != nil {
			panic(err)
		}
		s, err := etcdtest.Launch(dir)
		if err != nil {
			panic(err)
		}
		atEnd = append(atEnd, s.End, func() { os.RemoveAll(dir) })
		return s
	})
	storeOptions = func(dir string) inventory.Options { return onEtcd(launch(), dir) }
}

func onEtcd(s *etcdtest.Server, dir string) inventory.Options {
	return inventory.Options{Etcd: inventory.EtcdConfig{Endpoints: []string{s.Endpoint}, Prefix: dir}}
}

// A door before a real etcd: what is written is seen; while etcd is away writers are told to try again, and nobody has to do
// anything when it comes back; a new daemon finds everything as it was.
func TestDoorOnEtcd(t *testing.T) {
	server := etcdtest.Start(t)
	dir := t.TempDir()
	openStore := func() *inventory.Store {
		t.Helper()
		store, err := inventory.Open(dir, onEtcd(server, dir))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { store.Close() })
		return store
	}
	store := openStore()
	d := start(t, store)
	t.Cleanup(func() { _ = d.stop() }) // else it is stopped below, where its error counts
	client := d.admin(t)

	seen := make(chan string, 1000)
	informer := dynamicinformer.NewDynamicSharedInformerFactory(client, 0).ForResource(hosts).Informer()
	tell := func(o any) {
		h := o.(*unstructured.Unstructured)
		seen <- fmt.Sprint(h.GetName(), " ", h.GetLabels()["turn"])
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: tell, UpdateFunc: func(_, o any) { tell(o) }})
	if err != nil {
		t.Fatal(err)
	}
	go informer.Run(t.Context().Done())
	want := func(text string) {
		t.Helper()
		for end := time.After(40 * time.Second); ; {
			select {
			case got := <-seen:
				if got == text {
					return
				}
			case <-end:
				t.Fatalf("the informer did not see %q", text)
			}
		}
	}
	made, err := client.Resource(hosts).Namespace("default").Create(t.Context(), hostNamed(t, "default", "a"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want("a ")
	turn := func(n int) error {
		patch := fmt.Sprintf(`{"metadata":{"labels":{"turn":"%d"}}}`, n)
		_, err := client.Resource(hosts).Namespace("default").Patch(t.Context(), "a", "application/merge-patch+json", []byte(patch), metav1.PatchOptions{})
		return err
	}
	for n := range 3 {
		if err := turn(n); err != nil {
			t.Fatal(err)
		}
		want(fmt.Sprint("a ", n))
		server.Kill(t)
		if n == 0 { // one of them is long enough for an answer
			// client-go obeys Retry-After, so this asks once.
			err := d.once(t).Delete(t.Context(), "a", metav1.DeleteOptions{})
			if !apierrors.IsServiceUnavailable(err) {
				t.Errorf("while etcd is away: %v, want ServiceUnavailable", err)
			}
			if after, ok := apierrors.SuggestsClientDelay(err); !ok || after < 1 {
				t.Errorf("the answer does not say when to ask again: %v", err)
			}
		}
		server.Run(t)
	}
	if err := turn(99); err != nil {
		t.Fatalf("after etcd came back: %v", err)
	}
	want("a 99")
	if err := d.stop(); err != nil {
		t.Errorf("ending the server: %v", err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}

	again := start(t, openStore())
	t.Cleanup(func() {
		if err := again.stop(); err != nil {
			t.Errorf("ending the second server: %v", err)
		}
	})
	got, err := again.admin(t).Resource(hosts).Namespace("default").Get(t.Context(), "a", metav1.GetOptions{})
	if err != nil || got.GetUID() != made.GetUID() || got.GetLabels()["turn"] != "99" {
		t.Errorf("after a restart: %v, %v; want the host that was made", got, err)
	}
}

// once asks for hosts and does not ask again.
func (d *door) once(t *testing.T) dynamic.ResourceInterface {
	t.Helper()
	config := d.client(t, "admin", "system:masters")
	config.WrapTransport = func(next http.RoundTripper) http.RoundTripper {
		return roundTrip(func(r *http.Request) (*http.Response, error) {
			resp, err := next.RoundTrip(r)
			if err == nil {
				resp.Header.Del("Retry-After") // what the client would obey; the body says it too
			}
			return resp, err
		})
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client.Resource(hosts).Namespace("default")
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
