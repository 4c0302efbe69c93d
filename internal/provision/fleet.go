// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/bmc"
)

// Who is looked at when what changes. One change must cost the same in a fleet of ten hosts and of ten thousand: nothing here
// walks all hosts but what concerns them all.

// poolPause is how long a pool waits, when one of its hosts has changed, for others to change as well: a hall that comes up
// together is judged ten times a second, not once for each host.
const poolPause = 100 * time.Millisecond

// fleet is each host as pools last heard of it.
type fleet struct {
	mu   sync.Mutex
	last map[string]*metal3.BareMetalHost
}

func newFleet() *fleet { return &fleet{last: map[string]*metal3.BareMetalHost{}} }

// moved answers whether a host changed in what a pool may go by, and as what it was known before, nil for a new one.
func (f *fleet) moved(h *metal3.BareMetalHost, gone bool) (before *metal3.BareMetalHost, moved bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := keyOf(h)
	before = f.last[key]
	if gone {
		delete(f.last, key)
		return before, true
	}
	f.last[key] = h
	return before, before == nil || !looksSame(before, h)
}

// looksSame answers whether two versions of a host differ in nothing but words, times and counters.
func looksSame(a, b *metal3.BareMetalHost) bool {
	return a.UID == b.UID && (a.DeletionTimestamp == nil) == (b.DeletionTimestamp == nil) &&
		maps.Equal(a.Labels, b.Labels) && maps.Equal(a.Annotations, b.Annotations) &&
		a.Status.Provisioning.State == b.Status.Provisioning.State &&
		a.Status.OperationalStatus == b.Status.OperationalStatus && a.Status.ErrorType == b.Status.ErrorType &&
		a.Status.PoweredOn == b.Status.PoweredOn && (a.Status.HardwareDetails == nil) == (b.Status.HardwareDetails == nil) &&
		slices.EqualFunc(a.Status.Conditions, b.Status.Conditions, func(a, b metav1.Condition) bool {
			return a.Type == b.Type && a.Status == b.Status && a.Reason == b.Reason
		}) &&
		reflect.DeepEqual(a.Spec, b.Spec)
}

// hostChanged has a host looked at, and the pools that it may concern.
func (m *Mind) hostChanged(h *metal3.BareMetalHost, gone bool) {
	m.indexHost(keyOf(h))
	m.lookAtHost(keyOf(h))
	before, moved := m.fleet.moved(h, gone)
	if !moved {
		return
	}
	pools := map[string]bool{}
	for _, version := range []*metal3.BareMetalHost{before, h} {
		if version == nil {
			continue
		}
		if pool := poolOf(version); pool != "" {
			pools[pool] = true
		} else {
			for _, p := range m.pools.all() {
				if p.Namespace == h.Namespace {
					pools[keyOf(p)] = true
				}
			}
		}
	}
	for key := range pools {
		m.queue.AddAfter(work{poolWork, key}, poolPause)
	}
}

// poolOf is the NodePool that a host belongs to; empty where there is none.
func poolOf(h *metal3.BareMetalHost) string {
	if c := h.Spec.ConsumerRef; c != nil && c.Kind == "NodePool" {
		return c.Namespace + "/" + c.Name
	}
	return ""
}

// references are the words by which a host is found when something changes that it refers to.
func references(h *metal3.BareMetalHost) []string {
	words := []string{word("pool", poolOf(h))}
	if name := h.Spec.BMC.CredentialsName; name != "" {
		words = append(words, word("secret", h.Namespace+"/"+name))
	}
	if a, err := bmc.ParseAddress(h.Spec.BMC.Address); err == nil {
		words = append(words, word("bmc", a.Authority()))
	}
	return words
}

// lookAtHostsOf queues the hosts of a pool.
func (m *Mind) lookAtHostsOf(p *v1alpha1.NodePool) {
	for _, key := range m.references.find(word("pool", keyOf(p))) {
		m.lookAtHost(key)
	}
}

// lookAtHostsOn queues the hosts that run as Nodes of a cluster, or are meant to.
func (m *Mind) lookAtHostsOn(cluster string) {
	for _, p := range m.pools.all() {
		if p.Namespace+"/"+p.Spec.Cluster == cluster {
			m.lookAtHostsOf(p)
		}
	}
	for _, p := range m.progress.all() {
		if d := p.Status.Deployment; d != nil && d.Cluster == cluster {
			m.lookAtHost(keyOf(p))
		}
	}
}

// lookAtUsersOf queues what uses a Secret.
func (m *Mind) lookAtUsersOf(ns, name string) {
	for _, key := range m.references.find(word("secret", ns+"/"+name)) {
		m.lookAtHost(key)
	}
	for _, c := range m.clusters.all() {
		if c.Namespace == ns && c.Spec.KubeconfigSecret == name {
			m.queue.Add(work{clusterWork, keyOf(c)})
		}
	}
}
