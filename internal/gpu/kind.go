// SPDX-License-Identifier: Apache-2.0

package gpu

import "strings"

// Kinds that PCIFacts.Kind can have.
const (
	KindGPU        = "gpu"
	KindNVSwitch   = "nvswitch"
	KindDPU        = "dpu"
	KindNIC        = "nic"
	KindInfiniBand = "infiniband"
	KindNVMe       = "nvme"
	KindStorage    = "storage"
	KindBridge     = "bridge"
	KindOther      = "other"
)

// Vendors of the PCI ID list that a rule below needs.
const (
	vendorNVIDIA   = "10de"
	vendorAMD      = "1002"
	vendorMellanox = "15b3"
)

// blueFields are the network functions of BlueField cards. They look like any ConnectX by class; only the device id
// tells that a computer sits behind them.
var blueFields = map[string]bool{
	"a2d2": true, // BlueField, integrated ConnectX-5
	"a2d6": true, // BlueField-2, integrated ConnectX-6 Dx
	"a2dc": true, // BlueField-3, integrated ConnectX-7
	"a2df": true, // BlueField-4, integrated ConnectX-9
}

// kindOf says what a function is, by its class (six digits: base, sub, interface), vendor and device.
func kindOf(class, vendor, device string) string {
	switch {
	case vendor == vendorMellanox && blueFields[device]:
		return KindDPU
	case vendor == vendorNVIDIA && strings.HasPrefix(class, "0680"):
		return KindNVSwitch // "other bridge": NVIDIA's NVLink switches show themselves so
	case strings.HasPrefix(class, "0302"), strings.HasPrefix(class, "1200"):
		return KindGPU // 3D controller, processing accelerator: no display attached
	case strings.HasPrefix(class, "03") && (vendor == vendorNVIDIA || vendor == vendorAMD):
		return KindGPU // a VGA function of any other vendor on a server is its BMC's
	case strings.HasPrefix(class, "0207"):
		return KindInfiniBand
	case strings.HasPrefix(class, "02"):
		return KindNIC
	case strings.HasPrefix(class, "0108"):
		return KindNVMe
	case strings.HasPrefix(class, "01"):
		return KindStorage
	case strings.HasPrefix(class, "06"):
		return KindBridge
	default:
		return KindOther
	}
}
