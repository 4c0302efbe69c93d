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

// Report carries facts.
type Report struct {
	Message `json:",inline"`
	Facts   *HostFacts `json:"facts,omitempty"`
}

// Done says how a step ended.
type Done struct {
	Message `json:",inline"`
	OK      bool   `json:"ok"`
	Text    string `json:"text,omitempty"`
}

// AgentError is the body of every answer that is not 200.
type AgentError struct {
	// Reason is a CamelCase word: UnknownMachine, TPMChanged, NoTPM, NotOrdered, ProofFailed, OldEpoch, NoSession, BadRequest.
	Reason  string `json:"reason"`
	Message string `json:"message"`
}
