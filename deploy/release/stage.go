// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io/fs"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

const (
	docs        = "usr/share/doc/metald"
	ramdiskFile = "usr/share/metald/ramdisk.efi"
	loaderFile  = "usr/share/metald/snponly.efi"
)

// copies are the files of the source tree that are shipped as they are: where they go, and where they come from.
var copies = map[string]string{
	"usr/lib/systemd/system/metald.service": "deploy/metald.service",
	"usr/lib/sysusers.d/metald.conf":        "deploy/metald.sysusers",
	"usr/share/metald/crds":                 "internal/apiserver/crds/*.yaml",
	"usr/share/metald/image":                "deploy/image",
	docs + "/examples/config.yaml":          "deploy/metald.yaml",
	docs + "/examples/pool.yaml":            "deploy/pool.yaml",
	docs + "/README.md":                     "README.md",
	docs + "/ARCHITECTURE.md":               "ARCHITECTURE.md",
	docs + "/offline.md":                    "docs/offline.md",
	docs + "/LICENSE":                       "LICENSE",
}

// completions are where each shell looks for them.
var completions = map[string]string{
	"bash": "usr/share/bash-completion/completions/metald",
	"zsh":  "usr/share/zsh/vendor-completions/_metald",
	"fish": "usr/share/fish/vendor_completions.d/metald.fish",
}

// stage lays a release out below root as it will lie on a machine.
func (r *release) stage(ctx context.Context, arch, root string) error {
	bin := filepath.Join(root, "usr/bin")
	log.Printf("%s: programs", arch)
	for name, flags := range map[string]string{"metald": "", "metald-agent": " -X main.built=" + r.built.Format(time.RFC3339)} {
		if err := r.compile(ctx, arch, filepath.Join(bin, name), "./cmd/"+name, flags); err != nil {
			return err
		}
	}
	metald, err := r.native(ctx, arch, bin)
	if err != nil {
		return err
	}
	log.Printf("%s: ramdisk", arch)
	parts, err := r.debian(ctx, arch)
	if err != nil {
		return err
	}
	if err := r.ramdisk(ctx, metald, arch, root, parts); err != nil {
		return err
	}
	if len(parts) > loaderPart {
		if err := copyAll(filepath.Join(root, loaderFile), filepath.Join(parts[loaderPart].root, "usr/lib/ipxe/snponly.efi")); err != nil {
			return err
		}
	}
	for to, from := range copies {
		if err := copyAll(filepath.Join(root, to), from); err != nil {
			return err
		}
	}
	for shell, to := range completions {
		text, err := output(exec.CommandContext(ctx, metald, "completion", shell))
		if err != nil {
			return fmt.Errorf("making the completion for %s: %w", shell, err)
		}
		if err := writeFile(filepath.Join(root, to), []byte(text+"\n"), 0o644); err != nil {
			return err
		}
	}
	log.Printf("%s: bill of materials and licences", arch)
	if err := r.bill(ctx, arch, root, parts); err != nil {
		return err
	}
	if err := settle(root, r.built); err != nil {
		return err
	}
	sums := filepath.Join(root, docs, "SHA256SUMS")
	if err := writeSums(sums, root); err != nil {
		return err
	}
	return settle(root, r.built)
}

func (r *release) compile(ctx context.Context, arch, to, source, flags string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false",
		"-ldflags", r.ldflags+" -X main.version="+r.version+flags, "-o", to, source)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOAMD64=v1", "GOFLAGS=", "GOWORK=off")
	if _, err := output(cmd); err != nil {
		return fmt.Errorf("compiling %s: %w", source, err)
	}
	return nil
}

// native is a metald that runs here: the one just built, or for another architecture one more.
func (r *release) native(ctx context.Context, arch, bin string) (string, error) {
	if arch == runtime.GOARCH {
		return filepath.Join(bin, "metald"), nil
	}
	to := filepath.Join(r.work, "native", "metald")
	return to, r.compile(ctx, runtime.GOARCH, to, "./cmd/metald", "")
}

// ramdisk makes the ramdisk without a site's CA; `metald image ramdisk --from` adds one.
func (r *release) ramdisk(ctx context.Context, metald, arch, root string, parts []debianPackage) error {
	stub := map[string]string{"amd64": "linuxx64.efi.stub", "arm64": "linuxaa64.efi.stub"}[arch]
	to := filepath.Join(root, ramdiskFile)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return fmt.Errorf("making the ramdisk: %w", err)
	}
	_, err := output(exec.CommandContext(ctx, metald, "image", "ramdisk", "--base", "--data-dir", "", "--output", to,
		"--kernel-package", parts[kernelPart].file, "--stub", filepath.Join(parts[stubPart].root, "usr/lib/systemd/boot/efi", stub),
		"--agent", filepath.Join(root, "usr/bin/metald-agent")))
	if err != nil {
		return fmt.Errorf("making the ramdisk: %w", err)
	}
	return nil
}

// copyAll copies a file to a file, a folder to a folder, or what a pattern matches into a folder.
func copyAll(to, from string) error {
	if strings.Contains(from, "*") {
		files, err := filepath.Glob(from)
		if err != nil || len(files) == 0 {
			return fmt.Errorf("copying %s: nothing matches (error %v)", from, err)
		}
		for _, f := range files {
			if err := copyAll(filepath.Join(to, filepath.Base(f)), f); err != nil {
				return err
			}
		}
		return nil
	}
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("copying %s: %w", from, err)
		}
		at := filepath.Join(to, strings.TrimPrefix(path, from))
		switch {
		case d.IsDir():
			return os.MkdirAll(at, 0o755)
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return fmt.Errorf("copying %s: %w", from, err)
			}
			return os.Symlink(target, at)
		}
		info, err := d.Info()
		if err != nil {
			return fmt.Errorf("copying %s: %w", from, err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("copying %s: %w", from, err)
		}
		return writeFile(at, data, 0o644|info.Mode().Perm()&0o111)
	})
}

func writeFile(path string, data []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := os.WriteFile(path, data, mode); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

// settle takes from all files below root what depends on who made them, and when.
func settle(root string, built time.Time) error {
	err := walkSorted(root, func(path string, info fs.FileInfo) error {
		if info.Mode()&fs.ModeSymlink != 0 {
			return nil
		}
		mode := fs.FileMode(0o644)
		if info.IsDir() || info.Mode()&0o100 != 0 {
			mode = 0o755
		}
		if err := os.Chmod(filepath.Join(root, path), mode); err != nil {
			return err
		}
		return os.Chtimes(filepath.Join(root, path), built, built)
	})
	if err != nil {
		return fmt.Errorf("settling modes and times: %w", err)
	}
	return nil
}

// walkSorted calls do for everything below root, in order of path, folders before what lies in them.
func walkSorted(root string, do func(path string, info fs.FileInfo) error) error {
	var paths []string
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if short, rerr := filepath.Rel(root, path); err == nil && rerr == nil && short != "." {
			paths = append(paths, short)
		}
		return err
	})
	if err != nil {
		return err
	}
	slices.Sort(paths)
	for _, p := range paths {
		info, err := os.Lstat(filepath.Join(root, p))
		if err != nil {
			return err
		}
		if err := do(p, info); err != nil {
			return err
		}
	}
	return nil
}
