// SPDX-License-Identifier: Apache-2.0

package osimage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/imaging/diskless"
	"metald.io/metald/internal/imaging/ramdisk"
	"metald.io/metald/internal/imaging/uki"
)

// Names of a built image's files.
const (
	RootName   = "root.img"
	UKIName    = "image.efi"
	LoaderName = "loader.efi"
	ImageName  = "image.yaml"
)

// Options are what a build needs beside recipe and lock.
type Options struct {
	Inputs
	// Pool keeps packages from build to build.
	Pool string
	// Out is the folder that the image's files go to.
	Out string
	// Authority is the site CA in PEM; it goes into the initramfs.
	Authority []byte
	// Seed is empty or a JoinSeed in JSON that goes into the initramfs. It holds a secret: such an image is for a test
	// with one host.
	Seed []byte
	// Logger is told each step when it ends.
	Logger *slog.Logger
}

type builder struct {
	recipe  *Recipe
	lock    *Lock
	options Options
	files   []LockedFile
	work    string
	kernel  ramdisk.Kernel
}

// Build makes root.img, image.efi, loader.efi and image.yaml in the folder Out. Everything that goes in must be what the lock pins;
// each difference is named.
func Build(ctx context.Context, r *Recipe, l *Lock, o Options) (*v1alpha1.Image, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("building an image: it needs root, since it makes a tree with owners and devices")
	}
	// The caller's umask must not show in the modes of what is made.
	defer unix.Umask(unix.Umask(0o022))
	b := &builder{recipe: r, lock: l, options: o}
	if err := b.check(ctx); err != nil {
		return nil, fmt.Errorf("checking against the lock: %w", err)
	}
	var err error
	if b.options.Pool, err = filepath.Abs(o.Pool); err != nil {
		return nil, fmt.Errorf("finding the package pool: %w", err)
	}
	if err := os.MkdirAll(o.Out, 0o755); err != nil {
		return nil, fmt.Errorf("making the output folder: %w", err)
	}
	if b.work, err = os.MkdirTemp("", "metald-image-*"); err != nil {
		return nil, fmt.Errorf("making a work folder: %w", err)
	}
	defer os.RemoveAll(b.work)
	// mmdebstrap drops to the root's own users inside: they must be able to pass.
	if err := os.Chmod(b.work, 0o755); err != nil {
		return nil, fmt.Errorf("making a work folder: %w", err)
	}
	return b.build(ctx)
}

func (b *builder) check(ctx context.Context) error {
	if b.lock.Recipe != b.recipe.Name || b.lock.Architecture != b.recipe.Architecture {
		return fmt.Errorf("the lock is for recipe %s (%s), this one is %s (%s)", b.lock.Recipe, b.lock.Architecture, b.recipe.Name, b.recipe.Architecture)
	}
	if got := textDigest(b.recipe.raw); got != b.lock.RecipeSHA256 {
		return fmt.Errorf("the recipe has sha256 %s, the lock was made from %s", got, b.lock.RecipeSHA256)
	}
	if err := nativeArchitecture(ctx, b.recipe.Architecture); err != nil {
		return err
	}
	var err error
	if b.files, err = localFiles(b.recipe, b.options.Inputs); err != nil {
		return err
	}
	have, err := tools(ctx)
	if err != nil {
		return err
	}
	return b.lock.compare(b.files, have)
}

func (b *builder) build(ctx context.Context) (*v1alpha1.Image, error) {
	tree, rootFile := filepath.Join(b.work, "root"), filepath.Join(b.options.Out, RootName)
	lockText, err := b.lock.Text()
	if err != nil {
		return nil, err
	}
	lockDigest := textDigest(lockText)
	var root diskless.Root
	var facts osFacts
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"fetching packages", func() error { return fetch(ctx, b.options.Pool, append([]Package{b.lock.Kernel}, b.lock.Packages...)) }},
		{"unpacking the kernel", func() error { return b.unpackKernel(ctx) }},
		{"making the root", func() error { return b.root(ctx, tree) }},
		{"reading versions", func() (err error) { facts, err = readOS(ctx, tree); return err }},
		{"packing the root", func() error { return fileSystem(ctx, tree, rootFile, lockDigest) }},
		{"sealing the root", func() (err error) { root, err = seal(rootFile, lockDigest); return err }},
		{"assembling the UKI", func() error { return b.assemble(ctx, root, facts) }},
	} {
		start := time.Now()
		if err := step.do(); err != nil {
			return nil, err
		}
		b.options.Logger.Info("image step done", "step", step.name, "took", time.Since(start).Round(time.Millisecond))
	}
	kernel, err := describe(filepath.Join(b.options.Out, UKIName))
	if err != nil {
		return nil, fmt.Errorf("reading the UKI back: %w", err)
	}
	loader, err := b.loader()
	if err != nil {
		return nil, err
	}
	image := &v1alpha1.Image{
		TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "Image"},
		// The UKI's digest covers everything, by the root hash in its command line: also the loader, which the root's copy of
		// the lock pins.
		ObjectMeta: metav1.ObjectMeta{Name: b.recipe.Name + "-" + kernel.SHA256[:12]},
		Spec: v1alpha1.ImageSpec{
			Architecture: b.recipe.Architecture, OS: facts.prettyName, Kernel: b.kernel.Release, KubernetesVersion: facts.kubernetes,
			UKI: kernel, Loader: loader, RootHash: root.RootHash, LockSHA256: lockDigest,
			Root: v1alpha1.RootFile{
				File: v1alpha1.File{SHA256: root.SHA256, SizeBytes: root.SizeBytes}, Format: root.Format, HashOffset: root.HashOffset,
			},
		},
	}
	return image, writeImage(filepath.Join(b.options.Out, ImageName), image)
}

