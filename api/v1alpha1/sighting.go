// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Sighting is an unlisted BMC or an unknown booting machine: what it said and when. Only import or `metald host adopt`
// makes a host of it. At most 1,000 are kept, and each expires.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=sight
// +kubebuilder:printcolumn:name="Kind",type=string,JSONPath=`.status.kind`
// +kubebuilder:printcolumn:name="Address",type=string,JSONPath=`.status.address`
// +kubebuilder:printcolumn:name="MAC",type=string,JSONPath=`.status.mac`
// +kubebuilder:printcolumn:name="Said",type=string,JSONPath=`.status.said`
// +kubebuilder:printcolumn:name="Count",type=integer,JSONPath=`.status.count`
// +kubebuilder:printcolumn:name="Last",type=date,JSONPath=`.status.lastSeen`
type Sighting struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Status            SightingStatus `json:"status,omitempty"`
}

// SightingStatus is what a stranger said.
type SightingStatus struct {
	// Kind is "bmc", "boot" (a machine that asked for a boot file), "dhcp" (one that asked for an address) or "agent".
	Kind string `json:"kind,omitempty"`
	// Address is where it was met: an IP address, or the interface it asked on.
	Address string `json:"address,omitempty"`
	MAC     string `json:"mac,omitempty"`
	UUID    string `json:"uuid,omitempty"`
	// Said is what it told of itself in one line: vendor, product, architecture, client class. At most 256 bytes.
	Said string `json:"said,omitempty"`
	// CertificateSHA256 is the leaf certificate that a BMC showed, in hex.
	CertificateSHA256 string       `json:"certificateSHA256,omitempty"`
	FirstSeen         *metav1.Time `json:"firstSeen,omitempty"`
	LastSeen          *metav1.Time `json:"lastSeen,omitempty"`
	Count             int64        `json:"count,omitempty"`
}

// SightingList is a list of Sighting.
//
// +kubebuilder:object:root=true
type SightingList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Sighting `json:"items"`
}
