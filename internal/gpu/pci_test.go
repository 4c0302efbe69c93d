// SPDX-License-Identifier: Apache-2.0

package gpu

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"metald.io/metald/api/v1alpha1"
)

// machine makes a directory with the given PCI functions: address, then attribute, then text. An attribute "driver" or
// "physfn" becomes a link, as in sysfs.
func machine(t *testing.T, functions map[string]map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for address, attributes := range functions {
		dir := filepath.Join(root, devicesDir, address)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range attributes {
			var err error
			if name == "driver" || name == "physfn" {
				err = os.Symlink(text, filepath.Join(dir, name))
			} else {
				err = os.WriteFile(filepath.Join(dir, name), []byte(text+"\n"), 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	return root
}

func TestPCI(t *testing.T) {
	root := machine(t, map[string]map[string]string{
		"0000:1b:00.0": {
			"vendor": "0x10de", "device": "0x2330", "class": "0x030200", "subsystem_vendor": "0x10de",
			"subsystem_device": "0x16c1", "numa_node": "0", "driver": "../../../bus/pci/drivers/nvidia",
			"current_link_speed": "16.0 GT/s PCIe", "current_link_width": "8",
			"max_link_speed": "32.0 GT/s PCIe", "max_link_width": "16",
		},
		"0000:00:01.0": {
			"vendor": "0x8086", "device": "0x1237", "class": "0x060000", "numa_node": "-1",
			"current_link_speed": "Unknown", "current_link_width": "0", "max_link_speed": "Unknown", "max_link_width": "255",
		},
		"0000:18:00.2": {"vendor": "0x15b3", "device": "0x101e", "class": "0x020000", "physfn": "../0000:18:00.0"},
	})
	got, err := PCI(root)
	if err != nil {
		t.Fatal(err)
	}
	want := []v1alpha1.PCIFacts{
		{Address: "0000:00:01.0", Class: "060000", VendorID: "8086", DeviceID: "1237", NUMANode: -1, Kind: KindBridge},
		{
			Address: "0000:1b:00.0", Class: "030200", VendorID: "10de", DeviceID: "2330", SubsystemVendor: "10de",
			SubsystemDevice: "16c1", Driver: "nvidia", NUMANode: 0, LinkSpeed: "16.0 GT/s PCIe", LinkWidth: "8",
			MaxLinkSpeed: "32.0 GT/s PCIe", MaxLinkWidth: "16", Kind: KindGPU,
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("PCI functions (-want +got):\n%s", diff)
	}
}

func TestPCIKeepsTheRestBesideABrokenFunction(t *testing.T) {
	root := machine(t, map[string]map[string]string{
		"0000:00:01.0": {"vendor": "0x8086", "device": "0x1237", "class": "0x060000"},
		"0000:00:02.0": {"vendor": "0x8086", "device": "12g7", "class": "0x060000"},
		"0000:00:03.0": {"vendor": "0x8086", "device": "0x1237"},
	})
	got, err := PCI(root)
	if len(got) != 1 || got[0].Address != "0000:00:01.0" {
		t.Errorf("got %v, want the one whole function", got)
	}
	for _, want := range []string{"0000:00:02.0", "0000:00:03.0"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not name %s", err, want)
		}
	}
}

func TestPCIWithoutABus(t *testing.T) {
	got, err := PCI(t.TempDir())
	if got != nil || err != nil {
		t.Errorf("got %v, %v, want nothing and no error", got, err)
	}
}

func TestKindOf(t *testing.T) {
	for _, test := range []struct{ name, class, vendor, device, want string }{
		{"H100", "030200", "10de", "2330", KindGPU},
		{"GeForce", "030000", "10de", "2684", KindGPU},
		{"MI300X", "120000", "1002", "74a1", KindGPU},
		{"BMC's VGA", "030000", "1a03", "2000", KindOther},
		{"NVSwitch", "068000", "10de", "22a3", KindNVSwitch},
		{"host bridge", "060000", "8086", "1237", KindBridge},
		{"BlueField-3", "020000", "15b3", "a2dc", KindDPU},
		{"BlueField-2 as InfiniBand", "020700", "15b3", "a2d6", KindDPU},
		{"ConnectX-7 Ethernet", "020000", "15b3", "1021", KindNIC},
		{"ConnectX-7 InfiniBand", "020700", "15b3", "1021", KindInfiniBand},
		{"NVMe", "010802", "144d", "a80a", KindNVMe},
		{"AHCI", "010601", "8086", "a1d2", KindStorage},
		{"USB", "0c0330", "8086", "a1af", KindOther},
	} {
		if got := kindOf(test.class, test.vendor, test.device); got != test.want {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
	}
}
