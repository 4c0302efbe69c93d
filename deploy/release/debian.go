// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

//go:embed debian.lock
var debianLock string

// debianPackage is one line of the lock, and where it lies once it is here.
type debianPackage struct {
	arch, name, version, source, sha256, path string
	// file is the package, root what it unpacks to.
	file, root string
}

// sourceName and sourceVersion name the Debian source package that this one is built from.
func (p debianPackage) sourceName() string { name, _, _ := strings.Cut(p.source, "="); return name }
func (p debianPackage) sourceVersion() string {
	_, version, _ := strings.Cut(p.source, "=")
	return version
}

// The parts that readLock finds, in this order; a loader is there for amd64 alone.
const (
	kernelPart = iota
	stubPart
	loaderPart
)

// readLock returns an architecture's parts.
func readLock(lock, arch string) ([]debianPackage, error) {
	found := make([]debianPackage, 3)
	lines := bufio.NewScanner(strings.NewReader(lock))
	for n := 1; lines.Scan(); n++ {
		f := strings.Fields(lines.Text())
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		if len(f) != 6 || !strings.Contains(f[3], "=") || len(f[4]) != sha256.Size*2 {
			return nil, fmt.Errorf("reading debian.lock: line %d: want arch, package, version, source=version, sha256, path", n)
		}
		if f[0] != arch {
			continue
		}
		p := debianPackage{arch: f[0], name: f[1], version: f[2], source: f[3], sha256: f[4], path: f[5]}
		part, known := partOf(p.name)
		if !known || found[part].name != "" {
			return nil, fmt.Errorf("reading debian.lock: line %d: %s is asked for twice, or by nobody", n, p.name)
		}
		found[part] = p
	}
	for part, what := range map[int]string{kernelPart: "linux-image-*", stubPart: "systemd-boot-efi"} {
		if found[part].name == "" {
			return nil, fmt.Errorf("reading debian.lock: it has no %s for %s", what, arch)
		}
	}
	if found[loaderPart].name == "" {
		found = found[:loaderPart]
	}
	return found, nil
}

func partOf(name string) (part int, known bool) {
	if strings.HasPrefix(name, "linux-image-") {
		return kernelPart, true
	}
	part, known = map[string]int{"systemd-boot-efi": stubPart, "ipxe": loaderPart}[name]
	return part, known
}

// debian brings the packages of an architecture here and unpacks them.
func (r *release) debian(ctx context.Context, arch string) ([]debianPackage, error) {
	parts, err := readLock(debianLock, arch)
	if err != nil {
		return nil, err
	}
	for i := range parts {
		p := &parts[i]
		p.file = filepath.Join(r.cache, filepath.Base(p.path))
		if err := p.fetch(ctx); err != nil {
			return nil, fmt.Errorf("fetching %s %s: %w", p.name, p.version, err)
		}
		p.root = filepath.Join(r.work, "debian", p.arch+"-"+p.name)
		if err := os.MkdirAll(filepath.Dir(p.root), 0o755); err != nil {
			return nil, fmt.Errorf("unpacking %s: %w", p.name, err)
		}
		if _, err := output(exec.CommandContext(ctx, "dpkg-deb", "--extract", p.file, p.root)); err != nil {
			return nil, fmt.Errorf("unpacking %s: %w", p.name, err)
		}
	}
	return parts, nil
}

// fetch has apt-get bring the package from the sources that this machine is set up with; what comes is checked against the
// lock.
func (p *debianPackage) fetch(ctx context.Context) error {
	if data, err := os.ReadFile(p.file); err == nil && digest(data) == p.sha256 {
		return nil
	}
	dir := filepath.Dir(p.file)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", p.name+":"+p.arch+"="+p.version)
	cmd.Dir = dir
	if _, err := output(cmd); err != nil {
		return fmt.Errorf("%w: see deploy/release/debian.lock for what to do", err)
	}
	data, err := os.ReadFile(p.file)
	if err != nil {
		return fmt.Errorf("apt-get left no such file: %w", err)
	}
	if got := digest(data); got != p.sha256 {
		return fmt.Errorf("%s has sha256 %s, the lock says %s", filepath.Base(p.file), got, p.sha256)
	}
	return nil
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
