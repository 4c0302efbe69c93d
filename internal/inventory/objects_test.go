// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/storage/value"

	"metald.io/metald/api/v1alpha1"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(keptIn(dir, Options{NoSync: true, Now: func() time.Time { return start }}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func host(name string) *metal3.BareMetalHost {
	h := &metal3.BareMetalHost{}
	h.Namespace, h.Name = "default", name
	h.Spec.BootMACAddress = "52:54:00:00:00:01"
	h.Spec.Online = true
	return h
}

func create[T Object](t *testing.T, o *Objects[T], obj T) T {
	t.Helper()
	made, err := o.Create(context.Background(), obj)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// raw reads what is stored under a key.
func raw(t *testing.T, s *Store, key string) string {
	t.Helper()
	resp, err := s.Etcd().Get(context.Background(), key)
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Kvs) == 0 {
		t.Fatalf("nothing is stored under %s", key)
	}
	return string(resp.Kvs[0].Value)
}

func TestCreate(t *testing.T) {
	s := open(t, t.TempDir())
	given := host("a")
	made := create(t, s.Hosts(), given)
	if given.UID != "" {
		t.Error("Create changed the object it was given")
	}
	if made.UID == "" || made.ResourceVersion == "" {
		t.Errorf("uid %q, resourceVersion %q: want both set", made.UID, made.ResourceVersion)
	}
	if got := made.Generation; got != 1 {
		t.Errorf("generation: got %d, want 1", got)
	}
	if got := made.CreationTimestamp.Time; !got.Equal(start) {
		t.Errorf("creationTimestamp: got %v, want %v", got, start)
	}
	text := raw(t, s, "/registry/metal3.io/baremetalhosts/default/a")
	if !strings.HasPrefix(text, `{"apiVersion":"metal3.io/v1alpha1","kind":"BareMetalHost","metadata":{"creationTimestamp":"2026-03-01T12:00:00Z",`) || !strings.HasSuffix(text, "}\n") {
		t.Errorf("stored JSON is not canonical: %s", text)
	}
	if strings.Contains(text, "null") || strings.Contains(text, "resourceVersion") {
		t.Errorf("stored JSON holds what it must not: %s", text)
	}
	got, err := s.Hosts().Get(context.Background(), "default", "a")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(made, got); diff != "" {
		t.Errorf("read back (-created +read):\n%s", diff)
	}
	wantFields := `{"f:spec":{"f:bootMACAddress":{},"f:online":{}}}`
	if m := got.ManagedFields; len(m) != 1 || m[0].Manager != "metald" || m[0].Operation != "Update" || !contains(t, m[0].FieldsV1.GetRawBytes(), wantFields) {
		t.Errorf("managedFields: got %+v, want metald to own at least %s", m, wantFields)
	}
	if _, err := s.Hosts().Create(context.Background(), host("a")); !apierrors.IsAlreadyExists(err) {
		t.Errorf("creating it again: got %v, want AlreadyExists", err)
	}
}

// contains tells whether every key of want is in got.
func contains(t *testing.T, got []byte, want string) bool {
	t.Helper()
	var g, w map[string]any
	if err := errors.Join(json.Unmarshal(got, &g), json.Unmarshal([]byte(want), &w)); err != nil {
		t.Fatal(err)
	}
	var in func(g, w map[string]any) bool
	in = func(g, w map[string]any) bool {
		for key, value := range w {
			inner, ok := g[key].(map[string]any)
			if !ok || !in(inner, value.(map[string]any)) {
				return false
			}
		}
		return true
	}
	return in(g, w)
}

func TestKeysAndNames(t *testing.T) {
	s := open(t, t.TempDir())
	ctx := context.Background()
	meta := func(ns, name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: ns, Name: name} }
	create(t, s.Secrets(), &corev1.Secret{ObjectMeta: meta("default", "x"), StringData: map[string]string{"password": "p"}})
	create(t, s.Namespaces(), &corev1.Namespace{ObjectMeta: meta("", "default")})
	create(t, s.Images(), &v1alpha1.Image{ObjectMeta: meta("", "i")})
	create(t, s.Progresses(), &v1alpha1.HostProgress{ObjectMeta: meta("default", "p")})
	create(t, s.Inventories(), &v1alpha1.HostInventory{ObjectMeta: meta("default", "p")})
	create(t, s.HardwareData(), &metal3.HardwareData{ObjectMeta: meta("default", "p")})
	create(t, s.Sightings(), &v1alpha1.Sighting{ObjectMeta: meta("", "s")})
	create(t, s.Clusters(), &v1alpha1.KubernetesCluster{ObjectMeta: meta("default", "c")})
	create(t, s.Pools(), &v1alpha1.NodePool{ObjectMeta: meta("default", "n")})
	event := create(t, s.Events(), &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "default", GenerateName: "e-"}})
	if !strings.HasPrefix(event.Name, "e-") || len(event.Name) == len("e-") {
		t.Errorf("generated name: got %q", event.Name)
	}
	resp, err := s.Etcd().Get(ctx, "/registry/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, kv := range resp.Kvs {
		got = append(got, string(kv.Key))
	}
	want := []string{
		"/registry/core/events/default/" + event.Name,
		"/registry/core/namespaces/default",
		"/registry/core/secrets/default/x",
		"/registry/metal3.io/hardwaredata/default/p",
		"/registry/metald.io/hostinventories/default/p",
		"/registry/metald.io/hostprogresses/default/p",
		"/registry/metald.io/images/i",
		"/registry/metald.io/kubernetesclusters/default/c",
		"/registry/metald.io/nodepools/default/n",
		"/registry/metald.io/sightings/s",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
	const key = "/registry/core/secrets/default/x"
	plain, _, err := s.Transformer(schema.GroupResource{Resource: "secrets"}).TransformFromStorage(ctx, []byte(raw(t, s, key)), value.DefaultContext(key))
	if err != nil {
		t.Fatal(err)
	}
	text := string(plain)
	if !strings.HasPrefix(text, `{"kind":"Secret","apiVersion":"v1","metadata":{`) || !strings.Contains(text, `"data":{"password":"cA=="}`) || strings.Contains(text, "stringData") {
		t.Errorf("stored Secret: %s", text)
	}

	for _, tt := range []struct{ ns, name string }{{"", "a"}, {"default", ""}, {"default", "a/b"}, {"default", ".."}, {"a/b", "c"}} {
		if _, err := s.Hosts().Get(ctx, tt.ns, tt.name); !apierrors.IsBadRequest(err) {
			t.Errorf("Get(%q, %q): got %v, want BadRequest", tt.ns, tt.name, err)
		}
	}
	if _, err := s.Images().Get(ctx, "default", "i"); !apierrors.IsBadRequest(err) {
		t.Errorf("a namespace for a cluster-scoped kind: got %v, want BadRequest", err)
	}
	if _, err := s.Hosts().Get(ctx, "default", "none"); !apierrors.IsNotFound(err) {
		t.Errorf("what is not there: got %v, want NotFound", err)
	}
}

