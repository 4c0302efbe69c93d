// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Paths of the agent's endpoint. Every request is a POST of JSON over TLS to the site CA; every answer that is not 200 is
// an AgentError. An agent says hello, proves itself, then asks for the next order until it is told to stop.
const (
	// HelloPath takes a Hello and answers a Challenge.
	HelloPath = "/agent/v1/hello"
	// ProvePath takes a Proof and answers a Session.
	ProvePath = "/agent/v1/prove"
	// NextPath takes a Message and answers an Order, after up to 30 seconds. It needs the session's token.
	NextPath = "/agent/v1/next"
	// ReportPath takes a Report and answers {}. It needs the session's token.
	ReportPath = "/agent/v1/report"
	// DonePath takes a Done and answers {}. It needs the session's token.
	DonePath = "/agent/v1/done"
)

// Modes of an agent: where it runs.
const (
	// RamdiskMode is the ramdisk that inspects a host.
	RamdiskMode = "ramdisk"
	// InitrdMode is the initramfs of an OS image; it speaks only to report that it refuses to go on.
	InitrdMode = "initrd"
	// OSMode is the unit inside the OS image.
	OSMode = "os"
)

// Steps that an Order can ask for. Each may be repeated.
const (
	// WaitStep asks for nothing: call next again.
	WaitStep = "wait"
	// InspectStep asks for a Report with Facts, then Done.
	InspectStep = "inspect"
	// JoinStep hands over a JoinSeed; Done when kubelet runs with it.
	JoinStep = "join"
	// InstallStep asks the ramdisk to write what Order.Install says to one disk, verify it, and only then make it bootable.
	InstallStep = "install"
	// EraseStep asks the ramdisk to erase the drives that Order.Erase names.
	EraseStep = "erase"
	// PowerOffStep asks the machine to switch itself off after Done.
	PowerOffStep = "poweroff"
	// RefuseStep is never ordered: an agent in the initrd names it in Done with OK false when it refuses its image.
	RefuseStep = "refuse-image"
)

// Hello is what a machine says of itself before anything is proved. None of it is believed.
type Hello struct {
	Mode         string   `json:"mode"`
	AgentVersion string   `json:"agentVersion"`
	BootID       string   `json:"bootID"`
	SystemUUID   string   `json:"systemUUID,omitempty"`
	SerialNumber string   `json:"serialNumber,omitempty"`
	MACs         []string `json:"macs"`
	// BootMAC is the address of the device that the machine booted from.
	BootMAC string `json:"bootMAC,omitempty"`
	// RootHash is the dm-verity root hash of the running root, in OS mode.
	RootHash string `json:"rootHash,omitempty"`
	// Slot is the slot of its disk that the machine runs from or refuses, "a" or "b"; empty where the root is in memory.
	Slot string `json:"slot,omitempty"`
	// TPM is nil on a machine without one.
	TPM *TPMKeys `json:"tpm,omitempty"`
}

// TPMKeys are public areas as the TPM gives them.
type TPMKeys struct {
	// EK is the endorsement key's TPM2B_PUBLIC, by the TCG's low-range RSA 2048 template (L-1) or ECC P-256 (L-2).
	EK []byte `json:"ek"`
	// EKCertificate is the DER certificate from NV index 0x01C00002 or 0x01C0000A, empty where there is none.
	EKCertificate []byte `json:"ekCertificate,omitempty"`
	// AK is the attestation key's TPM2B_PUBLIC, a restricted signing key made for this boot.
	AK []byte `json:"ak"`
}

// Challenge is a secret that only the TPM with EK can open, and only beside AK (TPM2_ActivateCredential). Without a TPM
// both blobs are empty and the Proof's Secret too.
type Challenge struct {
	ID string `json:"id"`
	// CredentialBlob is a TPM2B_ID_OBJECT, EncryptedSecret a TPM2B_ENCRYPTED_SECRET, both with their size prefix.
	CredentialBlob  []byte `json:"credentialBlob,omitempty"`
	EncryptedSecret []byte `json:"encryptedSecret,omitempty"`
}