func (b *builder) assemble(ctx context.Context, root diskless.Root, facts osFacts) error {
	agent, err := os.ReadFile(b.options.Agent)
	if err != nil {
		return fmt.Errorf("reading the agent: %w", err)
	}
	stub, err := os.ReadFile(b.options.Stub)
	if err != nil {
		return fmt.Errorf("reading the boot stub: %w", err)
	}
	kernel, err := os.ReadFile(b.kernel.Image)
	if err != nil {
		return fmt.Errorf("reading the kernel: %w", err)
	}
	initrd, err := ramdisk.Initrd(ctx, ramdisk.Initramfs{
		Kernel: b.kernel, Modules: b.recipe.Kernel.Modules, Agent: agent, Authority: b.options.Authority, Seed: b.options.Seed,
	})
	if err != nil {
		return fmt.Errorf("building the initramfs: %w", err)
	}
	image, err := uki.Assemble(uki.Parts{
		Stub: stub, Kernel: kernel, Initrd: initrd, Uname: b.kernel.Release, OSRelease: facts.release,
		CommandLine: strings.TrimSpace(root.CommandLine() + " " + strings.TrimSpace(b.recipe.CommandLine)),
	})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(b.options.Out, UKIName), image, 0o644); err != nil {
		return fmt.Errorf("writing the UKI: %w", err)
	}
	return nil
}

// loader copies the boot loader for disks, byte for byte. It is nil where the build was given none.
func (b *builder) loader() (*v1alpha1.File, error) {
	to := filepath.Join(b.options.Out, LoaderName)
	if b.options.Loader == "" {
		// An older build's must not lie beside a description that does not name it.
		if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("removing an older boot loader: %w", err)
		}
		return nil, nil
	}
	if err := copyFile(b.options.Loader, to, 0o644); err != nil {
		return nil, fmt.Errorf("copying the boot loader: %w", err)
	}
	loader, err := describe(to)
	if err != nil {
		return nil, fmt.Errorf("reading the boot loader back: %w", err)
	}
	return &loader, nil
}

// osFacts are what an image says of itself.
type osFacts struct {
	release, prettyName, kubernetes string
}

func readOS(ctx context.Context, tree string) (osFacts, error) {
	text, err := os.ReadFile(filepath.Join(tree, "usr/lib/os-release"))
	if err != nil {
		return osFacts{}, fmt.Errorf("reading the root's os-release: %w", err)
	}
	facts := osFacts{release: string(text)}
	for line := range strings.Lines(facts.release) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
			facts.prettyName = strings.Trim(v, `"'`)
		}
	}
	if _, err := os.Stat(filepath.Join(tree, "usr/bin/kubelet")); err != nil {
		return facts, nil
	}
	out, err := exec.CommandContext(ctx, "chroot", tree, "/usr/bin/kubelet", "--version").CombinedOutput()
	if err != nil {
		return osFacts{}, fmt.Errorf("asking the root's kubelet for its version: %w: %s", err, tail(out))
	}
	version, ok := strings.CutPrefix(strings.TrimSpace(string(out)), "Kubernetes ")
	if !ok {
		return osFacts{}, fmt.Errorf("asking the root's kubelet for its version: it says %q", tail(out))
	}
	facts.kubernetes = version
	return facts, nil
}

// writeImage writes the Image object without what only a server sets.
func writeImage(file string, image *v1alpha1.Image) error {
	text, err := yaml.Marshal(map[string]any{
		"apiVersion": image.APIVersion, "kind": image.Kind, "metadata": map[string]any{"name": image.Name}, "spec": image.Spec,
	})
	if err != nil {
		return fmt.Errorf("writing %s: %w", ImageName, err)
	}
	if err := os.WriteFile(file, text, 0o644); err != nil {
		return fmt.Errorf("writing %s: %w", ImageName, err)
	}
	return nil
}

// LoadImage reads an image.yaml, strictly.
func LoadImage(file string) (*v1alpha1.Image, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading the image's description: %w", err)
	}
	image := &v1alpha1.Image{}
	if err := yaml.UnmarshalStrict(text, image); err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	if image.APIVersion != v1alpha1.GroupVersion.String() || image.Kind != "Image" || image.Name == "" {
		return nil, fmt.Errorf("reading %s: it is %s %s %q, want a named Image of %s", file, image.APIVersion, image.Kind, image.Name, v1alpha1.GroupVersion)
	}
	return image, nil
}
