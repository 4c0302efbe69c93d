// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"metald.io/metald/api/v1alpha1"
)

// eventLife is how long an Event is kept: long enough for the morning after.
const eventLife = 24 * time.Hour

var (
	metal3Group = schema.GroupVersion{Group: "metal3.io", Version: "v1alpha1"}
	coreGroup   = schema.GroupVersion{Version: "v1"}
)

// kind is what the store must know of a kind of object. The keys are /registry/<group>/<plural>[/<namespace>]/<name>, with
// "core" for the group without a name.
type kind struct {
	group      schema.GroupVersion
	kind       string
	plural     string
	namespaced bool
	// custom kinds are served from a CustomResourceDefinition: they are stored with sorted keys, count generations and may
	// hold fields that our types do not know. The others are stored as their Go types are encoded.
	custom bool
	life   time.Duration // how long an object is kept after its last change; 0 is for ever
}

func (k kind) resource() schema.GroupResource {
	return schema.GroupResource{Group: k.group.Group, Resource: k.plural}
}

func (k kind) prefix() string {
	group := k.group.Group
	if group == "" {
		group = "core"
	}
	return "/" + group + "/" + k.plural
}

type stores struct {
	hosts        *Objects[*metal3.BareMetalHost]
	hardwareData *Objects[*metal3.HardwareData]
	inventories  *Objects[*v1alpha1.HostInventory]
	progresses   *Objects[*v1alpha1.HostProgress]
	sightings    *Objects[*v1alpha1.Sighting]
	images       *Objects[*v1alpha1.Image]
	clusters     *Objects[*v1alpha1.KubernetesCluster]
	pools        *Objects[*v1alpha1.NodePool]
	secrets      *Objects[*corev1.Secret]
	events       *Objects[*corev1.Event]
	namespaces   *Objects[*corev1.Namespace]
}

func (s *Store) open() error {
	custom := func(g schema.GroupVersion, name, plural string, namespaced bool) kind {
		return kind{group: g, kind: name, plural: plural, namespaced: namespaced, custom: true}
	}
	o := opener{store: s}
	s.hosts = objects(&o, custom(metal3Group, "BareMetalHost", "baremetalhosts", true), func() *metal3.BareMetalHost { return &metal3.BareMetalHost{} })
	s.hardwareData = objects(&o, custom(metal3Group, "HardwareData", "hardwaredata", true), func() *metal3.HardwareData { return &metal3.HardwareData{} })
	s.inventories = objects(&o, custom(v1alpha1.GroupVersion, "HostInventory", "hostinventories", true), func() *v1alpha1.HostInventory { return &v1alpha1.HostInventory{} })
	s.progresses = objects(&o, custom(v1alpha1.GroupVersion, "HostProgress", "hostprogresses", true), func() *v1alpha1.HostProgress { return &v1alpha1.HostProgress{} })
	s.sightings = objects(&o, custom(v1alpha1.GroupVersion, "Sighting", "sightings", false), func() *v1alpha1.Sighting { return &v1alpha1.Sighting{} })
	s.images = objects(&o, custom(v1alpha1.GroupVersion, "Image", "images", false), func() *v1alpha1.Image { return &v1alpha1.Image{} })
	s.clusters = objects(&o, custom(v1alpha1.GroupVersion, "KubernetesCluster", "kubernetesclusters", true), func() *v1alpha1.KubernetesCluster { return &v1alpha1.KubernetesCluster{} })
	s.pools = objects(&o, custom(v1alpha1.GroupVersion, "NodePool", "nodepools", true), func() *v1alpha1.NodePool { return &v1alpha1.NodePool{} })

	s.secrets = objects(&o, kind{group: coreGroup, kind: "Secret", plural: "secrets", namespaced: true}, func() *corev1.Secret { return &corev1.Secret{} })
	s.secrets.prepare = foldStringData
	s.events = objects(&o, kind{group: coreGroup, kind: "Event", plural: "events", namespaced: true, life: eventLife}, func() *corev1.Event { return &corev1.Event{} })
	s.namespaces = objects(&o, kind{group: coreGroup, kind: "Namespace", plural: "namespaces"}, func() *corev1.Namespace { return &corev1.Namespace{} })
	return o.err
}

// foldStringData does what apiserver does to a Secret on its way in: stringData is for writing only.
func foldStringData(s *corev1.Secret) {
	for key, value := range s.StringData {
		if s.Data == nil {
			s.Data = map[string][]byte{}
		}
		s.Data[key] = []byte(value)
	}
	s.StringData = nil
}

// Hosts are the BareMetalHosts.
func (s *Store) Hosts() *Objects[*metal3.BareMetalHost] { return s.hosts }

// HardwareData are Metal3's HardwareData, one a host, of its name.
func (s *Store) HardwareData() *Objects[*metal3.HardwareData] { return s.hardwareData }

// Inventories are the HostInventories, one a host, of its name.
func (s *Store) Inventories() *Objects[*v1alpha1.HostInventory] { return s.inventories }

// Progresses are the HostProgresses, one a host, of its name.
func (s *Store) Progresses() *Objects[*v1alpha1.HostProgress] { return s.progresses }

// Sightings are cluster-scoped: their namespace is "".
func (s *Store) Sightings() *Objects[*v1alpha1.Sighting] { return s.sightings }

// Images are cluster-scoped: their namespace is "".
func (s *Store) Images() *Objects[*v1alpha1.Image] { return s.images }

// Clusters are the KubernetesClusters.
func (s *Store) Clusters() *Objects[*v1alpha1.KubernetesCluster] { return s.clusters }

// Pools are the NodePools.
func (s *Store) Pools() *Objects[*v1alpha1.NodePool] { return s.pools }

// Secrets are core/v1's.
func (s *Store) Secrets() *Objects[*corev1.Secret] { return s.secrets }

// Events are core/v1's. Each goes by itself a day after its last change.
func (s *Store) Events() *Objects[*corev1.Event] { return s.events }

// Namespaces are core/v1's, cluster-scoped.
func (s *Store) Namespaces() *Objects[*corev1.Namespace] { return s.namespaces }
