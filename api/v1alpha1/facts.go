// SPDX-License-Identifier: Apache-2.0

package v1alpha1

// HostFacts is one inspection by the agent: slow facts, with their units in the names.
type HostFacts struct {
	Hostname string       `json:"hostname,omitempty"`
	Kernel   string       `json:"kernel,omitempty"`
	System   SystemFacts  `json:"system,omitempty"`
	CPU      CPUFacts     `json:"cpu,omitempty"`
	Memory   MemoryFacts  `json:"memory,omitempty"`
	Disks    []DiskFacts  `json:"disks,omitempty"`
	NICs     []NICFacts   `json:"nics,omitempty"`
	PCI      []PCIFacts   `json:"pci,omitempty"`
	TPM      *TPMFacts    `json:"tpm,omitempty"`
	Firmware FirmwareBoot `json:"firmware,omitempty"`
	// Problems are facts that could not be read, one line each.
	Problems []string `json:"problems,omitempty"`
}

// SystemFacts come from SMBIOS types 1 and 0.
type SystemFacts struct {
	Manufacturer string `json:"manufacturer,omitempty"`
	Product      string `json:"product,omitempty"`
	SerialNumber string `json:"serialNumber,omitempty"`
	UUID         string `json:"uuid,omitempty"`
	BIOSVendor   string `json:"biosVendor,omitempty"`
	BIOSVersion  string `json:"biosVersion,omitempty"`
	BIOSDate     string `json:"biosDate,omitempty"`
}

// CPUFacts counts what the kernel sees.
type CPUFacts struct {
	// Architecture is Go's word: amd64 or arm64.
	Architecture string   `json:"architecture,omitempty"`
	Model        string   `json:"model,omitempty"`
	Sockets      int      `json:"sockets,omitempty"`
	Cores        int      `json:"cores,omitempty"`
	Threads      int      `json:"threads,omitempty"`
	NUMANodes    int      `json:"numaNodes,omitempty"`
	MHz          int      `json:"mhz,omitempty"`
	Flags        []string `json:"flags,omitempty"`
}

// MemoryFacts has the kernel's total and the modules of SMBIOS type 17.
type MemoryFacts struct {
	TotalMiB int64       `json:"totalMiB,omitempty"`
	DIMMs    []DIMMFacts `json:"dimms,omitempty"`
}

// DIMMFacts is one populated memory slot.
type DIMMFacts struct {
	Slot         string `json:"slot,omitempty"`
	SizeMiB      int64  `json:"sizeMiB,omitempty"`
	Type         string `json:"type,omitempty"`
	SpeedMTs     int    `json:"speedMTs,omitempty"`
	Manufacturer string `json:"manufacturer,omitempty"`
	PartNumber   string `json:"partNumber,omitempty"`
	SerialNumber string `json:"serialNumber,omitempty"`
}

// DiskFacts is one block device of /sys/block that is a disk.
type DiskFacts struct {
	Name         string `json:"name"`
	SizeBytes    int64  `json:"sizeBytes,omitempty"`
	Rotational   bool   `json:"rotational,omitempty"`
	Transport    string `json:"transport,omitempty"`
	Model        string `json:"model,omitempty"`
	Vendor       string `json:"vendor,omitempty"`
	SerialNumber string `json:"serialNumber,omitempty"`
	WWN          string `json:"wwn,omitempty"`
	// WWNVendorExtension is the second half of a 128-bit NAA identifier, which WWN then lacks.
	WWNVendorExtension string `json:"wwnVendorExtension,omitempty"`
	// Links are the names that udev would give the disk below /dev/disk/by-path.
	Links      []string `json:"links,omitempty"`
	PCIAddress string   `json:"pciAddress,omitempty"`
	HCTL       string   `json:"hctl,omitempty"`
	// Partitions counts the partitions that the kernel sees; a disk with any is not touched until the host is taken.
	Partitions int `json:"partitions,omitempty"`
}

// NICFacts is one network device with a bus address.
type NICFacts struct {
	Name       string   `json:"name"`
	MAC        string   `json:"mac,omitempty"`
	Driver     string   `json:"driver,omitempty"`
	PCIAddress string   `json:"pciAddress,omitempty"`
	VendorID   string   `json:"vendorID,omitempty"`
	DeviceID   string   `json:"deviceID,omitempty"`
	SpeedMbps  int      `json:"speedMbps,omitempty"`
	Link       bool     `json:"link,omitempty"`
	MTU        int      `json:"mtu,omitempty"`
	IPs        []string `json:"ips,omitempty"`
	Boot       bool     `json:"boot,omitempty"`
}

// PCIFacts is one PCI function, as /sys/bus/pci/devices shows it; ids are four hex digits, class six.
type PCIFacts struct {
	Address         string `json:"address"`
	Class           string `json:"class,omitempty"`
	VendorID        string `json:"vendorID,omitempty"`
	DeviceID        string `json:"deviceID,omitempty"`
	SubsystemVendor string `json:"subsystemVendorID,omitempty"`
	SubsystemDevice string `json:"subsystemDeviceID,omitempty"`
	Driver          string `json:"driver,omitempty"`
	NUMANode        int    `json:"numaNode,omitempty"`
	LinkSpeed       string `json:"linkSpeed,omitempty"`
	LinkWidth       string `json:"linkWidth,omitempty"`
	MaxLinkSpeed    string `json:"maxLinkSpeed,omitempty"`
	MaxLinkWidth    string `json:"maxLinkWidth,omitempty"`
	// Kind is what metald takes the function for: gpu, nvswitch, dpu, nic, infiniband, nvme, storage, bridge, other.
	Kind string `json:"kind,omitempty"`
}

// TPMFacts is what TPM2_GetCapability says.
type TPMFacts struct {
	Version      string `json:"version,omitempty"`
	Manufacturer string `json:"manufacturer,omitempty"`
	Firmware     string `json:"firmware,omitempty"`
}

// FirmwareBoot is how the machine was started.
type FirmwareBoot struct {
	// Mode is "uefi" or "bios".
	Mode       string `json:"mode,omitempty"`
	SecureBoot bool   `json:"secureBoot,omitempty"`
	SetupMode  bool   `json:"setupMode,omitempty"`
}
