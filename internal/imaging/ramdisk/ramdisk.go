// SPDX-License-Identifier: Apache-2.0

// Package ramdisk builds initramfs archives around metald-agent, and the ramdisk: the unified kernel image that a machine
// boots to be inspected. A kernel package gives the kernel and the modules; the chosen modules come with all that they
// need. It must not know the daemon, the inventory or an operating system: osimage uses it for its own initramfs.
//
// Start reading at Build, then Initrd.
package ramdisk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"metald.io/metald/internal/imaging/kmod"
	"metald.io/metald/internal/imaging/uki"
)

// Places inside the initramfs that the agent knows.
const (
	// AuthorityFile holds the site CA in PEM.
	AuthorityFile = "/etc/metald/ca.crt"
	// ModulesFile lists, one a line, the modules that are loaded on every machine; others are loaded for the devices
	// that ask for them.
	ModulesFile = "/etc/metald/modules"
	// SeedFile is a JoinSeed that was built in, for a host that boots with no daemon.
	SeedFile = "/etc/metald/seed.json"
)

// Modules says what of a kernel goes into an initramfs.
type Modules struct {
	// Always are loaded on every machine, in this order.
	Always []string `json:"always,omitempty"`
	// Hardware are loaded when a device asks for them.
	Hardware []string `json:"hardware,omitempty"`
}

// ServerModules is for the full kernel: common server NICs and storage, the TPM, and what a diskless root needs.
var ServerModules = Modules{
	Always: []string{
		"loop", "dm-mod", "dm-verity", "erofs", "squashfs", "overlay", "efivarfs", "tpm_crb", "tpm_tis", "virtio_pci", "vfat",
	},
	Hardware: []string{
		"mlx5_core", "bnxt_en", "ice", "i40e", "iavf", "ixgbe", "igb", "igc", "e1000e", "tg3", "virtio_net",
		"nvme", "ahci", "megaraid_sas", "mpt3sas", "virtio_blk", "virtio_scsi", "sd_mod", "sr_mod",
		"ehci_pci", "xhci_pci", "usbhid", "hid_generic", "usb_storage", "qemu_fw_cfg", "ipmi_si", "ipmi_devintf",
	},
}

// Initramfs is what an initramfs is made of.
type Initramfs struct {
	Kernel  Kernel
	Modules Modules
	// Agent is metald-agent, a static program; it becomes /init.
	Agent []byte
	// Authority is the site CA in PEM; it is left out of a release's ramdisk alone.
	Authority []byte
	// Seed is empty or a JoinSeed in JSON.
	Seed []byte
	// Files are more files, by path.
	Files map[string][]byte
}

