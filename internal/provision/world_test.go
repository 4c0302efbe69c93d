// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/inventory"
)

// world is one machine with its BMC, one control plane and a mind over a real store, in fake time.
type world struct {
	t     *testing.T
	store *inventory.Store
	dir   string               // the store's
	mind  atomic.Pointer[Mind] // a restart replaces it under a running agent
	down  atomic.Bool          // between two minds nobody answers firmware
	rack  *rack
	plane *plane
	cap   int // of destructive acts an hour; none unless a test says so
	stop  func()
	// bmcs and control stand before rack and plane where a test sets them, before a start; acted hears what the agent does.
	bmcs    BMCs
	control Cluster
	acted   func(verb, what string)
	tune    func(*Mind) // changes a mind before it runs; nil leaves it as it is
}

const (
	testMAC  = "52:54:00:00:00:10"
	testUUID = "11111111-2222-3333-4444-555555555555"
	hex64    = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
)

// pollLeast is what the agent waits at least between two orders to wait: one whose epoch is over is answered at once.
const pollLeast = time.Second

// inWorld runs a test in fake time.
func inWorld(t *testing.T, play func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		store, err := inventory.Open(dir, inventory.Options{NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		w := &world{t: t, store: store, dir: dir, plane: newPlane(), cap: -1}
		w.rack = &rack{world: w, password: "right", pin: "aa" + hex64[2:], uuid: testUUID, ek: "ee" + hex64[2:]}
		w.start()
		defer func() {
			w.rack.mu.Lock()
			w.rack.on = false
			w.rack.mu.Unlock()
			w.stop()
			time.Sleep(time.Minute) // the agent's last poll
			w.unspoilt()
			if err := w.store.Close(); err != nil {
				t.Error(err)
			}
		}()
		play(w)
	})
}

// start begins a mind over the store, as after a restart of the daemon.
func (w *world) start() {
	if w.bmcs == nil {
		w.bmcs, w.control, w.acted = w.rack, w.plane, func(string, string) {}
	}
	mind := New(Config{
		Store: w.store, Images: blobs{}, BMCs: w.bmcs,
		Connect: func([]byte, string) (Cluster, error) { return w.control, nil },
		Limits:  Limits{Boot: 5 * time.Minute, Join: 10 * time.Minute, Poll: 30 * time.Second, DestructivePerHour: w.cap},
		Logger:  slog.New(slog.DiscardHandler), Now: time.Now,
	})
	if w.tune != nil {
		w.tune(mind)
	}
	w.mind.Store(mind)
	w.down.Store(false)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- mind.Run(ctx) }()
	w.stop = func() {
		w.down.Store(true)
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			w.t.Errorf("the mind ended: %v", err)
		}
	}
}

// enrol makes a host with its Secret, as import does.
func (w *world) enrol(change ...func(*metal3.BareMetalHost)) {
	w.t.Helper()
	ctx := context.Background()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "n1-bmc"},
		Data: map[string][]byte{"username": []byte("admin"), "password": []byte("right")}}
	if _, err := w.store.Secrets().Create(ctx, secret); err != nil {
		w.t.Fatal(err)
	}
	h := &metal3.BareMetalHost{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "n1", Labels: map[string]string{v1alpha1.ZoneLabel: "z1"}},
		Spec: metal3.BareMetalHostSpec{BootMACAddress: testMAC,
			BMC: metal3.BMCDetails{Address: "redfish://10.0.0.1/redfish/v1/Systems/1", CredentialsName: "n1-bmc"}}}
	for _, c := range change {
		c(h)
	}
	if _, err := w.store.Hosts().Create(ctx, h); err != nil {
		w.t.Fatal(err)
	}
}

// pool makes an image, a cluster and a pool that wants one host.
func (w *world) pool(change ...func(*v1alpha1.NodePool)) {
	w.t.Helper()
	ctx := context.Background()
	_, err := w.store.Images().Create(ctx, &v1alpha1.Image{ObjectMeta: metav1.ObjectMeta{Name: "node"}, Spec: v1alpha1.ImageSpec{
		Loader:       &v1alpha1.File{SHA256: "44" + hex64[2:], SizeBytes: 1},
		Architecture: "amd64", KubernetesVersion: "v1.36.3", RootHash: hex64, UKI: v1alpha1.File{SHA256: "11" + hex64[2:], SizeBytes: 1},
		Root: v1alpha1.RootFile{File: v1alpha1.File{SHA256: "22" + hex64[2:], SizeBytes: 1}, Format: "erofs"}}})
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err = w.store.Secrets().Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "kc"},
		Data: map[string][]byte{"kubeconfig": []byte("x")}}); err != nil {
		w.t.Fatal(err)
	}
	if _, err = w.store.Clusters().Create(ctx, &v1alpha1.KubernetesCluster{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "prod"},
		Spec: v1alpha1.KubernetesClusterSpec{KubeconfigSecret: "kc"}}); err != nil {
		w.t.Fatal(err)
	}
	p := &v1alpha1.NodePool{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "workers"},
		Spec: v1alpha1.NodePoolSpec{Replicas: 1, Method: "diskless", Image: "node", Cluster: "prod"}}
	for _, c := range change {
		c(p)
	}
	if _, err = w.store.Pools().Create(ctx, p); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) host() *metal3.BareMetalHost {
	w.t.Helper()
	h, err := w.store.Hosts().Get(context.Background(), "default", "n1")
	if err != nil {
		w.t.Fatal(err)
	}
	return h
}

func (w *world) progress() v1alpha1.HostProgressStatus {
	w.t.Helper()
	p, err := w.store.Progresses().Get(context.Background(), "default", "n1")
	if err != nil {
		w.t.Fatal(err)
	}
	return p.Status
}

// until waits in fake time until a host is as it should be.
func (w *world) until(what string, limit time.Duration, ok func(*metal3.BareMetalHost) bool) {
	w.t.Helper()
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(time.Second) {
		if ok(w.host()) {
			return
		}
	}
	p := w.progress()
	w.t.Fatalf("waiting for %s: still %q after %s, waits for %+v, last error %q", what, p.State, limit, p.Waiting, p.LastError)
}

func inState(s State) func(*metal3.BareMetalHost) bool {
	return func(h *metal3.BareMetalHost) bool { return h.Status.Provisioning.State == s }
}

func waitsFor(reason string, w *world) func(*metal3.BareMetalHost) bool {
	return func(*metal3.BareMetalHost) bool {
		p, err := w.store.Progresses().Get(context.Background(), "default", "n1")
		return err == nil && p.Status.Waiting != nil && p.Status.Waiting.Reason == reason
	}
}

// blobs is an image store that holds everything.
type blobs struct{}

func (blobs) Ramdisk(string) (v1alpha1.File, error) {
	return v1alpha1.File{SHA256: "33" + hex64[2:], SizeBytes: 1}, nil
}
func (blobs) Verify(v1alpha1.File) error { return nil }