func TestUpdate(t *testing.T) {
	s := open(t, t.TempDir())
	ctx := context.Background()
	made := create(t, s.Hosts(), host("a"))
	bad := errors.New("bad")
	for _, tt := range []struct {
		name       string
		change     func(*metal3.BareMetalHost) error
		written    bool
		generation int64
		err        error
	}{
		{"nothing", func(*metal3.BareMetalHost) error { return nil }, false, 1, nil},
		{"the same again", func(h *metal3.BareMetalHost) error { h.Spec.Online = true; return nil }, false, 1, nil},
		{"status", func(h *metal3.BareMetalHost) error { h.Status.ErrorMessage = "x"; return nil }, true, 1, nil},
		{"metadata", func(h *metal3.BareMetalHost) error { h.Labels = map[string]string{"a": "b"}; return nil }, true, 1, nil},
		{"spec", func(h *metal3.BareMetalHost) error { h.Spec.Online = false; return nil }, true, 2, nil},
		{"refused", func(h *metal3.BareMetalHost) error { h.Spec.Online = true; return bad }, false, 2, bad},
		{"what is not its to change", func(h *metal3.BareMetalHost) error {
			h.UID, h.Name, h.Generation, h.ResourceVersion = "u", "b", 77, "99999"
			h.CreationTimestamp = metav1.NewTime(start.Add(time.Hour))
			return nil
		}, false, 2, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before, err := s.Hosts().Get(ctx, "default", "a")
			if err != nil {
				t.Fatal(err)
			}
			_, err = s.Hosts().Update(ctx, "default", "a", tt.change)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error: got %v, want %v", err, tt.err)
			}
			after, err := s.Hosts().Get(ctx, "default", "a")
			if err != nil {
				t.Fatal(err)
			}
			if got := after.ResourceVersion != before.ResourceVersion; got != tt.written {
				t.Errorf("written: got %v, want %v", got, tt.written)
			}
			if after.Generation != tt.generation {
				t.Errorf("generation: got %d, want %d", after.Generation, tt.generation)
			}
			if after.UID != made.UID || !after.CreationTimestamp.Equal(&made.CreationTimestamp) {
				t.Errorf("identity changed: %+v", after.ObjectMeta)
			}
		})
	}
}