// Initrd writes an initramfs: /init is the agent, lib/modules holds the closure of the modules with depmod's lists cut
// down to them.
func Initrd(ctx context.Context, in Initramfs) ([]byte, error) {
	var a Archive
	for _, dir := range []string{"dev", "proc", "sys", "run", "tmp", "sysroot"} {
		a.Dir(dir)
	}
	a.File("init", 0o755, in.Agent)
	if len(in.Authority) > 0 {
		a.File(AuthorityFile, 0o444, in.Authority)
	}
	if len(in.Seed) > 0 {
		a.File(SeedFile, 0o400, in.Seed)
	}
	for name, data := range in.Files {
		a.File(name, 0o444, data)
	}
	if err := addModules(ctx, &a, in.Kernel, in.Modules); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := a.Write(&out); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func addModules(ctx context.Context, a *Archive, kernel Kernel, wanted Modules) error {
	tree, err := kmod.Open(kernel.Root, kernel.Release)
	if err != nil {
		return err
	}
	files, err := tree.Closure(slices.Concat(wanted.Always, wanted.Hardware)...)
	if err != nil {
		return fmt.Errorf("choosing modules: %w", err)
	}
	dir := filepath.Join("lib/modules", kernel.Release)
	names := map[string]bool{}
	for _, f := range files {
		data, err := readModule(ctx, filepath.Join(tree.Dir(), f))
		if err != nil {
			return err
		}
		a.File(filepath.Join(dir, plain(f)), 0o444, data)
		names[kmod.Name(f)] = true
	}
	for list, keep := range map[string]func(string) (string, bool){
		"modules.dep":     func(line string) (string, bool) { return keepDep(line, names) },
		"modules.alias":   func(line string) (string, bool) { return line, keepLast(line, names) },
		"modules.softdep": func(line string) (string, bool) { return line, keepSecond(line, names) },
		"modules.builtin": func(line string) (string, bool) { return line, true },
	} {
		text, err := os.ReadFile(filepath.Join(tree.Dir(), list))
		if err != nil {
			return fmt.Errorf("reading the module lists: %w", err)
		}
		var kept strings.Builder
		for line := range strings.Lines(string(text)) {
			if line, ok := keep(line); ok {
				kept.WriteString(line)
			}
		}
		a.File(filepath.Join(dir, list), 0o444, []byte(kept.String()))
	}
	a.File(ModulesFile, 0o444, []byte(strings.Join(wanted.Always, "\n")+"\n"))
	return nil
}

// keepDep keeps "file: files..." of a chosen module, with its files' names as they are in the archive.
func keepDep(line string, names map[string]bool) (string, bool) {
	file, deps, ok := strings.Cut(line, ":")
	if !ok || !names[kmod.Name(file)] {
		return "", false
	}
	out := plain(file) + ":"
	for _, d := range strings.Fields(deps) {
		out += " " + plain(d)
	}
	return out + "\n", true
}

func keepLast(line string, names map[string]bool) bool {
	f := strings.Fields(line)
	return len(f) == 3 && f[0] == "alias" && names[kmod.Name(f[2])]
}

func keepSecond(line string, names map[string]bool) bool {
	f := strings.Fields(line)
	return len(f) > 2 && names[kmod.Name(f[1])]
}

// plain is a module's file name without the suffix of a compressor: the agent has none, and the archive is compressed
// as a whole.
func plain(file string) string {
	stem, _, _ := strings.Cut(file, ".ko")
	return stem + ".ko"
}

func readModule(ctx context.Context, file string) ([]byte, error) {
	program := map[string]string{".xz": "xz", ".zst": "zstd", ".gz": "gzip"}[filepath.Ext(file)]
	if program == "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("reading a module: %w", err)
		}
		return data, nil
	}
	data, err := exec.CommandContext(ctx, program, "--decompress", "--stdout", file).Output()
	if err != nil {
		return nil, fmt.Errorf("unpacking module %s: %w", filepath.Base(file), err)
	}
	return data, nil
}

// Spec is what a ramdisk is built from.
type Spec struct {
	Initramfs
	// Stub is systemd's EFI boot stub.
	Stub []byte
	// CommandLine is the kernel's.
	CommandLine string
}

// CommandLine is the ramdisk's kernel command line: both consoles, the serial one last so that it is the one that init
// writes to, only the kernel's warnings so that the agent's words can be read, and a restart after a panic so that a
// machine does not hang unseen.
const CommandLine = "console=tty0 console=ttyS0,115200n8 loglevel=4 panic=60 rdinit=/init"

// Build makes the ramdisk's unified kernel image.
func Build(ctx context.Context, s Spec) ([]byte, error) {
	if len(s.Authority) == 0 {
		return nil, errors.New("building the ramdisk: it needs the site CA, or its agent trusts nobody")
	}
	return s.build(ctx, "")
}

// build makes the image; mark is added to its os-release.
func (s Spec) build(ctx context.Context, mark string) ([]byte, error) {
	initrd, err := Initrd(ctx, s.Initramfs)
	if err != nil {
		return nil, fmt.Errorf("building the initramfs: %w", err)
	}
	kernel, err := os.ReadFile(s.Kernel.Image)
	if err != nil {
		return nil, fmt.Errorf("reading the kernel: %w", err)
	}
	line := s.CommandLine
	if line == "" {
		line = CommandLine
	}
	return uki.Assemble(uki.Parts{
		Stub: s.Stub, Kernel: kernel, Initrd: initrd, CommandLine: line, Uname: s.Kernel.Release,
		OSRelease: "ID=metald-ramdisk\nNAME=\"metald ramdisk\"\nPRETTY_NAME=\"metald ramdisk (Linux " + s.Kernel.Release + ")\"\nVERSION_ID=" + s.Kernel.Release + "\n" + mark,
	})
}
