// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/cluster"
)

// plane is a control plane: tokens, requests and Nodes.
type plane struct {
	mu       sync.Mutex
	away     bool
	tokens   map[string]string // id -> node
	granted  int
	follower cluster.Follower
	nodes    map[string]cluster.NodeState
	bootID   string // of the machine that last came with a seed
	pods     []string
	slow     bool // does not notice that a machine is gone
}

func newPlane() *plane {
	return &plane{tokens: map[string]string{}, nodes: map[string]cluster.NodeState{}}
}

func (p *plane) Version(context.Context) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.away {
		return "", errors.New("connection refused")
	}
	return "v1.36.3", nil
}

func (p *plane) Grant(_ context.Context, node string, ttl time.Duration) (cluster.Grant, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.granted++
	id := fmt.Sprintf("tok%03d", p.granted)
	p.tokens[id] = node
	return cluster.Grant{TokenID: id, Kubeconfig: id, Expires: time.Now().Add(ttl)}, nil
}

func (p *plane) Revoke(_ context.Context, id string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.tokens, id)
	return nil
}

func (p *plane) Approve(_ context.Context, csr string, want cluster.Expected) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.tokens[want.TokenID] != want.NodeName {
		return cluster.ErrMismatch
	}
	n := cluster.NodeState{Name: want.NodeName, Ready: true, BootID: p.bootID, Labels: map[string]string{}}
	p.nodes[n.Name] = n
	go p.follower.Node(n, false)
	return nil
}

func (p *plane) Follow(ctx context.Context, f cluster.Follower) error {
	p.mu.Lock()
	p.follower = f
	nodes := maps.Clone(p.nodes)
	p.mu.Unlock()
	for _, n := range nodes {
		f.Node(n, false)
	}
	<-ctx.Done()
	return nil
}

func (p *plane) Label(_ context.Context, node string, labels map[string]string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.nodes[node]
	merged := map[string]string{}
	for _, m := range []map[string]string{n.Labels, labels} {
		for k, v := range m {
			merged[k] = v
		}
	}
	n.Labels = merged
	p.nodes[node] = n
	go p.follower.Node(n, false)
	return nil
}

func (p *plane) Cordon(_ context.Context, node, _ string, on bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.nodes[node]
	n.Unschedulable = on
	p.nodes[node] = n
	return nil
}

func (p *plane) Drain(context.Context, string, string, time.Time) ([]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.away {
		return nil, errors.New("connection refused")
	}
	return p.pods, nil
}

func (p *plane) DeleteNode(_ context.Context, node, _ string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.away {
		return errors.New("connection refused")
	}
	n := p.nodes[node]
	delete(p.nodes, node)
	go p.follower.Node(n, true)
	return nil
}

// bootstrap is a kubelet with a seed.
func (p *plane) bootstrap(seed *v1alpha1.JoinSeed, bootID string) {
	p.mu.Lock()
	p.bootID = bootID
	f := p.follower
	_, valid := p.tokens[seed.BootstrapKubeconfig]
	p.mu.Unlock()
	if valid {
		f.Request(cluster.CSR{Name: "csr-1", TokenID: seed.BootstrapKubeconfig, NodeName: seed.NodeName})
	}
}

// lose makes a Node NotReady.
func (p *plane) lose(node string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, ok := p.nodes[node]
	if !ok || p.slow {
		return
	}
	n.Ready = false
	p.nodes[node] = n
	go p.follower.Node(n, false)
}
