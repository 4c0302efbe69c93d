// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"errors"
	"fmt"
	"maps"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/version"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/cluster"
)

// release makes one bootstrap credential for one boot of one host and answers the seed that holds it. A credential that
// was made for the same boot but did not arrive is taken back first, so there is never more than one.
func (s *step) release(ctx context.Context, bootID, nodeIP string) (*v1alpha1.JoinSeed, error) {
	d := s.Progress.Status.Deployment
	f := s.follows.get(d.Cluster)
	if f == nil {
		return nil, fmt.Errorf("cluster %s is away", d.Cluster)
	}
	if node, ok := f.node(s.nodeName()); ok {
		if owner := node.Labels[v1alpha1.HostLabel]; owner != "" && owner != s.hostLabel() {
			return nil, fmt.Errorf("node name %s is taken by host %s in cluster %s", node.Name, owner, d.Cluster)
		}
	}
	kc, ok := s.clusters.get(d.Cluster)
	if !ok {
		return nil, fmt.Errorf("KubernetesCluster %s does not exist", d.Cluster)
	}
	if err := s.revoke(ctx, d.Cluster); err != nil {
		return nil, fmt.Errorf("taking back the earlier credential: %w", err)
	}
	grant, err := f.cluster.Grant(ctx, s.nodeName(), s.Limits.Join)
	if err != nil {
		return nil, fmt.Errorf("making a bootstrap credential: %w", err)
	}
	p, err := s.Store.Progresses().Update(ctx, s.Host.Namespace, s.Host.Name, func(p *v1alpha1.HostProgress) error {
		if p.Status.Epoch != s.epoch() {
			return errors.New("the host was told to boot again meanwhile")
		}
		p.Status.Join = &v1alpha1.JoinGrant{TokenID: grant.TokenID, Epoch: p.Status.Epoch, BootID: bootID,
			Granted: metav1.NewTime(s.now()), Expires: metav1.NewTime(grant.Expires)}
		startPhase(&p.Status, "join", metav1.NewTime(s.now()))
		return nil
	})
	if err != nil {
		_ = f.cluster.Revoke(context.WithoutCancel(ctx), grant.TokenID) // it expires by itself too
		return nil, fmt.Errorf("recording the bootstrap credential: %w", err)
	}
	s.Progress = p
	config, err := cluster.KubeletConfig(kc.Spec.ClusterDNS, kc.Spec.ClusterDomain)
	if err != nil {
		return nil, err
	}
	if err := s.released(ctx, "join seed", d.Cluster, "token "+grant.TokenID+", boot "+bootID); err != nil {
		return nil, err
	}
	s.log.Info("released a join seed", "host", s.key, "epoch", s.epoch(), "token", grant.TokenID)
	s.tell(ctx, "Normal", "SeedReleased", fmt.Sprintf("bootstrap credential %s for epoch %d, expires %s", grant.TokenID, s.epoch(),
		grant.Expires.UTC().Format("15:04:05Z")))
	seed := &v1alpha1.JoinSeed{NodeName: s.nodeName(), NodeIP: nodeIP, BootstrapKubeconfig: grant.Kubeconfig, ClusterCA: grant.CA, KubeletConfig: config,
		Taints: append([]v1alpha1.Taint{}, kc.Spec.Taints...)}
	if pool, ok := s.pools.get(d.Pool); ok {
		seed.Taints = append(seed.Taints, pool.Spec.Taints...)
	}
	return seed, nil
}

// revoke takes back the host's bootstrap credential, if one is out.
func (s *step) revoke(ctx context.Context, clusterKey string) error {
	g := s.Progress.Status.Join
	if g == nil || g.Used != nil {
		return nil
	}
	f := s.follows.get(clusterKey)
	if f == nil {
		if s.now().After(g.Expires.Time) {
			return nil // the cluster has dropped it by itself
		}
		return fmt.Errorf("cluster %s is away", clusterKey)
	}
	return f.cluster.Revoke(ctx, g.TokenID)
}

// node is the host's Node as its cluster sees it.
func (s *step) node() (cluster.NodeState, bool) {
	f := s.follows.get(s.Progress.Status.Deployment.Cluster)
	if f == nil {
		return cluster.NodeState{}, false
	}
	return f.node(s.nodeName())
}

