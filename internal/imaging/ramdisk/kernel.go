// SPDX-License-Identifier: Apache-2.0

package ramdisk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Kernel is an unpacked kernel package.
type Kernel struct {
	// Release is what uname -r says, as 6.1.0-56-amd64.
	Release string
	// Image is the bootable kernel's file.
	Image string
	// Root is the folder that lib/modules/RELEASE lies in, with depmod's lists.
	Root string
}

// UnpackKernel unpacks a Debian kernel package below dir and makes its module lists, which a package installer would
// make: it needs the programs dpkg-deb and depmod.
func UnpackKernel(ctx context.Context, deb, dir string) (Kernel, error) {
	if err := run(ctx, "dpkg-deb", "--extract", deb, dir); err != nil {
		return Kernel{}, fmt.Errorf("unpacking the kernel package: %w", err)
	}
	return OpenKernel(ctx, dir)
}

// OpenKernel finds the one kernel below root and makes its module lists.
func OpenKernel(ctx context.Context, root string) (Kernel, error) {
	images, err := filepath.Glob(filepath.Join(root, "boot/vmlinuz-*"))
	if err != nil {
		return Kernel{}, fmt.Errorf("finding the kernel: %w", err)
	}
	if len(images) != 1 {
		return Kernel{}, fmt.Errorf("finding the kernel: want one boot/vmlinuz-*, there are %d (is this a linux-image package with a kernel in it, not a metapackage?)", len(images))
	}
	k := Kernel{Image: images[0], Root: root, Release: strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")}
	if _, err := os.Stat(filepath.Join(root, "lib/modules", k.Release)); err != nil {
		return Kernel{}, fmt.Errorf("finding the modules of kernel %s: %w", k.Release, err)
	}
	if err := run(ctx, "depmod", "--basedir", root, k.Release); err != nil {
		return Kernel{}, fmt.Errorf("listing the modules of kernel %s: %w", k.Release, err)
	}
	return k, nil
}

// FetchKernel gets a kernel package by name with apt-get, from the sources that this machine is set up with, into dir and
// returns its file. A metapackage such as linux-image-amd64 is followed to the package that holds the kernel.
func FetchKernel(ctx context.Context, name, dir string) (string, error) {
	name, err := ResolveKernel(ctx, name)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("fetching the kernel package: %w", err)
	}
	cmd := exec.CommandContext(ctx, "apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", name)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("fetching kernel package %s: %w: %s", name, err, lastLine(out))
	}
	files, err := filepath.Glob(filepath.Join(dir, name+"_*.deb"))
	if err != nil || len(files) == 0 {
		return "", fmt.Errorf("fetching kernel package %s: apt-get left no file", name)
	}
	// After an update of the lists there may be an older one beside it.
	newest := files[0]
	for _, f := range files[1:] {
		if modTime(f) > modTime(newest) {
			newest = f
		}
	}
	return newest, nil
}

// ResolveKernel follows a metapackage to the package that holds the kernel: its dependency on linux-image-*.
func ResolveKernel(ctx context.Context, name string) (string, error) {
	out, err := exec.CommandContext(ctx, "apt-cache", "depends", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks", "--no-replaces", name).Output()
	if err != nil {
		return "", fmt.Errorf("asking apt for kernel package %s: %w", name, errors.Join(err, stderrOf(err)))
	}
	for line := range strings.Lines(string(out)) {
		if dep, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: linux-image-"); ok {
			return "linux-image-" + dep, nil
		}
	}
	return name, nil
}

func run(ctx context.Context, program string, args ...string) error {
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, lastLine(out))
	}
	return nil
}

func stderrOf(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return errors.New(lastLine(exit.Stderr))
	}
	return nil
}

func lastLine(out []byte) string {
	out = bytes.TrimSpace(out)
	return string(out[bytes.LastIndexByte(out, '\n')+1:])
}

func modTime(file string) int64 {
	info, err := os.Stat(file)
	if err != nil {
		return 0
	}
	return info.ModTime().UnixNano()
}
