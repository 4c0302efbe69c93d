// SPDX-License-Identifier: Apache-2.0

// Package osimage builds immutable OS images: a recipe says what goes in, a lock file pins each package and file by
// digest, and the build makes a read-only root under dm-verity and the unified kernel image that boots it. Two builds
// from one lock, one site CA and one seed give the same bytes. It needs root, and the programs apt-get, dpkg-deb,
// mmdebstrap, depmod and mkfs.erofs. It must not know the daemon or where images are kept.
//
// Start reading at Recipe, then Resolve (recipe to lock) and Build (lock to image).
package osimage

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"

	"metald.io/metald/internal/imaging/ramdisk"
)

// Identity of the two files that a person handles.
const (
	APIVersion = "image.metald.io/v1alpha1"
	RecipeKind = "Recipe"
	LockKind   = "Lock"
)

// Recipe says what an image is made of.
type Recipe struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	// Name begins the Image's name: a DNS label.
	Name string `json:"name"`
	// Architecture is Go's word: amd64 or arm64.
	Architecture string `json:"architecture"`
	// Kernel says which kernel boots it.
	Kernel KernelRecipe `json:"kernel"`
	// CommandLine is added to the kernel's command line.
	CommandLine string `json:"commandLine,omitempty"`
	// Packages are Debian packages; what they depend on comes along, what they recommend does not. Essential packages
	// need not be named.
	Packages []string `json:"packages"`
	// Exclude are paths that no package may bring, as dpkg's path-exclude.
	Exclude []string `json:"exclude,omitempty"`
	// Remove are paths that are taken out of the finished root, as globs.
	Remove []string `json:"remove,omitempty"`
	// Folders are trees copied over the root, relative to the recipe.
	Folders []string `json:"folders,omitempty"`
	// Files are copied into the root, after the folders.
	Files []FileRecipe `json:"files,omitempty"`
	// Containers are images that the node has without a registry.
	Containers []ContainerRecipe `json:"containers,omitempty"`
	// Units are systemd's.
	Units UnitRecipe `json:"units,omitempty"`

	dir string // where the recipe lies
	raw []byte
}

// KernelRecipe names the kernel package and the modules of the initramfs.
type KernelRecipe struct {
	// Package is a linux-image package or its metapackage.
	Package string `json:"package"`
	// Modules are those of the initramfs; the root has all of the package's.
	Modules ramdisk.Modules `json:"modules"`
}

// FileRecipe is one file. Source is relative to the recipe, or NAME:PATH in a folder that is given when the image is
// locked and built.
type FileRecipe struct {
	Path   string `json:"path"`
	Source string `json:"source"`
	Mode   string `json:"mode,omitempty"`
}

// ContainerRecipe is a container image of a few files.
type ContainerRecipe struct {
	// Name is the image's full name with its tag.
	Name       string       `json:"name"`
	Entrypoint []string     `json:"entrypoint"`
	Files      []FileRecipe `json:"files"`
}

// UnitRecipe enables and masks systemd units.
type UnitRecipe struct {
	Enable []string `json:"enable,omitempty"`
	Mask   []string `json:"mask,omitempty"`
}

var (
	namePattern    = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`)
	packagePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9.+-]+$`)
)

// LoadRecipe reads and checks a recipe. An unknown or doubled key is an error that names it.
func LoadRecipe(file string) (*Recipe, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading recipe: %w", err)
	}
	r := &Recipe{dir: filepath.Dir(file), raw: text}
	if err := yaml.UnmarshalStrict(text, r); err != nil {
		return nil, fmt.Errorf("reading recipe %s: %w", file, err)
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("reading recipe %s: %w", file, err)
	}
	return r, nil
}

func (r *Recipe) check() error {
	switch {
	case r.APIVersion != APIVersion || r.Kind != RecipeKind:
		return fmt.Errorf("apiVersion and kind are %q and %q, want %q and %q", r.APIVersion, r.Kind, APIVersion, RecipeKind)
	case !namePattern.MatchString(r.Name):
		return fmt.Errorf("name %q is not a DNS label of at most 40 characters", r.Name)
	case r.Architecture != "amd64" && r.Architecture != "arm64":
		return fmt.Errorf("architecture %q is neither amd64 nor arm64", r.Architecture)
	case !packagePattern.MatchString(r.Kernel.Package):
		return fmt.Errorf("kernel.package %q is not a package's name", r.Kernel.Package)
	}
	for _, p := range r.Packages {
		if !packagePattern.MatchString(p) {
			return fmt.Errorf("packages has %q, which is not a package's name", p)
		}
	}
	for _, f := range r.Files {
		if err := f.check(); err != nil {
			return err
		}
	}
	for _, c := range r.Containers {
		if c.Name == "" || len(c.Entrypoint) == 0 || len(c.Files) == 0 {
			return fmt.Errorf("container %q needs a name, an entrypoint and files", c.Name)
		}
		for _, f := range c.Files {
			if err := f.check(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f FileRecipe) check() error {
	if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || f.Path == "/" {
		return fmt.Errorf("file path %q is not an absolute, plain path", f.Path)
	}
	if f.Source == "" {
		return fmt.Errorf("file %s has no source", f.Path)
	}
	if _, err := f.mode(); err != nil {
		return fmt.Errorf("file %s: %w", f.Path, err)
	}
	return nil
}

func (f FileRecipe) mode() (os.FileMode, error) {
	if f.Mode == "" {
		return 0o644, nil
	}
	n, err := strconv.ParseUint(f.Mode, 8, 12)
	if err != nil || n > 0o777 {
		return 0, fmt.Errorf("mode %q is not three octal digits", f.Mode)
	}
	return os.FileMode(n), nil
}

// Sources are named folders for NAME:PATH.
type Sources map[string]string

// file finds a file's source.
func (r *Recipe) file(source string, sources Sources) (string, error) {
	name, rest, ok := strings.Cut(source, ":")
	if !ok {
		return filepath.Join(r.dir, source), nil
	}
	dir, ok := sources[name]
	if !ok {
		return "", fmt.Errorf("source %q needs a folder: give --source %s=DIR", source, name)
	}
	return filepath.Join(dir, rest), nil
}