// readyNow answers whether a Node is Ready and of this very boot: for some 40 s after a machine went away its cluster still
// calls the Node of its earlier boot Ready.
func (s *step) readyNow(n cluster.NodeState) bool {
	return n.Ready && (n.BootID == "" || n.BootID == s.agent().BootID)
}

// hostLabel names the host on its Node.
func (s *step) hostLabel() string { return s.Host.Namespace + "." + s.Host.Name }

// settle labels the host's Node and takes back the credential that brought it in.
func (s *step) settle(ctx context.Context, node cluster.NodeState) error {
	d := s.Progress.Status.Deployment
	f := s.follows.get(d.Cluster)
	if f == nil {
		return fmt.Errorf("cluster %s is away", d.Cluster)
	}
	want := s.nodeLabels()
	for k, v := range want {
		if node.Labels[k] != v {
			if err := f.cluster.Label(ctx, node.Name, want); err != nil {
				return fmt.Errorf("labelling node %s: %w", node.Name, err)
			}
			break
		}
	}
	g := s.Progress.Status.Join
	if g == nil || g.Used != nil || g.Approved == "" && !s.readyNow(node) {
		return nil
	}
	if err := f.cluster.Revoke(ctx, g.TokenID); err != nil {
		return fmt.Errorf("removing the used bootstrap credential: %w", err)
	}
	p, err := s.Store.Progresses().Update(ctx, s.Host.Namespace, s.Host.Name, func(p *v1alpha1.HostProgress) error {
		now := metav1.NewTime(s.now())
		if p.Status.Join != nil && p.Status.Join.TokenID == g.TokenID {
			p.Status.Join.Used = &now
		}
		endPhase(&p.Status, "join", now)
		return nil
	})
	if err == nil {
		s.Progress = p
	}
	return err
}

// nodeLabels are what the host's Node carries for us: where it stands, whose it is, what it runs, and its owner's labels.
func (s *step) nodeLabels() map[string]string {
	d := s.Progress.Status.Deployment
	labels := map[string]string{}
	if kc, ok := s.clusters.get(d.Cluster); ok {
		maps.Copy(labels, kc.Spec.Labels)
	}
	if pool, ok := s.pools.get(d.Pool); ok {
		maps.Copy(labels, pool.Spec.Labels)
		labels[v1alpha1.PoolLabel] = pool.Name
	}
	for _, k := range []string{v1alpha1.RegionLabel, v1alpha1.ZoneLabel, v1alpha1.RackLabel} {
		if v := s.Host.Labels[k]; v != "" {
			labels[k] = v
		}
	}
	labels[v1alpha1.HostLabel], labels[v1alpha1.ImageLabel] = s.hostLabel(), d.Image
	return labels
}

// joined is the condition that follows the host's Node. It is remembered from the last step that saw the Node.
func joined(v View) metav1.Condition {
	w := v.Progress.Status.Waiting
	switch {
	case v.Progress.Status.Deployment == nil:
		return condition(v1alpha1.JoinedCondition, false, "NotDeployed", "")
	case v.Progress.Status.Deployment.Cluster == "":
		return condition(v1alpha1.JoinedCondition, false, "NoCluster", "the host runs an image of its user's own")
	case v.state() == "provisioned" && w == nil:
		return condition(v1alpha1.JoinedCondition, true, "NodeReady", "node "+v.nodeName()+" of cluster "+v.Progress.Status.Deployment.Cluster+" is Ready")
	case w != nil:
		return condition(v1alpha1.JoinedCondition, false, w.Reason, "waits for "+w.For)
	}
	return condition(v1alpha1.JoinedCondition, false, "Joining", "")
}

// skew refuses a kubelet that Kubernetes does not support beside an API server: newer than it, or more than three minor
// versions older (https://kubernetes.io/releases/version-skew-policy/).
func skew(kubelet, server string) error {
	k, err := version.ParseGeneric(kubelet)
	if err != nil {
		return fmt.Errorf("reading the image's kubelet version %q: %w", kubelet, err)
	}
	s, err := version.ParseGeneric(server)
	if err != nil {
		return fmt.Errorf("reading the API server's version %q: %w", server, err)
	}
	switch {
	case k.Major() != s.Major() || k.Minor() > s.Minor():
		return fmt.Errorf("the image's kubelet %s is newer than the cluster's API server %s", kubelet, server)
	case s.Minor()-k.Minor() > 3:
		return fmt.Errorf("the image's kubelet %s is more than three minor versions older than the cluster's API server %s", kubelet, server)
	}
	return nil
}
