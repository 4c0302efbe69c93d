// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// NodePool turns available hosts of its namespace into Nodes of one cluster.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=np
// +kubebuilder:printcolumn:name="Desired",type=integer,JSONPath=`.spec.replicas`
// +kubebuilder:printcolumn:name="Claimed",type=integer,JSONPath=`.status.claimed`
// +kubebuilder:printcolumn:name="Ready",type=integer,JSONPath=`.status.ready`
// +kubebuilder:printcolumn:name="Image",type=string,JSONPath=`.spec.image`
// +kubebuilder:printcolumn:name="Cluster",type=string,JSONPath=`.spec.cluster`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type NodePool struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              NodePoolSpec   `json:"spec"`
	Status            NodePoolStatus `json:"status,omitempty"`
}

// NodePoolSpec says how many hosts, which, and what they run.
type NodePoolSpec struct {
	// Replicas is how many hosts the pool claims.
	// +kubebuilder:validation:Minimum=0
	Replicas int32 `json:"replicas"`
	// HostSelector narrows the hosts by label; all hosts of the namespace where it is empty.
	HostSelector *metav1.LabelSelector `json:"hostSelector,omitempty"`
	// Method is how the image gets onto a host.
	// +kubebuilder:validation:Enum=diskless;install
	// +kubebuilder:default=diskless
	Method string `json:"method,omitempty"`
	// Cleaning is how a host is erased that leaves the pool: full erases and verifies every drive, metadata removes partition
	// tables only, disabled erases nothing.
	// +kubebuilder:validation:Enum=full;metadata;disabled
	// +kubebuilder:default=full
	Cleaning string `json:"cleaning,omitempty"`
	// OverwriteDisks says in advance that hosts may be claimed whose disks held partitions when they were first inspected.
	// Without it a person must take each such host.
	OverwriteDisks bool `json:"overwriteDisks,omitempty"`
	// DrainTimeout is how long pods may take to leave a Node before its host is released all the same; 10 minutes where it
	// is not given.
	DrainTimeout *metav1.Duration `json:"drainTimeout,omitempty"`
	// Image names an Image.
	// +kubebuilder:validation:MinLength=1
	Image string `json:"image"`
	// Cluster names a KubernetesCluster of the same namespace.
	// +kubebuilder:validation:MinLength=1
	Cluster string `json:"cluster"`
	// Labels go onto the pool's Nodes.
	Labels map[string]string `json:"labels,omitempty"`
	// Taints go onto the pool's Nodes at registration.
	Taints []Taint `json:"taints,omitempty"`
}

// NodePoolStatus counts the pool's hosts.
type NodePoolStatus struct {
	Claimed int32 `json:"claimed"`
	Ready   int32 `json:"ready"`
	// Conditions has Satisfied: the pool has the hosts it wants, or why not.
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// NodePoolList is a list of NodePool.
//
// +kubebuilder:object:root=true
type NodePoolList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []NodePool `json:"items"`
}
