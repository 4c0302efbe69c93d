// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// HostProgress says where a host is in its life: what it waits for, until when, who may switch its power, what it will be
// told when it boots. It has its BareMetalHost's name and namespace, and only the mind writes it.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=hostprogresses,shortName=hp
// +kubebuilder:printcolumn:name="State",type=string,JSONPath=`.status.state`
// +kubebuilder:printcolumn:name="Waiting For",type=string,JSONPath=`.status.waiting.for`
// +kubebuilder:printcolumn:name="Until",type=string,JSONPath=`.status.waiting.until`
// +kubebuilder:printcolumn:name="Epoch",type=integer,JSONPath=`.status.epoch`
type HostProgress struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Status            HostProgressStatus `json:"status,omitempty"`
}

// HostProgressStatus is what the mind remembers of its own work on a host.
type HostProgressStatus struct {
	// State is the Metal3 provisioning state, repeated here so that one object tells the story.
	State string `json:"state,omitempty"`
	// Since is when the state was entered.
	Since *metav1.Time `json:"since,omitempty"`
	// Epoch counts the orders of power: each power-on that metald orders raises it. A message of an older epoch is refused.
	Epoch int64 `json:"epoch,omitempty"`
	// Waiting is what the host waits for right now; nil in a final state.
	Waiting *Waiting `json:"waiting,omitempty"`
	// Power is who may switch the machine now, and why.
	Power *PowerLease `json:"power,omitempty"`
	// Boot is the answer a booting machine gets, set before the power-on it belongs to.
	Boot *BootOrder `json:"boot,omitempty"`
	// Leaving is how far a released host is; nil while it is wanted.
	Leaving *Leaving `json:"leaving,omitempty"`
	// Erase is the last erase of the host's drives.
	Erase *Erase `json:"erase,omitempty"`
	// Deployment is what the host was told to run, by digest, from the moment it was claimed.
	Deployment *Deployment `json:"deployment,omitempty"`
	// Join is the credential given for joining the cluster, without its secret part.
	Join *JoinGrant `json:"join,omitempty"`
	// Attempts counts failures of the current state.
	Attempts int `json:"attempts,omitempty"`
	// NextTry is when the next attempt is due, after a failure.
	NextTry *metav1.Time `json:"nextTry,omitempty"`
	// LastError is the last failure, in words for a person.
	LastError string `json:"lastError,omitempty"`
	// Transitions are the last 50 changes of state, oldest first.
	Transitions []Transition `json:"transitions,omitempty"`
	// Phases are the timed parts of the host's way to Ready, in order; a repeated phase starts anew.
	Phases []Phase `json:"phases,omitempty"`
}

// Waiting is the one line that says why a host is not further.
type Waiting struct {
	// For is what is awaited, as a noun phrase: "the agent's first report".
	For string `json:"for"`
	// Reason is a CamelCase word for programs.
	Reason string      `json:"reason"`
	Since  metav1.Time `json:"since"`
	// Until is the deadline; nil where only a person can end the wait.
	Until *metav1.Time `json:"until,omitempty"`
	// Action is what a person can do, empty where nothing is needed.
	Action string `json:"action,omitempty"`
}

// PowerLease names the one owner of a host's power.
type PowerLease struct {
	Owner  string      `json:"owner"`
	Reason string      `json:"reason"`
	Epoch  int64       `json:"epoch"`
	Since  metav1.Time `json:"since"`
	// Counted says that ending what ran was counted against the cap on destructive acts.
	Counted bool `json:"counted,omitempty"`
}

// BootOrder is what a machine gets when it asks the network for a boot file.
type BootOrder struct {
	// Answer is "ramdisk", "image", "disk" (the machine boots by itself from its disk) or "none".
	Answer string `json:"answer"`
	// Digest is the sha256 of the file that is offered, in hex.
	Digest string `json:"digest,omitempty"`
	Epoch  int64  `json:"epoch"`
	// Ordered is when metald ordered the boot.
	Ordered metav1.Time `json:"ordered"`
	// Deadline is when a boot that did not report is called failed.
	Deadline metav1.Time `json:"deadline"`
	// Asked is when the machine last asked for its boot file.
	Asked *metav1.Time `json:"asked,omitempty"`
	// Sent is when the whole boot file was last sent to the machine.
	Sent *metav1.Time `json:"sent,omitempty"`
}

