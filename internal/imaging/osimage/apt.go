// SPDX-License-Identifier: Apache-2.0

package osimage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"metald.io/metald/internal/imaging/ramdisk"
)

// Resolve asks this machine's apt which packages, exactly, a recipe means today, and pins them with the local files.
// Nothing is installed or fetched. With a previous lock its packages are kept and only files and tools are pinned anew.
func Resolve(ctx context.Context, r *Recipe, in Inputs, previous *Lock) (*Lock, error) {
	if err := nativeArchitecture(ctx, r.Architecture); err != nil {
		return nil, err
	}
	l := &Lock{APIVersion: APIVersion, Kind: LockKind, Recipe: r.Name, RecipeSHA256: textDigest(r.raw), Architecture: r.Architecture}
	var err error
	if l.Files, err = localFiles(r, in); err != nil {
		return nil, fmt.Errorf("pinning files: %w", err)
	}
	if l.Tools, err = tools(ctx); err != nil {
		return nil, fmt.Errorf("pinning tools: %w", err)
	}
	if previous != nil {
		l.Kernel, l.Packages = previous.Kernel, previous.Packages
		return l, nil
	}
	kernel, err := ramdisk.ResolveKernel(ctx, r.Kernel.Package)
	if err != nil {
		return nil, err
	}
	// "download" pins one package without what it depends on: the image has no use for an initramfs maker.
	kernels, err := printURIs(ctx, "download", kernel)
	if err != nil {
		return nil, fmt.Errorf("resolving kernel package %s: %w", kernel, err)
	}
	if len(kernels) != 1 {
		return nil, fmt.Errorf("resolving kernel package %s: apt names %d packages", kernel, len(kernels))
	}
	l.Kernel = kernels[0]
	if l.Packages, err = resolvePackages(ctx, r.Packages); err != nil {
		return nil, fmt.Errorf("resolving packages: %w", err)
	}
	return l, nil
}

// resolvePackages lets apt solve for an empty machine: the essential packages, without apt itself, and the recipe's.
func resolvePackages(ctx context.Context, names []string) ([]Package, error) {
	empty, err := os.CreateTemp("", "metald-status-*")
	if err != nil {
		return nil, err
	}
	empty.Close()
	defer os.Remove(empty.Name())
	args := []string{
		"-o", "Dir::State::status=" + empty.Name(), "-o", "APT::Install-Recommends=false", "-y", "install",
		"?and(?essential, ?not(?name(^apt$)))",
		// In place of usrmerge and its perl: the root starts merged.
		"usr-is-merged",
	}
	found, err := printURIs(ctx, append(args, names...)...)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(found, func(a, b Package) int { return strings.Compare(a.Name, b.Name) })
	return found, nil
}

// uriLine is a line of apt-get --print-uris: 'URI' FILE SIZE SHA256:DIGEST.
var uriLine = regexp.MustCompile(`^'[^']+' ([^_\s]+)_([^_\s]+)_([^_\s]+)\.deb ([0-9]+) SHA256:([0-9a-f]{64})$`)

func printURIs(ctx context.Context, args ...string) ([]Package, error) {
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-q", "-o", "Acquire::ForceHash=SHA256", "--print-uris"}, args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("apt-get: %w: %s", err, strings.Join(strings.Fields(stderr.String()+tail(out)), " "))
	}
	return parseURIs(string(out))
}

func parseURIs(text string) ([]Package, error) {
	var found []Package
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "'") {
			continue
		}
		m := uriLine.FindStringSubmatch(line)
		if m == nil {
			return nil, fmt.Errorf("apt-get says %q, want a package with its SHA256", line)
		}
		size, err := strconv.ParseInt(m[4], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("apt-get says %q: %w", line, err)
		}
		found = append(found, Package{
			Name: m[1], Version: strings.ReplaceAll(m[2], "%3a", ":"), Architecture: m[3], SizeBytes: size, SHA256: m[5],
		})
	}
	return found, nil
}

// fetch brings the packages that the pool lacks with apt-get and checks every one's digest.
func fetch(ctx context.Context, pool string, packages []Package) error {
	if err := os.MkdirAll(pool, 0o755); err != nil {
		return fmt.Errorf("making the package pool: %w", err)
	}
	var absent []string
	for _, p := range packages {
		if digest, err := fileDigest(filepath.Join(pool, p.File())); err != nil || digest != p.SHA256 {
			absent = append(absent, p.Name+"="+p.Version)
		}
	}
	if len(absent) > 0 {
		cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-q", "-o", "APT::Sandbox::User=root", "download"}, absent...)...)
		cmd.Dir = pool
		cmd.Env = append(os.Environ(), "LC_ALL=C")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("fetching %d locked packages: %w: %s (a version that the mirror no longer has needs a new lock, or its .deb in the pool)", len(absent), err, tail(out))
		}
	}
	return checkPool(pool, packages)
}

// checkPool compares each package's file with the lock and names every difference.
func checkPool(pool string, packages []Package) error {
	var errs []error
	for _, p := range packages {
		digest, err := fileDigest(filepath.Join(pool, p.File()))
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("package %s %s: %w", p.Name, p.Version, err))
		case digest != p.SHA256:
			errs = append(errs, fmt.Errorf("package %s %s: its file %s has sha256 %s, the lock has %s", p.Name, p.Version, p.File(), digest, p.SHA256))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("checking packages against the lock: %w", err)
	}
	return nil
}

func nativeArchitecture(ctx context.Context, arch string) error {
	out, err := exec.CommandContext(ctx, "dpkg", "--print-architecture").Output()
	if err != nil {
		return fmt.Errorf("asking dpkg for this machine's architecture: %w", err)
	}
	if native := strings.TrimSpace(string(out)); native != arch {
		return fmt.Errorf("the recipe is for %s and this machine is %s: build it on a machine of its kind", arch, native)
	}
	return nil
}

// tools are the programs whose output becomes part of the image.
func tools(ctx context.Context) ([]Tool, error) {
	var found []Tool
	for _, p := range []string{"erofs-utils", "kmod", "liblz4-1", "mmdebstrap"} {
		out, err := exec.CommandContext(ctx, "dpkg-query", "--show", "--showformat=${Version}", p).Output()
		if err != nil || len(out) == 0 {
			return nil, fmt.Errorf("package %s is needed on this machine: %w", p, err)
		}
		found = append(found, Tool{Name: p, Version: string(out)})
	}
	return found, nil
}

// tail is the end of a program's output, where the reason stands.
func tail(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], "; ")
}