// Proof answers a Challenge once.
type Proof struct {
	ChallengeID string `json:"challengeID"`
	Secret      []byte `json:"secret,omitempty"`
}

// Session is good for one host, one epoch, one boot.
type Session struct {
	Token     string      `json:"token"`
	Host      HostRef     `json:"host"`
	Epoch     int64       `json:"epoch"`
	ExpiresAt metav1.Time `json:"expiresAt"`
}

// HostRef names a BareMetalHost beyond its name: a host that is deleted and made again is another.
type HostRef struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
}

// Message is what every call after the proof carries. A call with an old epoch gets 409 and nothing else.
type Message struct {
	HostUID string `json:"hostUID"`
	Epoch   int64  `json:"epoch"`
	Step    string `json:"step,omitempty"`
}

// Order is the next thing to do.
type Order struct {
	Message `json:",inline"`
	// Join is set in a JoinStep.
	Join *JoinSeed `json:"join,omitempty"`
	// Install is set in an InstallStep, Erase in an EraseStep.
	Install *InstallPlan `json:"install,omitempty"`
	Erase   *ErasePlan   `json:"erase,omitempty"`
}

// DiskTarget is one disk, as an inspection saw it. Whoever writes to it checks first that the disk in front of them is this
// one: the serial number or WWN that is given must match, and the size; names change from boot to boot.
type DiskTarget struct {
	// Name is the kernel's at the inspection, as nvme0n1.
	Name         string `json:"name"`
	SerialNumber string `json:"serialNumber,omitempty"`
	WWN          string `json:"wwn,omitempty"`
	Model        string `json:"model,omitempty"`
	SizeBytes    int64  `json:"sizeBytes"`
	PCIAddress   string `json:"pciAddress,omitempty"`
	HCTL         string `json:"hctl,omitempty"`
}

// InstallPlan says what one disk shall hold: an Image in slots, or a user's own raw image as it is. Exactly one of Image
// and Raw is set.
type InstallPlan struct {
	// ID is a UUID, one for each deployment on a host. It becomes the GPT's disk GUID of an Image: a disk that has it, and
	// whose content is right, is not written again.
	ID    string      `json:"id"`
	Disk  DiskTarget  `json:"disk"`
	Image *ImageFiles `json:"image,omitempty"`
	Raw   *RawImage   `json:"raw,omitempty"`
}

// ImageFiles are an Image's files, fetched from the boot server by digest.
type ImageFiles struct {
	UKI  File     `json:"uki"`
	Root RootFile `json:"root"`
	// RootHash is the dm-verity root hash in hex.
	RootHash string `json:"rootHash"`
	// Loader is the boot loader that chooses between slots and counts boots.
	Loader File `json:"loader"`
}

// RawImage is a disk image of a user's, with the checksum that Metal3's spec.image asks for. An image that ends in .zst or
// .gz is unpacked while it is written; the checksum is of the file as it is fetched.
type RawImage struct {
	URL string `json:"url"`
	// Checksum is in hex, or the http URL of a file that lists it beside the image's name; ChecksumType is md5, sha256, sha512, or
	// empty or auto where the length tells.
	Checksum     string `json:"checksum"`
	ChecksumType string `json:"checksumType"`
	// ConfigDrive is a file system labelled config-2, which gets a partition of its own at the disk's end; empty for none.
	// It may hold secrets.
	ConfigDrive []byte `json:"configDrive,omitempty"`
}

// Modes of an erase.
const (
	// EraseFull makes every drive give back nothing of what it held, and reads it back.
	EraseFull = "full"
	// EraseMetadata removes partition tables and the beginnings of file systems.
	EraseMetadata = "metadata"
)

