// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"errors"
	"fmt"
	"strings"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
)

// claim pins by digest what an available host is to run. From here on a changed pool or image does not change this host.
func (s *step) claim(ctx context.Context) outcome {
	d, out := s.deployment()
	if d == nil {
		return out
	}
	p, err := s.Store.Progresses().Update(ctx, s.Host.Namespace, s.Host.Name, func(p *v1alpha1.HostProgress) error {
		p.Status.Deployment, p.Status.Join = d, nil
		return nil
	})
	if err != nil {
		return failed(metal3.ProvisioningError, err)
	}
	s.Progress = p
	return moved(Claimed)
}

// deployment works out what the host's claim means.
func (s *step) deployment() (*v1alpha1.Deployment, outcome) {
	if s.Host.Spec.CustomDeploy == nil {
		return s.ownImage()
	}
	method := s.Host.Spec.CustomDeploy.Method
	if method != v1alpha1.DisklessMethod && method != v1alpha1.InstallMethod {
		return nil, stuck(metal3.ProvisioningError, "MethodUnknown", fmt.Errorf("customDeploy.method %q is not one that metald has", method),
			"use "+v1alpha1.DisklessMethod+" or "+v1alpha1.InstallMethod)
	}
	consumer := s.Host.Spec.ConsumerRef
	if consumer == nil || consumer.Kind != "NodePool" {
		return nil, stuck(metal3.ProvisioningError, "NoPool", errors.New("no NodePool says which image to run"),
			"make a NodePool; it claims hosts by itself")
	}
	pool, ok := s.pools.get(consumer.Namespace + "/" + consumer.Name)
	if !ok {
		return nil, stuck(metal3.ProvisioningError, "NoPool", fmt.Errorf("NodePool %s/%s does not exist", consumer.Namespace, consumer.Name),
			"make it again, or clear spec.consumerRef and spec.customDeploy")
	}
	image, problem := s.usable(pool)
	if problem != nil {
		return nil, heldBack(problem.Reason, problem.Message, "")
	}
	if out := s.holdForDisks(pool.Spec.OverwriteDisks); out.waiting != nil {
		return nil, out
	}
	d := &v1alpha1.Deployment{
		Pool: keyOf(pool), Method: method, Image: image.Name, UKI: image.Spec.UKI.SHA256,
		Root: image.Spec.Root.SHA256, RootHash: image.Spec.RootHash, Cluster: pool.Namespace + "/" + pool.Spec.Cluster,
		Cleaning: first(pool.Spec.Cleaning, v1alpha1.EraseFull),
	}
	if method == v1alpha1.InstallMethod {
		if image.Spec.Loader == nil {
			return nil, stuck(metal3.ProvisioningError, "NoLoader", fmt.Errorf("image %s has no boot loader, so it cannot start from a disk", image.Name),
				"build it with this version of metald, or use method diskless")
		}
		disk, err := chooseDisk(s.disks(), s.Host.Spec.RootDeviceHints, diskNeeds(image))
		if err != nil {
			return nil, stuck(metal3.ProvisioningError, "NoDiskFits", err, "correct spec.rootDeviceHints, or use another host")
		}
		d.Install = &v1alpha1.Installation{ID: newID(), Disk: disk}
	}
	return d, outcome{}
}

// holdForDisks waits for a person where the host's disks hold what metald did not put there.
func (s *step) holdForDisks(overwrite bool) outcome {
	used := s.disksInUse()
	if len(used) == 0 || overwrite {
		return outcome{}
	}
	return heldBack("DisksInUse", "a person: its disks hold partitions that metald did not make, and somebody may want them: "+strings.Join(used, ", "),
		fmt.Sprintf("if they may be overwritten: metald host take %s --reason TEXT", s.Host.Name))
}

// usable answers a pool's image, or the condition that says why no host can be given it now.
func (m *Mind) usable(pool *v1alpha1.NodePool) (*v1alpha1.Image, *metav1.Condition) {
	problem := func(reason, text string, args ...any) *metav1.Condition {
		c := condition("Satisfied", false, reason, fmt.Sprintf(text, args...))
		return &c
	}
	image, ok := m.images.get(pool.Spec.Image)
	if !ok {
		return nil, problem("NoImage", "image %s, which does not exist", pool.Spec.Image)
	}
	if c := meta.FindStatusCondition(image.Status.Conditions, "Ready"); c == nil || c.Status != metav1.ConditionTrue {
		why := "not verified yet"
		if c != nil {
			why = c.Message
		}
		return nil, problem("ImageNotReady", "image %s: %s", image.Name, why)
	}
	kc, ok := m.clusters.get(pool.Namespace + "/" + pool.Spec.Cluster)
	if !ok {
		return nil, problem("NoCluster", "KubernetesCluster %s/%s, which does not exist", pool.Namespace, pool.Spec.Cluster)
	}
	if c := meta.FindStatusCondition(kc.Status.Conditions, "Reachable"); c == nil || c.Status != metav1.ConditionTrue {
		why := "not asked yet"
		if c != nil {
			why = c.Message
		}
		return nil, problem("ClusterAway", "KubernetesCluster %s: %s", kc.Name, why)
	}
	if err := skew(image.Spec.KubernetesVersion, kc.Status.Version); err != nil {
		return nil, problem("VersionSkew", "%s", err)
	}
	return image, nil
}

