// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Image is an immutable OS image by digest: a read-only root under dm-verity and a UKI whose command line holds the root
// hash. Its files lie in the daemon's data directory, found by digest.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster
// +kubebuilder:printcolumn:name="Arch",type=string,JSONPath=`.spec.architecture`
// +kubebuilder:printcolumn:name="Kubernetes",type=string,JSONPath=`.spec.kubernetesVersion`
// +kubebuilder:printcolumn:name="Root Hash",type=string,JSONPath=`.spec.rootHash`,priority=1
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Image struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="an Image is immutable: make a new one"
	Spec   ImageSpec   `json:"spec"`
	Status ImageStatus `json:"status,omitempty"`
}

// ImageSpec is written by `metald image build` into image.yaml, and never changed.
type ImageSpec struct {
	// Architecture is Go's word: amd64 or arm64.
	// +kubebuilder:validation:Enum=amd64;arm64
	Architecture string `json:"architecture"`
	// OS is the PRETTY_NAME of the root.
	OS string `json:"os,omitempty"`
	// Kernel is the kernel's release.
	Kernel string `json:"kernel,omitempty"`
	// KubernetesVersion is the kubelet's version, as v1.36.3.
	KubernetesVersion string `json:"kubernetesVersion,omitempty"`
	// UKI is the unified kernel image that firmware boots.
	UKI File `json:"uki"`
	// Root is the file system (erofs or squashfs) with its dm-verity hash tree appended.
	Root RootFile `json:"root"`
	// Loader is the boot loader for disks (systemd-boot); an image without one runs diskless only.
	Loader *File `json:"loader,omitempty"`
	// RootHash is the dm-verity root hash in hex, which the UKI's command line holds.
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{64}$`
	RootHash string `json:"rootHash"`
	// LockSHA256 is the digest of the lock file that the image was built from.
	LockSHA256 string `json:"lockSHA256,omitempty"`
}

// File is named by its content.
type File struct {
	// SHA256 is the digest in hex.
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{64}$`
	SHA256 string `json:"sha256"`
	// SizeBytes is its length.
	SizeBytes int64 `json:"sizeBytes"`
}

// RootFile is a root file system with its hash tree behind it.
type RootFile struct {
	File `json:",inline"`
	// Format is erofs or squashfs.
	// +kubebuilder:validation:Enum=erofs;squashfs
	Format string `json:"format"`
	// HashOffset is where the dm-verity superblock starts, in bytes; the file system is what lies before it.
	HashOffset int64 `json:"hashOffset"`
}

// ImageStatus says whether the daemon holds the files and they match.
type ImageStatus struct {
	// Conditions has Ready: its files are here and their digests are right.
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// ImageList is a list of Image.
//
// +kubebuilder:object:root=true
type ImageList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Image `json:"items"`
}
