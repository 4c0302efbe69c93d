// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	corev1 "k8s.io/api/core/v1"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/cluster"
	"metald.io/metald/internal/inventory"
)

// clusterPoll is how often a control plane is asked for its version; its Nodes are watched.
const clusterPoll = time.Minute

// follows is one follow per KubernetesCluster.
type follows struct {
	mu   sync.RWMutex
	open map[string]*connection
}

// connection is a control plane that is being watched.
type connection struct {
	cluster Cluster
	// version is the kubeconfig Secret's version that the connection was made from.
	version string
	cancel  context.CancelFunc

	mu    sync.RWMutex
	nodes map[string]cluster.NodeState
	// held are certificate requests that came while their hosts were paused, by Node. A request comes once.
	held map[string]cluster.CSR
}

func newFollows() *follows { return &follows{open: map[string]*connection{}} }

func (f *follows) get(key string) *connection {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.open[key]
}

func (f *follows) set(key string, next *connection) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if old := f.open[key]; old != nil {
		old.cancel()
	}
	delete(f.open, key)
	if next != nil {
		f.open[key] = next
	}
}

func (f *follows) close() {
	f.mu.RLock()
	defer f.mu.RUnlock()
	for _, o := range f.open {
		o.cancel()
	}
}

func (f *connection) node(name string) (cluster.NodeState, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	n, ok := f.nodes[name]
	return n, ok
}

