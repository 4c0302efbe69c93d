// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// KubernetesCluster is a control plane that hosts join.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=kcluster
// +kubebuilder:printcolumn:name="Server",type=string,JSONPath=`.status.server`
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.status.version`
// +kubebuilder:printcolumn:name="Reachable",type=string,JSONPath=`.status.conditions[?(@.type=="Reachable")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type KubernetesCluster struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              KubernetesClusterSpec   `json:"spec"`
	Status            KubernetesClusterStatus `json:"status,omitempty"`
}

// KubernetesClusterSpec says how to reach a control plane and what its Nodes get.
type KubernetesClusterSpec struct {
	// KubeconfigSecret names a Secret of the same namespace whose key "kubeconfig" holds an administrator's kubeconfig.
	// +kubebuilder:validation:MinLength=1
	KubeconfigSecret string `json:"kubeconfigSecret"`
	// Server overrides the address that Nodes use, where it differs from the kubeconfig's.
	Server string `json:"server,omitempty"`
	// ClusterDNS and ClusterDomain go into each kubelet's configuration.
	ClusterDNS []string `json:"clusterDNS,omitempty"`
	// +kubebuilder:default=cluster.local
	ClusterDomain string `json:"clusterDomain,omitempty"`
	// Labels go onto every Node.
	Labels map[string]string `json:"labels,omitempty"`
	// Taints go onto every Node at its registration.
	Taints []Taint `json:"taints,omitempty"`
}

// Taint is core/v1's, without its times.
type Taint struct {
	Key   string `json:"key"`
	Value string `json:"value,omitempty"`
	// +kubebuilder:validation:Enum=NoSchedule;PreferNoSchedule;NoExecute
	Effect string `json:"effect"`
}

// KubernetesClusterStatus is what was last seen of the control plane.
type KubernetesClusterStatus struct {
	Server  string `json:"server,omitempty"`
	Version string `json:"version,omitempty"`
	// Conditions has Reachable.
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// KubernetesClusterList is a list of KubernetesCluster.
//
// +kubebuilder:object:root=true
type KubernetesClusterList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []KubernetesCluster `json:"items"`
}
