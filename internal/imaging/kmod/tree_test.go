// SPDX-License-Identifier: Apache-2.0

package kmod

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const release = "6.1.0-test"

// lists are cut down from a Debian kernel's.
var lists = map[string]string{
	"modules.dep": `kernel/drivers/net/virtio_net.ko: kernel/net/core/failover.ko kernel/drivers/virtio/virtio.ko
kernel/net/core/failover.ko:
kernel/drivers/virtio/virtio.ko: kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/virtio/virtio_ring.ko:
kernel/drivers/virtio/virtio_pci.ko: kernel/drivers/virtio/virtio.ko
kernel/lib/libcrc32c.ko:
kernel/fs/erofs/erofs.ko: kernel/lib/libcrc32c.ko
kernel/arch/x86/crypto/crc32c-intel.ko.xz:
kernel/drivers/md/dm-mod.ko:
kernel/drivers/net/ethernet/a/late.ko:
kernel/drivers/net/ethernet/a/early.ko:
`,
	"modules.alias": `# Aliases extracted from modules themselves.
alias pci:v00001AF4d*sv*sd*bc*sc*i* virtio_pci
alias virtio:d00000001v* virtio_net
alias crc32c crc32c_intel
alias cpu:type:x86,ven*fam*mod*:feature:*0094* crc32c_intel
`,
	"modules.softdep": `softdep libcrc32c pre: crc32c
softdep early pre: not_there post: late
`,
	"modules.builtin": "kernel/drivers/nvme/host/nvme-core.ko\nkernel/drivers/nvme/host/nvme.ko\n",
}

func tree(t *testing.T) (*Tree, string) {
	t.Helper()
	root := t.TempDir()
	dir := filepath.Join(root, "lib/modules", release)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range lists {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := Open(root, release)
	if err != nil {
		t.Fatal(err)
	}
	return tree, root
}

func TestClosure(t *testing.T) {
	tree, _ := tree(t)
	for _, c := range []struct {
		name  string
		names []string
		want  []string
	}{
		{"what it needs comes first", []string{"virtio_net"}, []string{
			"kernel/net/core/failover.ko", "kernel/drivers/virtio/virtio_ring.ko", "kernel/drivers/virtio/virtio.ko", "kernel/drivers/net/virtio_net.ko",
		}},
		{"a softdep by its alias", []string{"erofs"}, []string{
			"kernel/arch/x86/crypto/crc32c-intel.ko.xz", "kernel/lib/libcrc32c.ko", "kernel/fs/erofs/erofs.ko",
		}},
		{"an unknown softdep is left out, a later one follows", []string{"early"}, []string{
			"kernel/drivers/net/ethernet/a/early.ko", "kernel/drivers/net/ethernet/a/late.ko",
		}},
		{"dashes and underscores are one", []string{"dm_mod", "dm-mod"}, []string{"kernel/drivers/md/dm-mod.ko"}},
		{"built in needs no file", []string{"nvme", "nvme-core"}, nil},
		{"each once", []string{"virtio_pci", "virtio"}, []string{
			"kernel/drivers/virtio/virtio_ring.ko", "kernel/drivers/virtio/virtio.ko", "kernel/drivers/virtio/virtio_pci.ko",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := tree.Closure(c.names...)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("closure (-want +got):\n%s", diff)
			}
		})
	}
}

func TestClosureNamesEachMissingModule(t *testing.T) {
	tree, _ := tree(t)
	_, err := tree.Closure("virtio_net", "mlx5_core", "nvme", "ice")
	var missing *MissingError
	if !errors.As(err, &missing) {
		t.Fatalf("got %v, want a MissingError", err)
	}
	if diff := cmp.Diff(&MissingError{Release: release, Names: []string{"mlx5_core", "ice"}}, missing); diff != "" {
		t.Errorf("missing (-want +got):\n%s", diff)
	}
}

func TestWantedByDevices(t *testing.T) {
	tree, _ := tree(t)
	sys := t.TempDir()
	for dev, alias := range map[string]string{
		"pci0000:00/0000:00:02.0":         "pci:v00001AF4d00001041sv00001AF4sd00001100bc02sc00i00\n",
		"pci0000:00/0000:00:02.0/virtio0": "virtio:d00000001v00001AF4\n",
		"pci0000:00/0000:00:03.0":         "pci:v00008086d00001234sv00000000sd00000000bc02sc00i00\n",
		"system/cpu/cpu0":                 "\n",
	} {
		dir := filepath.Join(sys, "devices", dev)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "modalias"), []byte(alias), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := tree.wanted(sys)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"virtio_pci", "virtio_net"}, got); diff != "" {
		t.Errorf("wanted (-want +got):\n%s", diff)
	}
	if _, err := tree.wanted(filepath.Join(sys, "absent")); err == nil {
		t.Error("an absent sysfs is no error, want one")
	}
}

func TestOpenWithoutLists(t *testing.T) {
	if _, err := Open(t.TempDir(), release); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want one that says the lists are absent", err)
	}
}
