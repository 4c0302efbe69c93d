// SPDX-License-Identifier: Apache-2.0

package osimage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"metald.io/metald/internal/imaging/ramdisk"
)

// imagesDir is where a node finds the container images that it imports when it starts.
const imagesDir = "/usr/share/metald/images"

// root makes the root's tree at dir: packages, the kernel's modules, local files, units; then it takes out whatever
// differs from build to build or has no place on a read-only root.
func (b *builder) root(ctx context.Context, dir string) error {
	if err := b.installPackages(ctx, dir); err != nil {
		return err
	}
	if err := b.installModules(ctx, dir); err != nil {
		return fmt.Errorf("installing kernel modules: %w", err)
	}
	if err := b.installFiles(dir); err != nil {
		return fmt.Errorf("installing files: %w", err)
	}
	if err := b.setUnits(ctx, dir); err != nil {
		return err
	}
	if err := b.clean(dir); err != nil {
		return fmt.Errorf("cleaning the root: %w", err)
	}
	return nil
}

func (b *builder) installPackages(ctx context.Context, dir string) error {
	repo := filepath.Join(b.work, "repository")
	if err := repository(ctx, repo, b.options.Pool, b.lock); err != nil {
		return err
	}
	names := make([]string, len(b.lock.Packages))
	for i, p := range b.lock.Packages {
		names[i] = p.Name
	}
	args := []string{
		"--mode=root", "--variant=essential", "--format=directory", "--architectures=" + b.lock.Architecture,
		"--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr", "--include=" + strings.Join(names, ","),
	}
	for _, x := range b.recipe.Exclude {
		args = append(args, "--dpkgopt=path-exclude="+x)
	}
	// The packages were checked against the lock one by one, so the repository needs no signature.
	args = append(args, suite, dir, "deb [trusted=yes] copy:"+repo+" "+suite+" main")
	cmd := exec.CommandContext(ctx, "mmdebstrap", args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "SOURCE_DATE_EPOCH=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("installing %d packages: mmdebstrap: %w: %s", len(names), err, errorLines(out))
	}
	return nil
}

func (b *builder) installModules(ctx context.Context, dir string) error {
	to := filepath.Join(dir, "usr/lib/modules")
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	from := filepath.Join(b.kernel.Root, "lib/modules", b.kernel.Release)
	if out, err := exec.CommandContext(ctx, "cp", "--archive", from, to).CombinedOutput(); err != nil {
		return fmt.Errorf("cp: %w: %s", err, tail(out))
	}
	return nil
}

func (b *builder) installFiles(dir string) error {
	for _, f := range b.files {
		switch {
		case f.path == "" || strings.HasPrefix(f.Role, "container "):
			continue
		case f.Target != "":
			if err := placeLink(f.Target, filepath.Join(dir, f.path)); err != nil {
				return err
			}
		default:
			if err := place(f.source, filepath.Join(dir, f.path), f.mode); err != nil {
				return err
			}
		}
	}
	for i, c := range b.recipe.Containers {
		archive, err := b.containerArchive(c)
		if err != nil {
			return fmt.Errorf("making container image %s: %w", c.Name, err)
		}
		to := filepath.Join(dir, imagesDir, fmt.Sprintf("%02d.tar", i))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(to, archive, 0o644); err != nil {
			return err
		}
	}
	text, err := b.lock.Text()
	if err != nil {
		return err
	}
	to := filepath.Join(dir, "usr/share/metald/image.lock")
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, text, 0o644)
}

func (b *builder) setUnits(ctx context.Context, dir string) error {
	for _, verb := range []struct {
		name  string
		units []string
	}{{"enable", b.recipe.Units.Enable}, {"mask", b.recipe.Units.Mask}} {
		if len(verb.units) == 0 {
			continue
		}
		cmd := exec.CommandContext(ctx, "chroot", append([]string{dir, "systemctl", "--quiet", verb.name}, verb.units...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("setting units: systemctl %s: %w: %s", verb.name, err, tail(out))
		}
	}
	return nil
}

// cleaned are paths that differ from build to build, hold what only an installer needs, or come from this machine.
var cleaned = []string{
	"var/*", "run/*", "tmp/*", "boot/*", "root/.*", "etc/.pwd.lock", "etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-", "etc/subuid-",
	"etc/subgid-", "etc/apt", "etc/hostname", "etc/machine-id", "etc/mtab", "usr/share/doc/*", "usr/share/man/*",
	"usr/share/info/*", "usr/share/lintian",
}

func (b *builder) clean(dir string) error {
	// What is installed stays readable for those who look for vulnerable packages.
	status, err := os.ReadFile(filepath.Join(dir, "var/lib/dpkg/status"))
	if err != nil {
		return err
	}
	for _, pattern := range append(append([]string{}, cleaned...), b.recipe.Remove...) {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return err
		}
		for _, p := range found {
			if base := filepath.Base(p); base == "." || base == ".." {
				continue
			}
			if err := os.RemoveAll(p); err != nil {
				return err
			}
		}
	}
	for name, text := range map[string][]byte{
		"usr/share/metald/dpkg-status": status,
		// Empty: the initramfs binds the host's own over it.
		"etc/machine-id": nil,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o444); err != nil {
			return err
		}
	}
	if err := placeLink("../proc/self/mounts", filepath.Join(dir, "etc/mtab")); err != nil {
		return err
	}
	return b.clearResolver(dir)
}

// clearResolver empties the resolver's file: mmdebstrap leaves the builder's own there, and a DNS server that cannot be
// reached costs kubelet 20 seconds. A recipe that brings its own keeps it.
func (b *builder) clearResolver(dir string) error {
	for _, f := range b.files {
		if f.path == "/etc/resolv.conf" {
			return nil
		}
	}
	return placeLink("../run/metald/resolv.conf", filepath.Join(dir, "etc/resolv.conf"))
}

func place(from, to string, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	// A link of a package's must not be followed out of the root.
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return copyFile(from, to, mode)
}

func placeLink(target, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink(target, to)
}

func copyFile(from, to string, mode fs.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	if err := out.Chmod(mode); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// errorLines are what apt and mmdebstrap mark as errors, or the end of what they said.
func errorLines(out []byte) string {
	var found []string
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "E: ") || strings.HasPrefix(line, "dpkg: error") {
			found = append(found, strings.TrimSpace(line))
		}
	}
	if len(found) == 0 {
		return tail(out)
	}
	return strings.Join(found, "; ")
}

// unpackKernel unpacks the locked kernel package.
func (b *builder) unpackKernel(ctx context.Context) error {
	var err error
	b.kernel, err = ramdisk.UnpackKernel(ctx, filepath.Join(b.options.Pool, b.lock.Kernel.File()), filepath.Join(b.work, "kernel"))
	return err
}
