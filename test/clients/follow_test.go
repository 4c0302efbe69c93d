// SPDX-License-Identifier: Apache-2.0

package clients

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	crcache "sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	metald1 "metald.io/metald/api/v1alpha1"
)

// The changes: hosts are followed by a controller-runtime manager, ConfigMaps by a client-go informer.
const (
	hostCount, hostChanges = 100, 50
	mapCount, mapChanges   = 500, 10
	writers                = 8
)

func scheme(t *testing.T) *runtime.Scheme {
	t.Helper()
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, metal3.AddToScheme, metald1.AddToScheme} {
		if err := add(s); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// Half of the changes come while the daemon runs: each must be told, one by one. It is killed amid the other half: then a
// client lists anew, so that what happened meanwhile may be told as one, but nothing may be missing, and nothing go back.
func TestFollowersLoseNothing(t *testing.T) {
	m := startMetald(t)
	config := m.client(t, m.login(t, "follower", "metald:admins"))
	writer, err := client.New(config, client.Options{Scheme: scheme(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := writer.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "follow"}}); err != nil {
		t.Fatal(err)
	}
	hostsTold, hostsReconciled := startManager(t, m)
	mapsTold := startInformer(t, m)

	var acknowledged ledger
	half := func(from, to float64) <-chan struct{} {
		return write(t, writer, &acknowledged, from, to)
	}
	settled := func() {
		t.Helper()
		hosts, maps := split(acknowledged.copy())
		for end := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
			lacks := append(append(hostsTold.lacks(hosts), mapsTold.lacks(maps)...), hostsReconciled.lacks(hosts)...)
			if len(lacks) == 0 {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%d objects are not as acknowledged after 2 minutes, the first: %s", len(lacks), lacks[0])
			}
		}
	}

	<-half(0, 0.5)
	settled()
	for name, s := range map[string]*seen{"manager's cache": hostsTold, "informer": mapsTold} {
		if skipped := s.skipped(); len(skipped) > 0 {
			t.Errorf("the %s was not told every change of %d objects though the daemon ran: %v", name, len(skipped), skipped)
		}
	}

	before := acknowledged.count()
	done := half(0.5, 1)
	for acknowledged.count() < before+before/2 {
		time.Sleep(5 * time.Millisecond)
	}
	if err := m.stop(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	atKill := acknowledged.copy()
	m.start(t)
	keeps(t, writer, atKill)
	<-done
	settled()
	if got, want := acknowledged.count(), hostCount*hostChanges+mapCount*mapChanges; got != want {
		t.Errorf("changes: got %d, want %d", got, want)
	}
	for name, s := range map[string]*seen{"manager's cache": hostsTold, "informer": mapsTold, "reconciler": hostsReconciled} {
		if wrong := s.disorder(); len(wrong) > 0 {
			t.Errorf("the %s was told older states after newer ones: %v", name, wrong)
		}
	}
	for name, s := range map[string]*seen{"manager's cache": hostsTold, "informer": mapsTold} {
		skipped := s.skipped()
		t.Logf("the %s lists anew once: %d objects changed more than once meanwhile", name, len(skipped))
		for object, runs := range skipped {
			if runs > 1 {
				t.Errorf("the %s was not told changes of %s at %d times, though the daemon stopped once", name, object, runs)
			}
		}
	}
}

// startManager runs a controller over hosts until the test ends, elected by a Lease as in life; it returns what its cache and
// what its reconciler saw.
func startManager(t *testing.T, m *metald) (told, reconciled *seen) {
	t.Helper()
	ctrl.SetLogger(logr.Discard())
	told, reconciled = new(seen), new(seen)
	manager, err := ctrl.NewManager(m.client(t, m.login(t, "manager", "metald:operators")), ctrl.Options{
		Scheme:         scheme(t),
		Metrics:        server.Options{BindAddress: "0"},
		LeaderElection: true, LeaderElectionID: "follow", LeaderElectionNamespace: "follow",
	})
	if err != nil {
		t.Fatal(err)
	}
	err = ctrl.NewControllerManagedBy(manager).For(&metal3.BareMetalHost{}).Complete(reconcilerOf(manager.GetClient(), reconciled))
	if err != nil {
		t.Fatal(err)
	}
	informer, err := manager.GetCache().GetInformer(t.Context(), &metal3.BareMetalHost{}, crcache.BlockUntilSynced(false))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := informer.AddEventHandler(told.handler()); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	ctx, stop := context.WithCancel(context.Background())
	go func() { ended <- manager.Start(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the manager: %v", err)
		}
	})
	select {
	case <-manager.Elected():
	case <-time.After(time.Minute):
		t.Fatal("the manager is not elected after a minute")
	}
	if !manager.GetCache().WaitForCacheSync(t.Context()) {
		t.Fatal("the manager's cache did not sync")
	}
	return told, reconciled
}

// startInformer follows the ConfigMaps until the test ends.
func startInformer(t *testing.T, m *metald) *seen {
	t.Helper()
	told := new(seen)
	clientset, err := kubernetes.NewForConfig(m.client(t, m.login(t, "informer", "metald:viewers")))
	if err != nil {
		t.Fatal(err)
	}
	factory := informers.NewSharedInformerFactoryWithOptions(clientset, 0, informers.WithNamespace("follow"))
	if _, err := factory.Core().V1().ConfigMaps().Informer().AddEventHandler(told.handler()); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	t.Cleanup(func() {
		close(stop)
		factory.Shutdown()
	})
	factory.Start(stop)
	for kind, synced := range factory.WaitForCacheSync(t.Context().Done()) {
		if !synced {
			t.Fatalf("the informer of %v did not sync", kind)
		}
	}
	return told
}

// write makes a part of every object's changes, and closes the channel when all are acknowledged. What the daemon's end cut
// off is asked again, as any client has to.
func write(t *testing.T, c client.Client, l *ledger, from, to float64) <-chan struct{} {
	t.Helper()
	done := make(chan struct{})
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			// Every object gets its next change before any gets its second next: all of them are under way at the kill.
			for n := int(from*hostChanges) + 1; n <= int(to*hostChanges); n++ {
				for i := w; i < hostCount; i += writers {
					host := &metal3.BareMetalHost{ObjectMeta: about("host", i, n), Spec: metal3.BareMetalHostSpec{
						BootMACAddress: fmt.Sprintf("52:54:00:00:50:%02x", i), BMC: metal3.BMCDetails{Address: fmt.Sprintf("redfish://127.0.0.1:1/%d", i)}}}
					insist(t, func() error { return change(t.Context(), c, host, n, false) })
					l.note(host.Name, n)
				}
				if n%(hostChanges/mapChanges) != 0 {
					continue
				}
				n := n / (hostChanges / mapChanges)
				for i := w; i < mapCount; i += writers {
					object := &corev1.ConfigMap{ObjectMeta: about("map", i, n)}
					// Every other one ends by being deleted.
					deleted := n == mapChanges && i%2 == 0
					insist(t, func() error { return change(t.Context(), c, object, n, deleted) })
					if deleted {
						l.note(object.Name, gone)
					} else {
						l.note(object.Name, n)
					}
				}
			}
		})
	}
	go func() {
		all.Wait()
		close(done)
	}()
	return done
}
