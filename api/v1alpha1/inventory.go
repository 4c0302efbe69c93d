// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// HostInventory is all that was seen of a host, in band and out of band: slow facts only, at most 256 KiB. It has its
// BareMetalHost's name and namespace. The agent's part of its status is written by the desk, the rest by the mind.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=hostinventories,shortName=hinv
// +kubebuilder:printcolumn:name="Vendor",type=string,JSONPath=`.status.bmc.manufacturer`
// +kubebuilder:printcolumn:name="Model",type=string,JSONPath=`.status.bmc.model`
// +kubebuilder:printcolumn:name="Serial",type=string,JSONPath=`.status.identity.serialNumber`
// +kubebuilder:printcolumn:name="Agent",type=date,JSONPath=`.status.agent.lastSeen`
type HostInventory struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Status            HostInventoryStatus `json:"status,omitempty"`
}

// HostInventoryStatus has three parts with one writer each: identity and bmc the mind, agent the desk.
type HostInventoryStatus struct {
	// Identity is the pinned evidence of who this host is. Only a person's act replaces what is pinned.
	Identity *Identity `json:"identity,omitempty"`
	// BMC is what the baseboard controller said.
	BMC *BMCFacts `json:"bmc,omitempty"`
	// Agent is what the agent said and proved.
	Agent *AgentFacts `json:"agent,omitempty"`
}

// Identity is evidence, strongest first. An empty field is not pinned yet.
type Identity struct {
	// EKSHA256 is the sha256 of the TPM's endorsement key (its TPM2B_PUBLIC bytes), in hex.
	EKSHA256 string `json:"ekSHA256,omitempty"`
	// BMCCertificateSHA256 is the sha256 of the BMC's leaf certificate (DER), in hex.
	BMCCertificateSHA256 string `json:"bmcCertificateSHA256,omitempty"`
	// BMCCertificatePinned is when that certificate was first met.
	BMCCertificatePinned *metav1.Time `json:"bmcCertificatePinned,omitempty"`
	SystemUUID           string       `json:"systemUUID,omitempty"`
	SerialNumber         string       `json:"serialNumber,omitempty"`
	// BootMAC is the MAC address the machine boots from, lower case with colons.
	BootMAC string `json:"bootMAC,omitempty"`
}

// BMCFacts is what Redfish or IPMI says of a host.
type BMCFacts struct {
	// Seen is when the BMC last answered; Error why it last did not.
	Seen  *metav1.Time `json:"seen,omitempty"`
	Error string       `json:"error,omitempty"`
	// Driver is the way that was chosen to talk to this BMC: "redfish" or "ipmi".
	Driver       string `json:"driver,omitempty"`
	Manufacturer string `json:"manufacturer,omitempty"`
	Model        string `json:"model,omitempty"`
	SerialNumber string `json:"serialNumber,omitempty"`
	SystemUUID   string `json:"systemUUID,omitempty"`
	BIOSVersion  string `json:"biosVersion,omitempty"`
	BMCVersion   string `json:"bmcVersion,omitempty"`
	// Power is On, Off or Unknown, as last read.
	Power string `json:"power,omitempty"`
	// CertificateSHA256 is the certificate that the BMC shows now; it differs from the pinned one after a change.
	CertificateSHA256 string `json:"certificateSHA256,omitempty"`
}

// AgentFacts is what the agent on the host says, and what its TPM has proved.
type AgentFacts struct {
	// Mode is where the agent runs: "ramdisk", "os", or "initrd" where an image was refused.
	Mode    string `json:"mode,omitempty"`
	Version string `json:"version,omitempty"`
	// BootID is the kernel's random boot id, new at each boot.
	BootID string `json:"bootID,omitempty"`
	// Epoch is the epoch under which the session was opened.
	Epoch     int64        `json:"epoch,omitempty"`
	FirstSeen *metav1.Time `json:"firstSeen,omitempty"`
	LastSeen  *metav1.Time `json:"lastSeen,omitempty"`
	// Proof is how the session was proved: "tpm" or "position".
	Proof string `json:"proof,omitempty"`
	// EKSHA256 is the endorsement key that was proved, in hex.
	EKSHA256 string `json:"ekSHA256,omitempty"`
	// Refusal is the last proof that was refused; it stays until a later session succeeds.
	Refusal *Refusal `json:"refusal,omitempty"`
	// Steps are the results of the steps of this epoch.
	Steps []StepResult `json:"steps,omitempty"`
	// Facts is the last inspection.
	Facts *HostFacts `json:"facts,omitempty"`
	// Slot is the slot of its disk that the machine runs from, empty where the root is in memory.
	Slot string `json:"slot,omitempty"`
	// Progress is how far the step at hand is, of this epoch; ProgressAt when that was said.
	Progress   *StepProgress `json:"progress,omitempty"`
	ProgressAt *metav1.Time  `json:"progressAt,omitempty"`
	// Inspected is the epoch that Facts belongs to.
	Inspected int64 `json:"inspected,omitempty"`
}

// Refusal says who was turned away, and why.
type Refusal struct {
	At metav1.Time `json:"at"`
	// Reason is a CamelCase word: TPMChanged, NoTPM, NotOrdered, ProofFailed, ImageRefused.
	Reason   string `json:"reason"`
	Message  string `json:"message"`
	EKSHA256 string `json:"ekSHA256,omitempty"`
	// RemoteIP is where the request came from.
	RemoteIP string `json:"remoteIP,omitempty"`
}

// StepResult is how a step on the host ended.
type StepResult struct {
	Step    string      `json:"step"`
	Epoch   int64       `json:"epoch"`
	At      metav1.Time `json:"at"`
	OK      bool        `json:"ok"`
	Message string      `json:"message,omitempty"`
	// Erased is one record a drive, after an erase.
	Erased []DriveErasure `json:"erased,omitempty"`
	// AlreadyThere says of an install that the disk had held it all before, and nothing was written.
	AlreadyThere bool `json:"alreadyThere,omitempty"`
}

// HostInventoryList is a list of HostInventory.
//
// +kubebuilder:object:root=true
type HostInventoryList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []HostInventory `json:"items"`
}
