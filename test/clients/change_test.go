// SPDX-License-Identifier: Apache-2.0

package clients

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// about is the metadata of an object at its n-th change; it is paused, so that the daemon leaves a host alone.
func about(kind string, i, n int) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: "follow", Name: fmt.Sprintf("%s-%d", kind, i),
		Annotations: map[string]string{counter: strconv.Itoa(n), metal3.PausedAnnotation: "clients"}}
}

// change makes an object's n-th change: its creation, then patches, at last perhaps its deletion. It may be asked again.
func change(ctx context.Context, c client.Client, object client.Object, n int, deletes bool) error {
	switch {
	case n == 1:
		if err := c.Create(ctx, object); !apierrors.IsAlreadyExists(err) {
			return err
		}
		return nil
	case deletes:
		return client.IgnoreNotFound(c.Delete(ctx, object))
	}
	return c.Patch(ctx, object, client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"annotations":{%q:"%d"}}}`, counter, n)))
}

// insist asks until it is answered.
func insist(t *testing.T, ask func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end) && t.Context().Err() == nil; time.Sleep(50 * time.Millisecond) {
		if err = ask(); err == nil {
			return
		}
	}
	t.Errorf("a change was not taken in 2 minutes: %v", err)
}

// keeps fails where something that was acknowledged before the kill is not there any more. Meanwhile the writers go on, so
// an object may be newer.
func keeps(t *testing.T, c client.Client, acknowledged map[string]int) {
	t.Helper()
	var (
		hosts metal3.BareMetalHostList
		maps  corev1.ConfigMapList
	)
	is := map[string]int{}
	insist(t, func() error { return c.List(t.Context(), &hosts, client.InNamespace("follow")) })
	insist(t, func() error { return c.List(t.Context(), &maps, client.InNamespace("follow")) })
	for _, host := range hosts.Items {
		is[host.Name] = number(&host)
	}
	for _, object := range maps.Items {
		is[object.Name] = number(&object)
	}
	for name, want := range acknowledged {
		got, there := is[name]
		if want == gone && there {
			t.Errorf("after the kill %s is there again: it had been deleted", name)
		}
		// The last change of every other ConfigMap is its deletion.
		if want != gone && there && got < want || want != gone && !there && want < mapChanges-1 {
			t.Errorf("after the kill %s is at change %d (there: %v), acknowledged was %d", name, got, there, want)
		}
	}
}

// split parts a ledger into that of the hosts and that of the ConfigMaps.
func split(all map[string]int) (hosts, maps map[string]int) {
	hosts, maps = map[string]int{}, map[string]int{}
	for name, n := range all {
		if strings.HasPrefix(name, "host-") {
			hosts[name] = n
		} else {
			maps[name] = n
		}
	}
	return hosts, maps
}

// reconcilerOf notes the state in which it finds each host.
func reconcilerOf(c client.Client, reconciled *seen) reconcile.Reconciler {
	return reconcile.Func(func(ctx context.Context, r reconcile.Request) (reconcile.Result, error) {
		var host metal3.BareMetalHost
		if err := c.Get(ctx, r.NamespacedName, &host); err != nil {
			return reconcile.Result{}, client.IgnoreNotFound(err)
		}
		reconciled.note(host.Name, number(&host))
		return reconcile.Result{}, nil
	})
}