func TestUpdateKeepsUnknownFields(t *testing.T) {
	s := open(t, t.TempDir())
	ctx := context.Background()
	key := "/registry/metald.io/nodepools/default/n"
	stored := `{"apiVersion":"metald.io/v1alpha1","kind":"NodePool","metadata":{"name":"n","namespace":"default","uid":"u","generation":1},` +
		`"spec":{"replicas":1,"image":"i","cluster":"c","labels":{"a":"b"},"later":{"x":1},"taints":[{"key":"k","effect":"NoExecute","more":true}]},"status":{"later":12345678901234567}}` + "\n"
	if _, err := s.Etcd().Put(ctx, key, stored); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Pools().Update(ctx, "default", "n", func(*v1alpha1.NodePool) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if got := raw(t, s, key); got != stored {
		t.Errorf("an update without a change wrote:\n%s", got)
	}
	_, err := s.Pools().Update(ctx, "default", "n", func(p *v1alpha1.NodePool) error {
		p.Status.Ready = 3
		p.Spec.Labels = nil
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	got := raw(t, s, key)
	for _, want := range []string{`"later":{"x":1}`, `"more":true`, `"later":12345678901234567`, `"ready":3`, `"generation":2`} {
		if !strings.Contains(got, want) {
			t.Errorf("want %s in %s", want, got)
		}
	}
	if strings.Contains(got, `"labels"`) {
		t.Errorf("labels were taken away, still there: %s", got)
	}
}

func TestConcurrentUpdatesLoseNothing(t *testing.T) {
	s := open(t, t.TempDir())
	ctx := context.Background()
	create(t, s.Pools(), &v1alpha1.NodePool{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "n"}})
	const writers, times = 8, 20
	errs := make(chan error, writers)
	for range writers {
		go func() {
			var err error
			for range times {
				_, e := s.Pools().Update(ctx, "default", "n", func(p *v1alpha1.NodePool) error { p.Status.Ready++; return nil })
				err = errors.Join(err, e)
			}
			errs <- err
		}()
	}
	for range writers {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Pools().Get(ctx, "default", "n")
	if err != nil {
		t.Fatal(err)
	}
	if want := int32(writers * times); got.Status.Ready != want {
		t.Errorf("counted to %d, want %d", got.Status.Ready, want)
	}
}

func TestDelete(t *testing.T) {
	s := open(t, t.TempDir())
	ctx := context.Background()
	create(t, s.Hosts(), host("plain"))
	held := host("held")
	held.Finalizers = []string{v1alpha1.HostFinalizer}
	create(t, s.Hosts(), held)
	if err := s.Hosts().Delete(ctx, "default", "plain"); err != nil {
		t.Fatal(err)
	}
	if err := s.Hosts().Delete(ctx, "default", "plain"); !apierrors.IsNotFound(err) {
		t.Errorf("deleting it again: got %v, want NotFound", err)
	}
	for range 2 { // the second changes nothing
		if err := s.Hosts().Delete(ctx, "default", "held"); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Hosts().Get(ctx, "default", "held")
	if err != nil {
		t.Fatal(err)
	}
	if got.DeletionTimestamp == nil || !got.DeletionTimestamp.Time.Equal(start) || got.Generation != 2 {
		t.Errorf("deletionTimestamp %v, generation %d: want %v, 2", got.DeletionTimestamp, got.Generation, start)
	}
	last, err := s.Hosts().Update(ctx, "default", "held", func(h *metal3.BareMetalHost) error { h.Finalizers = nil; return nil })
	if err != nil || last.Name != "held" {
		t.Fatalf("taking the last finalizer: got %v, %v", last, err)
	}
	if _, err := s.Hosts().Get(ctx, "default", "held"); !apierrors.IsNotFound(err) {
		t.Errorf("after the last finalizer: got %v, want NotFound", err)
	}
}

func TestFieldOwners(t *testing.T) {
	s := open(t, t.TempDir())
	ctx := context.Background()
	create(t, s.Hosts(), host("a"))
	_, err := s.Hosts().Update(As(ctx, v1alpha1.PoolFieldManager), "default", "a", func(h *metal3.BareMetalHost) error {
		h.Spec.Online = false
		h.Spec.CustomDeploy = &metal3.CustomDeploy{Method: v1alpha1.DisklessMethod}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	h, err := s.Hosts().Get(ctx, "default", "a")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, m := range h.ManagedFields {
		got[m.Manager] = string(m.FieldsV1.GetRawBytes())
	}
	if want := `{"f:spec":{"f:customDeploy":{"f:method":{}},"f:online":{}}}`; got[v1alpha1.PoolFieldManager] != want {
		t.Errorf("the pool's fields: got %s, want %s", got[v1alpha1.PoolFieldManager], want)
	}
	if strings.Contains(got["metald"], "f:online") || !strings.Contains(got["metald"], "f:bootMACAddress") {
		t.Errorf("metald's fields: got %s, want them without online", got["metald"])
	}
}

func TestListIsOfANamespaceOrAll(t *testing.T) {
	s := open(t, t.TempDir())
	ctx := context.Background()
	for _, ns := range []string{"a", "ab", "b"} {
		for i := range 2 {
			h := host(fmt.Sprint("h", i))
			h.Namespace = ns
			create(t, s.Hosts(), h)
		}
	}
	for ns, want := range map[string][]string{
		"":  {"a/h0", "a/h1", "ab/h0", "ab/h1", "b/h0", "b/h1"},
		"a": {"a/h0", "a/h1"},
		"x": nil,
	} {
		list, err := s.Hosts().List(ctx, ns)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, h := range list {
			got = append(got, nameOf(h).String())
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("List(%q) (-want +got):\n%s", ns, diff)
		}
	}
}
