// SPDX-License-Identifier: Apache-2.0

package v1alpha1

// Annotations and labels that metald reads or writes on objects.
const (
	// TakenAnnotation on a BareMetalHost says that a person allows metald to power-cycle a machine that was found running.
	// Its value says who and why.
	TakenAnnotation = "metald.io/taken"
	// NoTPMAnnotation on a BareMetalHost exempts it from TPM proof; its value is the reason, shown in status and audit.
	NoTPMAnnotation = "metald.io/no-tpm"
	// BMCCertificateAnnotation on a BareMetalHost is the sha256 (hex) of the one BMC certificate a person accepts: given at
	// import it is demanded on first contact, changed later it replaces the pin.
	BMCCertificateAnnotation = "metald.io/bmc-certificate-sha256"
	// SerialNumberAnnotation on a BareMetalHost is the serial number that a person read off the machine: a BMC that names another
	// one is not this host's.
	SerialNumberAnnotation = "metald.io/serial-number"
	// ReinstallAnnotation on a BareMetalHost asks for its disk to be written anew, with all that the disk holds lost. Its value
	// says who and why; it is removed when the work begins.
	ReinstallAnnotation = "metald.io/reinstall"
	// PausedAnnotation is Metal3's: it stops all work on a host. On a NodePool it stops all work on the pool's hosts and its
	// claiming and releasing; on the Namespace OwnNamespace it stops all work on every host there is or will be.
	PausedAnnotation = "baremetalhost.metal3.io/paused"
	// OwnNamespace is the Namespace that is there from the first start on and stands for metald itself.
	OwnNamespace = "metald"

	// HostLabel on a Node names the BareMetalHost behind it, as namespace.name.
	HostLabel = "metald.io/host"
	// PoolLabel on a BareMetalHost and a Node names the NodePool that owns it.
	PoolLabel = "metald.io/pool"
	// ImageLabel on a Node names the Image it runs.
	ImageLabel = "metald.io/image"

	// RegionLabel, ZoneLabel and RackLabel say where a host stands; they are copied from the BareMetalHost to its Node.
	RegionLabel = "topology.kubernetes.io/region"
	ZoneLabel   = "topology.kubernetes.io/zone"
	RackLabel   = "metald.io/rack"

	// HostFinalizer is Metal3's: a BareMetalHost stays until metald has let go of the machine.
	HostFinalizer = "baremetalhost.metal3.io"
	// PoolFieldManager owns what a NodePool writes into a BareMetalHost's spec.
	PoolFieldManager = "metald-pool"

	// DisklessMethod is the customDeploy method that boots an Image over the network and keeps it in memory.
	DisklessMethod = "metald-diskless"
	// InstallMethod is the customDeploy method that writes an Image to disk.
	InstallMethod = "metald-install"

	// CredentialsLabel marks a Secret that holds BMC credentials, as Metal3 has it.
	CredentialsLabel = "environment.metal3.io"
	// CredentialsLabelValue is the value Metal3 gives CredentialsLabel.
	CredentialsLabelValue = "baremetal"
)

// Conditions that metald sets on a BareMetalHost beside Metal3's own.
const (
	// StalledCondition is true when a state or a step is past its limit, with the cause.
	StalledCondition = "Stalled"
	// AttestedCondition is true when the machine's TPM has proved to be the pinned one.
	AttestedCondition = "Attested"
	// ErasedCondition says whether the host's drives hold nothing of who had it last.
	ErasedCondition = "Erased"
	// ObservedCondition is false, and there at all, on a host that was not looked at since the inventory was restored from a backup.
	ObservedCondition = "Observed"
	// JoinedCondition is true when the host's Node exists and the cluster calls it Ready.
	JoinedCondition = "Joined"
)
