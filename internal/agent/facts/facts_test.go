// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"metald.io/metald/api/v1alpha1"
)

// link makes a symbolic link inside a machine, with the folders of both ends.
func link(t *testing.T, root, name, target string) {
	t.Helper()
	path := filepath.Join(root, name)
	for _, dir := range []string{filepath.Dir(path), filepath.Join(root, target)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	back, err := filepath.Rel(filepath.Dir(path), filepath.Join(root, target))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(back, path); err != nil {
		t.Fatal(err)
	}
}

func TestCPU(t *testing.T) {
	cpuinfo := ""
	files := map[string]string{"sys/devices/system/node/node0/cpulist": "0-3", "sys/devices/system/node/node1/cpulist": "4-7",
		"sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "3800000\n", "sys/devices/system/cpu/cpuidle/driver": "none"}
	for n := range 8 { // two sockets of two cores with two threads; core ids repeat from socket to socket
		cpuinfo += "processor\t: " + string(rune('0'+n)) + "\nmodel name\t: Xeon\ncpu MHz\t\t: 1000.5\nflags\t\t: sse avx\n\n"
		dir := "sys/devices/system/cpu/cpu" + string(rune('0'+n)) + "/topology/"
		files[dir+"core_id"] = string(rune('0' + n%2))
		files[dir+"physical_package_id"] = string(rune('0' + n/4))
	}
	files["proc/cpuinfo"] = cpuinfo
	var got v1alpha1.CPUFacts
	if err := (&reader{root: machine(t, files)}).cpu(&got); err != nil {
		t.Fatal(err)
	}
	want := v1alpha1.CPUFacts{
		Architecture: architecture, Model: "Xeon", Sockets: 2, Cores: 4, Threads: 8, NUMANodes: 2, MHz: 3800, Flags: []string{"avx", "sse"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDisks(t *testing.T) {
	root := machine(t, map[string]string{
		"sys/devices/pci0000:00/0000:00:01.0/0000:5e:00.0/nvme/nvme0/nvme0n1/size":                      "2048\n",
		"sys/devices/pci0000:00/0000:00:01.0/0000:5e:00.0/nvme/nvme0/nvme0n1/wwid":                      "eui.01\n",
		"sys/devices/pci0000:00/0000:00:01.0/0000:5e:00.0/nvme/nvme0/nvme0n1/queue/rotational":          "0\n",
		"sys/devices/pci0000:00/0000:00:01.0/0000:5e:00.0/nvme/nvme0/nvme0n1/nvme0n1p1/partition":       "1\n",
		"sys/devices/pci0000:00/0000:00:01.0/0000:5e:00.0/nvme/nvme0/nvme0n1/nvme0n1p2/partition":       "2\n",
		"sys/devices/pci0000:00/0000:00:01.0/0000:5e:00.0/nvme/nvme0/model":                             "Fast One   \n",
		"sys/devices/pci0000:00/0000:00:01.0/0000:5e:00.0/nvme/nvme0/serial":                            "N42\n",
		"sys/devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda/size":             "4096\n",
		"sys/devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda/queue/rotational": "1\n",
		"sys/devices/pci0000:00/0000:00:17.0/ata1/ata_port/ata1/port_no":                                "3\n",
		"sys/devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/wwid":                       "naa.6001405a1b2c3d4e5f60718293a4b5c6\n",
		"sys/devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/model":                      "Slow One\n",
		"sys/devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/vendor":                     "ATA     \n",
		"sys/devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/vpd_pg80":                   "\x00\x80\x00\x06  S42 ",
		"sys/block/loop0/size": "100\n",
		"sys/block/sr0/size":   "100\n",
		"sys/block/sdb/size":   "0\n",
	})
	nvme := "sys/devices/pci0000:00/0000:00:01.0/0000:5e:00.0/nvme/nvme0/nvme0n1"
	sata := "sys/devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda"
	link(t, root, "sys/block/nvme0n1", nvme)
	link(t, root, nvme+"/device", filepath.Dir(nvme))
	link(t, root, "sys/block/sda", sata)
	link(t, root, sata+"/device", filepath.Dir(filepath.Dir(sata)))
	got, err := (&reader{root: root}).disks()
	want := []v1alpha1.DiskFacts{
		{Name: "nvme0n1", SizeBytes: 1 << 20, Transport: "nvme", Model: "Fast One", SerialNumber: "N42", WWN: "eui.01", PCIAddress: "0000:5e:00.0", Partitions: 2,
			Links: []string{"/dev/disk/by-path/pci-0000:5e:00.0-nvme-1"}},
		{Name: "sda", SizeBytes: 2 << 20, Rotational: true, Transport: "sata", Model: "Slow One", Vendor: "ATA", SerialNumber: "S42", PCIAddress: "0000:00:17.0", HCTL: "0:0:0:0",
			WWN: "0x6001405a1b2c3d4e", WWNVendorExtension: "0x5f60718293a4b5c6", Links: []string{"/dev/disk/by-path/pci-0000:00:17.0-ata-3"}},
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestNICs(t *testing.T) {
	pf, virtio := "sys/devices/pci0000:00/0000:18:00.0", "sys/devices/pci0000:00/0000:00:03.0/virtio0"
	root := machine(t, map[string]string{
		pf + "/net/eth0/address": "52:54:00:AA:00:01\n", pf + "/net/eth0/carrier": "1\n", pf + "/net/eth0/speed": "400000\n", pf + "/net/eth0/mtu": "9000\n",
		pf + "/vendor": "0x15b3\n", pf + "/device": "0x1021\n",
		virtio + "/net/eth1/address": "52:54:00:aa:00:02\n", virtio + "/net/eth1/speed": "-1\n", virtio + "/net/eth1/mtu": "1500\n",
		"sys/devices/virtual/net/lo/address": "00:00:00:00:00:00\n",
	})
	link(t, root, "sys/class/net/eth0", pf+"/net/eth0")
	link(t, root, pf+"/net/eth0/device", pf)
	link(t, root, pf+"/driver", "sys/bus/pci/drivers/mlx5_core")
	link(t, root, "sys/bus/pci/devices/0000:18:00.0", pf)
	link(t, root, "sys/class/net/eth1", virtio+"/net/eth1")
	link(t, root, virtio+"/net/eth1/device", virtio)
	link(t, root, virtio+"/driver", "sys/bus/virtio/drivers/virtio_net")
	link(t, root, "sys/class/net/lo", "sys/devices/virtual/net/lo")
	vf := "sys/devices/pci0000:00/0000:18:00.2"
	link(t, root, vf+"/net/eth2/device", vf)
	link(t, root, vf+"/physfn", pf)
	link(t, root, "sys/class/net/eth2", vf+"/net/eth2")
	got, err := (&reader{root: root}).nics("52:54:00:aa:00:01")
	want := []v1alpha1.NICFacts{
		{Name: "eth0", MAC: "52:54:00:aa:00:01", Driver: "mlx5_core", PCIAddress: "0000:18:00.0", VendorID: "15b3", DeviceID: "1021", SpeedMbps: 400000,
			Link: true, MTU: 9000, Boot: true},
		{Name: "eth1", MAC: "52:54:00:aa:00:02", Driver: "virtio_net", PCIAddress: "0000:00:03.0", MTU: 1500},
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestFirmware(t *testing.T) {
	variable := func(name string) string { return "sys/firmware/efi/efivars/" + name + "-" + globalVariable }
	for _, test := range []struct {
		name  string
		files map[string]string
		want  v1alpha1.FirmwareBoot
		err   bool
	}{
		{"BIOS", nil, v1alpha1.FirmwareBoot{Mode: "bios"}, false},
		{"UEFI without Secure Boot", map[string]string{"sys/firmware/efi/systab": ""}, v1alpha1.FirmwareBoot{Mode: "uefi"}, false},
		{"Secure Boot", map[string]string{variable("SecureBoot"): "\x06\x00\x00\x00\x01", variable("SetupMode"): "\x06\x00\x00\x00\x00"},
			v1alpha1.FirmwareBoot{Mode: "uefi", SecureBoot: true}, false},
		{"setup mode", map[string]string{variable("SecureBoot"): "\x06\x00\x00\x00\x00", variable("SetupMode"): "\x06\x00\x00\x00\x01"},
			v1alpha1.FirmwareBoot{Mode: "uefi", SetupMode: true}, false},
		{"a broken variable", map[string]string{variable("SecureBoot"): "\x01"}, v1alpha1.FirmwareBoot{Mode: "uefi"}, true},
	} {
		var got v1alpha1.FirmwareBoot
		err := (&reader{root: machine(t, test.files)}).firmware(&got)
		if diff := cmp.Diff(test.want, got); diff != "" || (err != nil) != test.err {
			t.Errorf("%s: %v (-want +got):\n%s", test.name, err, diff)
		}
	}
}

func TestReadNamesWhatItCannotRead(t *testing.T) {
	got := Read(machine(t, map[string]string{"proc/sys/kernel/osrelease": "6.1\n", "proc/meminfo": "MemTotal: 2048 kB\n",
		"sys/firmware/dmi/tables/DMI": "\x01"}), "")
	if got.Kernel != "6.1" || got.Memory.TotalMiB != 2 {
		t.Errorf("what could be read is not there: %+v", got)
	}
	problems := strings.Join(got.Problems, "\n")
	for _, want := range []string{"reading SMBIOS", "reading processors"} {
		if !strings.Contains(problems, want) {
			t.Errorf("the problems %q do not tell of %s", problems, want)
		}
	}
	r := &reader{}
	r.try("odd", func() error { panic("strange firmware") })
	if len(r.problems) != 1 || !strings.Contains(r.problems[0], "strange firmware") {
		t.Errorf("a panic left %q", r.problems)
	}
}

func TestHello(t *testing.T) {
	nic := "sys/devices/pci0000:00/0000:18:00.0"
	root := machine(t, map[string]string{nic + "/net/eth0/address": "52:54:00:aa:00:01\n", "proc/sys/kernel/random/boot_id": "b\n"})
	link(t, root, "sys/class/net/eth0", nic+"/net/eth0")
	link(t, root, nic+"/net/eth0/device", nic)
	want := v1alpha1.Hello{BootID: "b", MACs: []string{"52:54:00:aa:00:01"}, BootMAC: "52:54:00:aa:00:01"}
	if diff := cmp.Diff(want, Hello(root, "52:54:00:aa:00:01")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	want.MACs, want.BootMAC = []string{"52:54:00:aa:00:09", "52:54:00:aa:00:01"}, "52:54:00:aa:00:09"
	if diff := cmp.Diff(want, Hello(root, "52:54:00:aa:00:09")); diff != "" {
		t.Errorf("a boot device that is not there any more (-want +got):\n%s", diff)
	}
}