// Deployment pins what a host runs.
type Deployment struct {
	// Pool is the NodePool, as namespace/name; empty where a user's own image is written.
	Pool string `json:"pool,omitempty"`
	// Method is metald-diskless or metald-install; empty where a user's own image is written.
	Method string `json:"method,omitempty"`
	// Image is the Image's name.
	Image string `json:"image,omitempty"`
	// UKI and Root are sha256 digests in hex; RootHash is the dm-verity root hash.
	UKI      string `json:"uki,omitempty"`
	Root     string `json:"root,omitempty"`
	RootHash string `json:"rootHash,omitempty"`
	// Cluster is the KubernetesCluster, as namespace/name; empty where the host joins none.
	Cluster string `json:"cluster,omitempty"`
	// Cleaning is how the host is erased when it leaves: full, metadata or disabled.
	Cleaning string `json:"cleaning,omitempty"`
	// Install is what is written to which disk; nil where the host runs from memory.
	Install *Installation `json:"install,omitempty"`
}

// Installation is one disk and what it shall hold.
type Installation struct {
	// ID is the InstallPlan's.
	ID   string     `json:"id"`
	Disk DiskTarget `json:"disk"`
	// Allowed is when the cap on destructive acts let the write pass; nil before.
	Allowed *metav1.Time `json:"allowed,omitempty"`
	// Written is when the agent had written and verified it; nil before.
	Written *metav1.Time `json:"written,omitempty"`
	// Epoch is the boot in which it was written.
	Epoch int64 `json:"epoch,omitempty"`
	// Raw is a user's own image, without its config drive; nil for an Image.
	Raw *RawImage `json:"raw,omitempty"`
}

// Leaving is how far a host is that nobody wants any more.
type Leaving struct {
	Since metav1.Time `json:"since"`
	// DrainUntil is when pods that are still there are no longer waited for.
	DrainUntil metav1.Time `json:"drainUntil"`
	// Cordoned, Drained and Removed are when the Node was closed to new pods, was empty (or its time was up), and was deleted.
	Cordoned *metav1.Time `json:"cordoned,omitempty"`
	Drained  *metav1.Time `json:"drained,omitempty"`
	Removed  *metav1.Time `json:"removed,omitempty"`
	// LeftBehind are the pods that had not gone when the time was up.
	LeftBehind []string `json:"leftBehind,omitempty"`
	// Stopped is when the machine was seen off after that.
	Stopped *metav1.Time `json:"stopped,omitempty"`
	// Cleaning is what the host's deployment asked for.
	Cleaning string `json:"cleaning,omitempty"`
}

// Erase is one erase of all drives of a host.
type Erase struct {
	// Mode is full or metadata.
	Mode  string       `json:"mode"`
	Epoch int64        `json:"epoch"`
	Begun metav1.Time  `json:"begun"`
	Ended *metav1.Time `json:"ended,omitempty"`
	OK    bool         `json:"ok"`
	// Drives is one record a drive.
	Drives []DriveErasure `json:"drives,omitempty"`
}

// JoinGrant is a bootstrap credential that was released to one boot of one host.
type JoinGrant struct {
	// TokenID is the public half of the bootstrap token.
	TokenID string      `json:"tokenID"`
	Epoch   int64       `json:"epoch"`
	BootID  string      `json:"bootID"`
	Granted metav1.Time `json:"granted"`
	Expires metav1.Time `json:"expires"`
	// Approved names the certificate request that was approved for it.
	Approved string `json:"approved,omitempty"`
	// Used is when the credential was removed after use.
	Used *metav1.Time `json:"used,omitempty"`
}

// Transition is one change of state.
type Transition struct {
	From string      `json:"from"`
	On   string      `json:"on"`
	To   string      `json:"to"`
	At   metav1.Time `json:"at"`
}

// Phase is a timed part of a host's way.
type Phase struct {
	Name  string       `json:"name"`
	Start metav1.Time  `json:"start"`
	End   *metav1.Time `json:"end,omitempty"`
}

// HostProgressList is a list of HostProgress.
//
// +kubebuilder:object:root=true
type HostProgressList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []HostProgress `json:"items"`
}