// ErasePlan says which drives to erase, and how.
type ErasePlan struct {
	// Mode is EraseFull or EraseMetadata.
	Mode string `json:"mode"`
	// Drives are all that the last inspection saw. A drive that is missing, and one that is not listed, is an error that names
	// it; the others are erased all the same.
	Drives []DiskTarget `json:"drives"`
}

// DriveErasure is how the erase of one drive went; an auditor reads it.
type DriveErasure struct {
	Name         string `json:"name"`
	SerialNumber string `json:"serialNumber,omitempty"`
	WWN          string `json:"wwn,omitempty"`
	Model        string `json:"model,omitempty"`
	SizeBytes    int64  `json:"sizeBytes,omitempty"`
	// Method is what did it: nvme-sanitize-crypto, nvme-sanitize-block, nvme-format-crypto, nvme-format, ata-secure-erase-enhanced,
	// ata-secure-erase, scsi-sanitize-crypto, scsi-sanitize, secure-discard, discard, overwrite, metadata.
	Method string `json:"method,omitempty"`
	// Tried are the methods before it that the drive does not have or failed at, one line each.
	Tried   []string     `json:"tried,omitempty"`
	Started metav1.Time  `json:"started"`
	Ended   *metav1.Time `json:"ended,omitempty"`
	// Verified is how the result was checked, as "read 64 MiB in 64 places, all zero"; empty where it was not.
	Verified string `json:"verified,omitempty"`
	OK       bool   `json:"ok"`
	Error    string `json:"error,omitempty"`
}

// JoinSeed is what a host needs to become a Node. It holds a secret and is released once a boot.
type JoinSeed struct {
	NodeName string `json:"nodeName"`
	// BootstrapKubeconfig is a kubeconfig with a bootstrap token of a few minutes' life.
	BootstrapKubeconfig string `json:"bootstrapKubeconfig"`
	// ClusterCA is the cluster's authority in PEM: who the kubelet lets in (logs, exec). Empty lets nobody in.
	ClusterCA string `json:"clusterCA,omitempty"`
	// KubeletConfig is a KubeletConfiguration in YAML.
	KubeletConfig string `json:"kubeletConfig"`
	// NodeIP is the address the kubelet should use, empty to let it choose.
	NodeIP string `json:"nodeIP,omitempty"`
	// NodeLabels are given to the kubelet at registration (only labels a kubelet may set itself).
	NodeLabels map[string]string `json:"nodeLabels,omitempty"`
	// Taints are given to the kubelet at registration.
	Taints []Taint `json:"taints,omitempty"`
}

// Report carries facts, or how far a long step is. An agent reports progress at most once in five seconds and at least once
// a minute while it gets on.
type Report struct {
	Message  `json:",inline"`
	Facts    *HostFacts    `json:"facts,omitempty"`
	Progress *StepProgress `json:"progress,omitempty"`
}

// StepProgress is how far a long step is.
type StepProgress struct {
	// Doing is a phrase, as "writing root-a of nvme0n1".
	Doing string `json:"doing"`
	// Done of Total bytes; Total is 0 where nobody can tell.
	Done  int64 `json:"done,omitempty"`
	Total int64 `json:"total,omitempty"`
}

// Done says how a step ended.
type Done struct {
	Message `json:",inline"`
	OK      bool   `json:"ok"`
	Text    string `json:"text,omitempty"`
	// Erased is one record a drive, after an EraseStep.
	Erased []DriveErasure `json:"erased,omitempty"`
	// AlreadyThere says of an InstallStep that the disk had held it all before, and nothing was written.
	AlreadyThere bool `json:"alreadyThere,omitempty"`
}

// AgentError is the body of every answer that is not 200.
type AgentError struct {
	// Reason is a CamelCase word: UnknownMachine, TPMChanged, NoTPM, NotOrdered, ProofFailed, OldEpoch, NoSession, BadRequest.
	Reason  string `json:"reason"`
	Message string `json:"message"`
}
