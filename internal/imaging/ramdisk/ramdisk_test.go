// SPDX-License-Identifier: Apache-2.0

package ramdisk

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cavaliergopher/cpio"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"metald.io/metald/internal/imaging/kmod"
)

// kernel is a tree as UnpackKernel leaves it, with four modules.
func kernel(t *testing.T) Kernel {
	t.Helper()
	k := Kernel{Release: "6.1.0-test", Root: t.TempDir()}
	for name, text := range map[string]string{
		"kernel/net.ko":   "net's bytes",
		"kernel/bus.ko":   "bus's bytes",
		"kernel/other.ko": "nobody wants it",
		"modules.dep":     "kernel/net.ko: kernel/bus.ko\nkernel/bus.ko:\nkernel/other.ko: kernel/bus.ko\n",
		"modules.alias":   "alias pci:v1* net\nalias pci:v2* other\n",
		"modules.softdep": "softdep net post: bus\nsoftdep other pre: bus\n",
		"modules.builtin": "kernel/ext4.ko\n",
	} {
		file := filepath.Join(k.Root, "lib/modules", k.Release, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

func initramfs(k Kernel) Initramfs {
	return Initramfs{
		Kernel: k, Agent: []byte("agent"), Authority: []byte("ca"), Modules: Modules{Always: []string{"ext4", "bus"}, Hardware: []string{"net"}},
	}
}

// unpack reads an archive back: directories end in a slash.
func unpack(t *testing.T, archive []byte) map[string]string {
	t.Helper()
	z, err := zstd.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	found := map[string]string{}
	for r := cpio.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		if dir := filepath.Dir(h.Name); dir != "." && found[dir+"/"] != "dir" {
			t.Errorf("%s comes before its directory", h.Name)
		}
		if h.Mode.IsDir() {
			found[h.Name+"/"] = "dir"
			continue
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		found[h.Name] = string(data)
		if h.Name == "init" && h.Mode.Perm() != 0o755 {
			t.Errorf("init has mode %o", h.Mode.Perm())
		}
	}
}

func TestInitrd(t *testing.T) {
	in := initramfs(kernel(t))
	in.Seed = []byte("seed")
	in.Files = map[string][]byte{"/etc/motd": []byte("hello")}
	archive, err := Initrd(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	const modules = "lib/modules/6.1.0-test/"
	want := map[string]string{
		"dev/": "dir", "etc/": "dir", "etc/metald/": "dir", "lib/": "dir", "lib/modules/": "dir", modules: "dir", modules + "kernel/": "dir",
		"proc/": "dir", "run/": "dir", "sys/": "dir", "sysroot/": "dir", "tmp/": "dir",
		"init": "agent", "etc/metald/ca.crt": "ca", "etc/metald/seed.json": "seed", "etc/motd": "hello", "etc/metald/modules": "ext4\nbus\n",
		modules + "kernel/net.ko":   "net's bytes",
		modules + "kernel/bus.ko":   "bus's bytes",
		modules + "modules.dep":     "kernel/net.ko: kernel/bus.ko\nkernel/bus.ko:\n",
		modules + "modules.alias":   "alias pci:v1* net\n",
		modules + "modules.softdep": "softdep net post: bus\n",
		modules + "modules.builtin": "kernel/ext4.ko\n",
	}
	if diff := cmp.Diff(want, unpack(t, archive)); diff != "" {
		t.Errorf("archive (-want +got):\n%s", diff)
	}
	again, err := Initrd(t.Context(), in)
	if err != nil || !bytes.Equal(archive, again) {
		t.Errorf("a second archive differs (error %v)", err)
	}
}

func TestInitrdNamesMissingModules(t *testing.T) {
	in := initramfs(kernel(t))
	in.Modules.Hardware = append(in.Modules.Hardware, "mlx5_core")
	_, err := Initrd(t.Context(), in)
	var missing *kmod.MissingError
	if !errors.As(err, &missing) || !strings.Contains(err.Error(), "mlx5_core") {
		t.Errorf("error %v, want one that names mlx5_core", err)
	}
}

func TestKeepDepOfCompressedModules(t *testing.T) {
	got, ok := keepDep("kernel/net.ko.xz: kernel/bus.ko.xz\n", map[string]bool{"net": true})
	if want := "kernel/net.ko: kernel/bus.ko\n"; got != want || !ok {
		t.Errorf("got %q, %v, want %q", got, ok, want)
	}
}

func TestOpenKernelNeedsOne(t *testing.T) {
	root := t.TempDir()
	if _, err := OpenKernel(t.Context(), root); err == nil || !strings.Contains(err.Error(), "there are 0") {
		t.Errorf("error %v, want one that counts no kernel", err)
	}
	if err := os.Mkdir(filepath.Join(root, "boot"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "boot/vmlinuz-6.1"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKernel(t.Context(), root); err == nil || !strings.Contains(err.Error(), "modules of kernel 6.1") {
		t.Errorf("error %v, want one that misses the modules", err)
	}
}