// provision boots the image and follows the host until the cluster calls its Node Ready.
func (s *step) provision(ctx context.Context) outcome {
	d := s.Progress.Status.Deployment
	if !s.claimed() || d == nil || s.changedMind(d) {
		return moved(Released)
	}
	if s.reinstallAsked() {
		return s.renew(ctx)
	}
	if d.Install != nil {
		if written, out := s.install(ctx); !written {
			return out
		}
	}
	if done, out := s.bootDeployed(ctx, metal3.ProvisioningError); !done {
		return out
	}
	if d.Cluster == "" {
		return moved(Joined)
	}
	if r, ended := s.result(v1alpha1.JoinStep); ended && !r.OK {
		if err := s.dropOrder(ctx); err != nil {
			return failed(metal3.ProvisioningError, err)
		}
		return failed(metal3.ProvisioningError, errors.New("the host could not join: "+r.Message))
	}
	out, arrived := s.followNode(ctx)
	if arrived {
		return moved(Joined)
	}
	return out
}

// bootDeployed boots what the host was told to run: from the network or from its disk.
func (s *step) bootDeployed(ctx context.Context, kind metal3.ErrorType) (done bool, out outcome) {
	d := s.Progress.Status.Deployment
	switch {
	case d.Install == nil:
		return s.boot(ctx, kind, bootImage, d.UKI, v1alpha1.OSMode)
	case d.Install.Raw != nil:
		return s.bootBlind(ctx, kind)
	}
	if r := s.agent().Refusal; r != nil && r.Reason == "ImageRefused" && s.agent().Mode == v1alpha1.InitrdMode && r.At.After(d.Install.Written.Time) {
		return false, stuck(metal3.ProvisioningError, "ImageRefused", errors.New("the machine refuses what its disk holds: "+r.Message),
			fmt.Sprintf("have the disk written anew, with all on it lost: metald host reinstall %s --reason TEXT", s.Host.Name))
	}
	return s.boot(ctx, kind, bootDisk, "", v1alpha1.OSMode)
}

// followNode looks at the host's Node. arrived is true once the cluster calls it Ready and it carries our labels.
func (s *step) followNode(ctx context.Context) (out outcome, arrived bool) {
	d := s.Progress.Status.Deployment
	node, seen := s.node()
	deadline := s.Progress.Status.Boot.Deadline.Time.Add(s.Limits.Join)
	switch {
	case !seen && s.Progress.Status.Join == nil:
		return awaits("the agent to take its join seed", "Joining", deadline, "", lookAgain), false
	case !seen:
		if f := s.follows.get(d.Cluster); f != nil {
			if r, ok := f.release(s.nodeName()); ok {
				(&follower{Mind: s.Mind, connection: f, key: d.Cluster}).Request(r)
			}
		}
		return awaits("the kubelet to register node "+s.nodeName()+" in cluster "+d.Cluster, "Joining", deadline, "", lookAgain), false
	}
	if owner := node.Labels[v1alpha1.HostLabel]; owner != "" && owner != s.hostLabel() {
		return stuck(metal3.ProvisioningError, "NodeNameTaken",
			fmt.Errorf("node %s of cluster %s belongs to host %s", node.Name, d.Cluster, owner), "rename one of the hosts"), false
	}
	if err := s.settle(ctx, node); err != nil {
		return failed(metal3.ProvisioningError, err), false
	}
	if !s.readyNow(node) {
		return awaits("node "+s.nodeName()+" to become Ready", "NodeNotReady", deadline, "", lookAgain), false
	}
	return content(), true
}

// keep watches over a running host: its power, its Node, its claim.
func (s *step) keep(ctx context.Context) outcome {
	d := s.Progress.Status.Deployment
	if d == nil || s.changedMind(d) {
		return moved(Released)
	}
	if s.reinstallAsked() {
		return s.renew(ctx)
	}
	w := want(s.View)
	if w.Power != on {
		return s.keepPower(ctx)
	}
	done, out := s.bootDeployed(ctx, metal3.PowerManagementError)
	if !done {
		return out
	}
	if d.Cluster == "" {
		return content()
	}
	out, arrived := s.followNode(ctx)
	if arrived {
		return content()
	}
	if out.err == nil && out.waiting != nil {
		out.waiting.Until = nil // a running host is not on a deadline; condition Ready tells
	}
	return out
}
