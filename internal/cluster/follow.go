// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"sync"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
)

// Follower hears of certificate requests and Nodes, one call at a time. It may be told the same thing twice, and is told
// all there is again after the control plane was away.
type Follower interface {
	Request(CSR)
	Node(state NodeState, gone bool)
}

// Watcher is what a Follower may also be: it hears when the control plane cannot be watched. Follow goes on trying.
type Watcher interface {
	Away(error)
}

// Follow watches certificate requests and Nodes until ctx ends, then returns nil; it mends broken watches itself. Only
// requests for a kubelet's client certificate are passed on.
func (c *Cluster) Follow(ctx context.Context, f Follower) error {
	var mu sync.Mutex
	say := func(what func()) {
		mu.Lock()
		defer mu.Unlock()
		if ctx.Err() == nil {
			what()
		}
	}
	factory := informers.NewSharedInformerFactoryWithOptions(c.watching, 0)
	requests := factory.Certificates().V1().CertificateSigningRequests().Informer()
	nodes := factory.Core().V1().Nodes().Informer()
	request := func(obj any) {
		if csr, ok := obj.(*certificatesv1.CertificateSigningRequest); ok && csr.Spec.SignerName == certificatesv1.KubeAPIServerClientKubeletSignerName {
			say(func() { f.Request(csrOf(csr)) })
		}
	}
	node := func(obj any, gone bool) {
		if last, ok := obj.(cache.DeletedFinalStateUnknown); ok { // it went while we did not watch
			obj = last.Obj
		}
		if n, ok := obj.(*corev1.Node); ok {
			say(func() { f.Node(nodeOf(n), gone) })
		}
	}
	handlers := []struct {
		informer cache.SharedIndexInformer
		what     string
		handler  cache.ResourceEventHandlerFuncs
	}{
		{requests, "certificate requests", cache.ResourceEventHandlerFuncs{AddFunc: request, UpdateFunc: func(_, obj any) { request(obj) }}},
		{nodes, "nodes", cache.ResourceEventHandlerFuncs{
			AddFunc:    func(obj any) { node(obj, false) },
			UpdateFunc: func(_, obj any) { node(obj, false) },
			DeleteFunc: func(obj any) { node(obj, true) },
		}},
	}
	for _, h := range handlers {
		err := h.informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
			if w, ok := f.(Watcher); ok {
				say(func() { w.Away(fmt.Errorf("watching %s: %w", h.what, err)) })
			}
		})
		if err != nil {
			return fmt.Errorf("watching %s: %w", h.what, err)
		}
		if err := h.informer.SetTransform(withoutManagedFields); err != nil {
			return fmt.Errorf("watching %s: %w", h.what, err)
		}
		if _, err := h.informer.AddEventHandler(h.handler); err != nil {
			return fmt.Errorf("watching %s: %w", h.what, err)
		}
	}
	factory.StartWithContext(ctx)
	<-ctx.Done()
	factory.Shutdown()
	return nil
}

// withoutManagedFields drops what nobody here reads, and what is half of a Node's size in memory with its image list.
func withoutManagedFields(obj any) (any, error) {
	switch o := obj.(type) {
	case *corev1.Node:
		o.ManagedFields, o.Status.Images = nil, nil
	case *certificatesv1.CertificateSigningRequest:
		o.ManagedFields = nil
	}
	return obj, nil
}
