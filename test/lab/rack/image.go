// SPDX-License-Identifier: Apache-2.0

package rack

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"sigs.k8s.io/yaml"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/imaging/ramdisk"
)

// kernelPackage is the ramdisk's kernel: the full one, whose drivers real servers need.
const kernelPackage = "linux-image-amd64"

// recipe is the OS image that the lab's hosts run.
func (r *Rack) recipe() string { return filepath.Join(r.Repo, "deploy", "image", "lab", "recipe.yaml") }

// ImageDir holds the built image. It belongs to all racks of this tree, for they share their site's authority.
func (r *Rack) ImageDir() string { return filepath.Join(r.Cache, "image") }

func (r *Rack) debPool() string { return filepath.Join(r.Cache, "debs") }

// ramdisk makes the ramdisk into metald's data directory: a few seconds, once its kernel package is there.
func (r *Rack) ramdisk(ctx context.Context) error {
	stamp, err := r.stamp([]string{r.Agent(), r.Authority(), filepath.Join(r.Repo, "internal", "imaging")})
	if err != nil {
		return err
	}
	if upToDate(r.Path("ramdisk.stamp"), stamp) {
		return nil
	}
	kernel, err := r.kernel(ctx)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, r.Metald(), "image", "ramdisk", "--data-dir", r.Data(), "--agent", r.Agent(), "--kernel-package", kernel)
	cmd.Dir = r.Repo
	if err := r.progress(cmd, ""); err != nil {
		return err
	}
	return os.WriteFile(r.Path("ramdisk.stamp"), stamp, 0o644)
}

// kernel keeps the ramdisk's kernel package, about 70 MB, so that each new rack need not fetch it again.
func (r *Rack) kernel(ctx context.Context) (string, error) {
	dir := filepath.Join(r.Cache, "kernel")
	if have, _ := filepath.Glob(filepath.Join(dir, "*.deb")); len(have) == 1 {
		return have[0], nil
	}
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		return "", fmt.Errorf("keeping the kernel package: %w", err)
	}
	r.say("    fetching the kernel package behind %s", kernelPackage)
	deb, err := ramdisk.FetchKernel(ctx, kernelPackage, dir)
	if err != nil {
		return "", err
	}
	kept := filepath.Join(dir, filepath.Base(deb))
	if deb != kept {
		err = os.Rename(deb, kept)
	}
	return kept, err
}

// image locks, builds and imports the OS image; the build takes minutes and is skipped when nothing of it changed.
func (r *Rack) image(ctx context.Context) error {
	if err := r.BuildImage(ctx); err != nil {
		return err
	}
	if upToDate(r.Path("image.stamp"), r.imageStamp()) {
		return nil
	}
	if err := r.ImportImage(ctx, r.ImageDir()); err != nil {
		return err
	}
	return os.WriteFile(r.Path("image.stamp"), r.imageStamp(), 0o644)
}

func (r *Rack) imageStamp() []byte {
	text, _ := os.ReadFile(filepath.Join(r.ImageDir(), ".stamp"))
	return text
}

// ImportImage puts a built image into metald's store and makes its Image object.
func (r *Rack) ImportImage(ctx context.Context, dir string) error {
	cmd := r.Inside(ctx, r.Metald(), "image", "import", dir, "--data-dir", r.Data(), "--kubeconfig", r.MetaldKubeconfig())
	return r.progress(cmd, "")
}

// BuildImage makes the image in ImageDir where it is missing or made from something else.
func (r *Rack) BuildImage(ctx context.Context) error {
	ca := r.Authority()
	stamp, err := r.stamp([]string{r.Agent(), ca, r.Program("kubelet"), r.Program("pause"),
		filepath.Join(r.Repo, "deploy", "image"), filepath.Join(r.Repo, "internal", "imaging")})
	if err != nil {
		return err
	}
	if upToDate(filepath.Join(r.ImageDir(), ".stamp"), stamp) {
		return nil
	}
	if err := os.RemoveAll(r.ImageDir()); err != nil {
		return fmt.Errorf("removing the old image: %w", err)
	}
	if err := r.lockAndBuild(ctx, ca); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.ImageDir(), ".stamp"), stamp, 0o644)
}

// lockAndBuild keeps to the packages of the last lock while the recipe is the same. Where a mirror no longer has one of
// them, it locks today's.
func (r *Rack) lockAndBuild(ctx context.Context, ca string) error {
	recipe, err := r.stamp([]string{r.recipe()})
	if err != nil {
		return err
	}
	build := func() error {
		return r.imageStep(ctx, "build", r.recipe(), "--lock", r.lock(), "--ca-file", ca, "--pool", r.debPool(), "-o", r.ImageDir())
	}
	if upToDate(r.lock()+".recipe", recipe) {
		err := r.imageStep(ctx, "lock", r.recipe(), "-o", r.lock(), "--keep-packages")
		if err == nil {
			err = build()
		}
		if err == nil || ctx.Err() != nil {
			return err
		}
		r.say("    with the packages of the last lock: %v; locking today's", err)
	}
	if err := r.imageStep(ctx, "lock", r.recipe(), "-o", r.lock()); err != nil {
		return err
	}
	if err := os.WriteFile(r.lock()+".recipe", recipe, 0o644); err != nil {
		return fmt.Errorf("remembering the lock: %w", err)
	}
	return build()
}

func (r *Rack) lock() string { return filepath.Join(r.Cache, "image.lock") }

// BuildSeeded makes the image once more, with a seed inside its UKI.
func (r *Rack) BuildSeeded(ctx context.Context, seed, dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("removing the old image: %w", err)
	}
	return r.imageStep(ctx, "build", r.recipe(), "--lock", r.lock(), "--ca-file", r.Authority(),
		"--pool", r.debPool(), "--seed", seed, "-o", dir)
}

// imageStep runs one of the image commands with the sources that the lab's recipe names.
func (r *Rack) imageStep(ctx context.Context, args ...string) error {
	args = append([]string{"image"}, args...)
	cmd := exec.CommandContext(ctx, r.Metald(), append(args, "--agent", r.Agent(), "--source", "bin="+r.Program(""))...)
	cmd.Dir = r.Repo
	return r.progress(cmd, "")
}

// Image reads the built image's description.
func (r *Rack) Image() (*v1alpha1.Image, error) { return readImage(r.ImageDir()) }

func readImage(dir string) (*v1alpha1.Image, error) {
	text, err := os.ReadFile(filepath.Join(dir, "image.yaml"))
	if err != nil {
		return nil, fmt.Errorf("reading the image's description: %w", err)
	}
	var image v1alpha1.Image
	if err := yaml.UnmarshalStrict(text, &image); err != nil {
		return nil, fmt.Errorf("reading the image's description: %w", err)
	}
	return &image, nil
}

// ImageName is the name of the built image.
func (r *Rack) ImageName() (string, error) {
	image, err := r.Image()
	if err != nil {
		return "", err
	}
	return image.Name, nil
}

// stamp is a digest of files and of all files below directories.
func (r *Rack) stamp(paths []string) ([]byte, error) {
	sum := sha256.New()
	for _, root := range paths {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			file, err := os.Open(path)
			if err != nil {
				return err
			}
			defer file.Close()
			fmt.Fprintln(sum, path)
			_, err = io.Copy(sum, file)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("looking for changes: %w", err)
		}
	}
	return fmt.Appendf(nil, "%x\n", sum.Sum(nil)), nil
}

func upToDate(file string, stamp []byte) bool {
	old, err := os.ReadFile(file)
	return !errors.Is(err, os.ErrNotExist) && len(stamp) > 0 && string(old) == string(stamp)
}
