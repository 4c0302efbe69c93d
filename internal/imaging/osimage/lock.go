// SPDX-License-Identifier: Apache-2.0

package osimage

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// Lock pins everything that a recipe names.
type Lock struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	// Recipe is the recipe's name, RecipeSHA256 its file's digest.
	Recipe       string `json:"recipe"`
	RecipeSHA256 string `json:"recipeSHA256"`
	Architecture string `json:"architecture"`
	// Kernel is the package that holds the kernel.
	Kernel Package `json:"kernel"`
	// Packages are all packages of the root, dependencies too, sorted by name.
	Packages []Package `json:"packages"`
	// Files are all local files that go in, by what they are.
	Files []LockedFile `json:"files"`
	// Tools are the programs whose version shows in the bytes.
	Tools []Tool `json:"tools"`
}

// Package is one Debian package, exactly.
type Package struct {
	Name         string `json:"name"`
	Version      string `json:"version"`
	Architecture string `json:"architecture"`
	SizeBytes    int64  `json:"sizeBytes"`
	SHA256       string `json:"sha256"`
}

// File is the package's file name as apt-get download gives it.
func (p Package) File() string {
	return p.Name + "_" + strings.ReplaceAll(p.Version, ":", "%3a") + "_" + p.Architecture + ".deb"
}

// LockedFile is a local file by its role: "agent", "stub", "loader", "file PATH", "folder PATH" or "container NAME PATH".
// A symbolic link has a target in place of a digest.
type LockedFile struct {
	Role   string `json:"role"`
	SHA256 string `json:"sha256,omitempty"`
	Target string `json:"target,omitempty"`

	source string
	path   string // in the root, or in the container
	mode   fs.FileMode
}

// Tool is a program and its version.
type Tool struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// LoadLock reads a lock file. An unknown key is an error.
func LoadLock(file string) (*Lock, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading lock: %w", err)
	}
	l := &Lock{}
	if err := yaml.UnmarshalStrict(text, l); err != nil {
		return nil, fmt.Errorf("reading lock %s: %w", file, err)
	}
	if l.APIVersion != APIVersion || l.Kind != LockKind {
		return nil, fmt.Errorf("reading lock %s: apiVersion and kind are %q and %q, want %q and %q", file, l.APIVersion, l.Kind, APIVersion, LockKind)
	}
	for _, p := range append([]Package{l.Kernel}, l.Packages...) {
		if !packagePattern.MatchString(p.Name) || len(p.SHA256) != 64 || strings.ContainsAny(p.Version+p.Architecture, "/ \n") {
			return nil, fmt.Errorf("reading lock %s: package %q with version %q and sha256 %q is not one", file, p.Name, p.Version, p.SHA256)
		}
	}
	return l, nil
}

// Text is the lock as it is written: equal locks are equal bytes.
func (l *Lock) Text() ([]byte, error) {
	text, err := yaml.Marshal(l)
	if err != nil {
		return nil, fmt.Errorf("writing lock: %w", err)
	}
	return append([]byte("# Made by `metald image lock`. What is built from it is named by its digest.\n"), text...), nil
}

// Inputs are the local files that are not in the recipe.
type Inputs struct {
	// Agent is the metald-agent program's file, Stub systemd's EFI boot stub, Loader systemd's EFI boot loader. An image
	// without a loader runs diskless only.
	Agent, Stub, Loader string
	Sources             Sources
}

// localFiles lists what the recipe takes from this machine, with digests, sorted by role.
func localFiles(r *Recipe, in Inputs) ([]LockedFile, error) {
	files := []LockedFile{
		{Role: "agent", source: in.Agent, path: "/usr/bin/metald-agent", mode: 0o755},
		{Role: "stub", source: in.Stub},
	}
	if in.Loader != "" {
		files = append(files, LockedFile{Role: "loader", source: in.Loader})
	}
	for _, folder := range r.Folders {
		found, err := folderFiles(filepath.Join(r.dir, folder))
		if err != nil {
			return nil, fmt.Errorf("reading folder %s: %w", folder, err)
		}
		files = append(files, found...)
	}
	add := func(role string, f FileRecipe) error {
		source, err := r.file(f.Source, in.Sources)
		if err != nil {
			return err
		}
		mode, err := f.mode()
		files = append(files, LockedFile{Role: role + f.Path, source: source, path: f.Path, mode: mode})
		return err
	}
	for _, f := range r.Files {
		if err := add("file ", f); err != nil {
			return nil, err
		}
	}
	for _, c := range r.Containers {
		for _, f := range c.Files {
			if err := add("container "+c.Name+" ", f); err != nil {
				return nil, err
			}
		}
	}
	for i := range files {
		if files[i].Target != "" {
			continue
		}
		digest, err := fileDigest(files[i].source)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", files[i].Role, err)
		}
		files[i].SHA256 = digest
	}
	slices.SortStableFunc(files, func(a, b LockedFile) int { return strings.Compare(a.Role, b.Role) })
	return files, nil
}

func folderFiles(dir string) ([]LockedFile, error) {
	var files []LockedFile
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		f := LockedFile{source: p, path: path.Join("/", filepath.ToSlash(rel)), mode: 0o644}
		f.Role = "folder " + f.path
		info, err := d.Info()
		switch {
		case err != nil:
			return err
		case info.Mode()&fs.ModeSymlink != 0:
			if f.Target, err = os.Readlink(p); err != nil {
				return err
			}
		case !info.Mode().IsRegular():
			return fmt.Errorf("%s is neither a file nor a link", p)
		case info.Mode()&0o100 != 0:
			// Only the owner's x is read: the rest depends on the umask of whoever cloned.
			f.mode = 0o755
		}
		files = append(files, f)
		return nil
	})
	return files, err
}

// compare names each difference between what is pinned and what is here.
func (l *Lock) compare(files []LockedFile, tools []Tool) error {
	var errs []error
	pinned := map[string]LockedFile{}
	for _, f := range l.Files {
		pinned[f.Role] = f
	}
	for _, f := range files {
		want, ok := pinned[f.Role]
		delete(pinned, f.Role)
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("%s is not in the lock", f.Role))
		case f.SHA256 != want.SHA256 || f.Target != want.Target:
			errs = append(errs, fmt.Errorf("%s is %s%s, the lock has %s%s", f.Role, f.SHA256, f.Target, want.SHA256, want.Target))
		}
	}
	for _, f := range l.Files {
		if _, left := pinned[f.Role]; left {
			errs = append(errs, fmt.Errorf("%s is in the lock and not here", f.Role))
		}
	}
	for _, t := range tools {
		i := slices.IndexFunc(l.Tools, func(w Tool) bool { return w.Name == t.Name })
		if i < 0 || l.Tools[i].Version != t.Version {
			want := "none"
			if i >= 0 {
				want = l.Tools[i].Version
			}
			errs = append(errs, fmt.Errorf("tool %s is version %s, the lock has %s", t.Name, t.Version, want))
		}
	}
	return errors.Join(errs...)
}

func fileDigest(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	digest := sha256.New()
	if _, err := io.Copy(digest, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(digest.Sum(nil)), nil
}

func textDigest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}