// cluster keeps a connection to one control plane and says in its status whether it answers.
func (m *Mind) cluster(ctx context.Context, key string) (time.Duration, error) {
	ns, name, _ := strings.Cut(key, "/")
	kc, err := m.Store.Clusters().Get(ctx, ns, name)
	if apierrors.IsNotFound(err) {
		m.follows.set(key, nil)
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	server, version, err := m.connect(ctx, key, kc)
	after := clusterPoll
	c := condition("Reachable", true, "Answers", "")
	if err != nil {
		c = condition("Reachable", false, "Away", err.Error())
		after = 10 * time.Second
	}
	was := meta.IsStatusConditionTrue(kc.Status.Conditions, "Reachable")
	_, err = m.Store.Clusters().Update(ctx, ns, name, func(kc *v1alpha1.KubernetesCluster) error {
		if c.Status == metav1.ConditionTrue {
			kc.Status.Server, kc.Status.Version = server, version
		}
		c.ObservedGeneration, c.LastTransitionTime = kc.Generation, metav1.NewTime(m.now())
		meta.SetStatusCondition(&kc.Status.Conditions, c)
		return nil
	})
	if was != (c.Status == metav1.ConditionTrue) {
		m.log.Info("control plane changed", "cluster", key, "reachable", !was, "reason", c.Message)
		m.lookAtHostsOn(key)
	}
	return after, err
}

// connect makes or renews the connection, and asks for the version.
func (m *Mind) connect(ctx context.Context, key string, kc *v1alpha1.KubernetesCluster) (server, version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	secret, err := m.Store.Secrets().Get(ctx, kc.Namespace, kc.Spec.KubeconfigSecret)
	if err != nil {
		return "", "", fmt.Errorf("reading secret %s: %w", kc.Spec.KubeconfigSecret, err)
	}
	kubeconfig := secret.Data["kubeconfig"]
	if len(kubeconfig) == 0 {
		return "", "", fmt.Errorf("secret %s has no key kubeconfig", kc.Spec.KubeconfigSecret)
	}
	stamp := secret.ResourceVersion + " " + kc.Spec.Server
	f := m.follows.get(key)
	if f == nil || f.version != stamp {
		c, err := m.Connect(kubeconfig, kc.Spec.Server)
		if err != nil {
			return "", "", err
		}
		fctx, cancel := context.WithCancel(context.Background())
		f = &connection{cluster: witnessed{c, m.Store, key}, version: stamp, cancel: cancel, nodes: map[string]cluster.NodeState{}, held: map[string]cluster.CSR{}}
		m.follows.set(key, f)
		go func() {
			if err := c.Follow(fctx, &follower{Mind: m, key: key, connection: f}); err != nil && !errors.Is(err, context.Canceled) {
				m.log.Error("following a control plane", "cluster", key, "err", err)
			}
		}()
	}
	version, err = f.cluster.Version(ctx)
	if err != nil {
		return "", "", err
	}
	server = kc.Spec.Server
	if named, ok := f.cluster.(interface{ Server() string }); ok && server == "" {
		server = named.Server()
	}
	return server, version, nil
}

// follower hears what a control plane sees.
type follower struct {
	*Mind
	*connection
	key string
}

// Node hears of a Node and has its host looked at.
func (f *follower) Node(n cluster.NodeState, gone bool) {
	f.connection.mu.Lock()
	if gone {
		delete(f.nodes, n.Name)
	} else {
		f.nodes[n.Name] = n
	}
	f.connection.mu.Unlock()
	if h := f.hostOf(n.Name); h != "" {
		f.lookAtHost(h)
	}
}

// hostOf answers the host that runs as this Node in this cluster.
func (f *follower) hostOf(node string) string {
	ns, _, _ := strings.Cut(f.key, "/")
	key := ns + "/" + node
	if p, ok := f.progress.get(key); ok && p.Status.Deployment != nil && p.Status.Deployment.Cluster == f.key {
		return key
	}
	return ""
}

// Request hears of a certificate request and approves it only if it is the one that a released seed leads to.
func (f *follower) Request(r cluster.CSR) {
	if r.TokenID == "" || r.NodeName == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	ns, _, _ := strings.Cut(f.key, "/")
	// From the store, not from memory: a kubelet is quicker than a watch, and its request comes once.
	p, err := f.Store.Progresses().Get(ctx, ns, r.NodeName)
	if err != nil && !apierrors.IsNotFound(err) {
		f.log.Error("reading whose certificate request this is", "csr", r.Name, "err", err)
		return
	}
	if err != nil || p.Status.Join == nil || p.Status.Join.TokenID != r.TokenID || p.Status.Deployment == nil ||
		p.Status.Deployment.Cluster != f.key || p.Status.Join.Approved != "" {
		return // not one of ours: others may approve it
	}
	key := ns + "/" + r.NodeName
	ctx = inventory.WithHost(ctx, key)
	if paused, err := f.pausedNow(ctx, ns, r.NodeName); paused || err != nil {
		f.log.Info("keeping a certificate request of a paused host", "host", key, "csr", r.Name, "err", err)
		f.hold(r)
		return
	}
	err = f.connection.cluster.Approve(ctx, r.Name, cluster.Expected{NodeName: r.NodeName, TokenID: r.TokenID})
	if err != nil {
		f.log.Warn("refusing a certificate request", "host", key, "csr", r.Name, "err", err)
		return
	}
	f.log.Info("approved a certificate request", "host", key, "csr", r.Name)
	_, err = f.Store.Progresses().Update(ctx, ns, r.NodeName, func(p *v1alpha1.HostProgress) error {
		if p.Status.Join != nil && p.Status.Join.TokenID == r.TokenID {
			p.Status.Join.Approved = r.Name
		}
		return nil
	})
	if err != nil {
		f.log.Error("recording an approved certificate request", "host", key, "csr", r.Name, "err", err)
	}
}

// hold keeps a request until its host goes on; release answers it again.
func (f *connection) hold(r cluster.CSR) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held[r.NodeName] = r
}

func (f *connection) release(node string) (r cluster.CSR, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, ok = f.held[node]
	delete(f.held, node)
	return r, ok
}

// watchSecrets looks again at what waits for a Secret to change.
func (m *Mind) watchSecrets(ctx context.Context) error {
	return m.Store.Secrets().Watch(ctx, func(e inventory.Event[*corev1.Secret]) {
		if e.Type == inventory.Synced {
			return
		}
		m.lookAtUsersOf(e.Object.Namespace, e.Object.Name)
	})
}
