// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/cli-runtime/pkg/printers"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/daemon"
	"metald.io/metald/internal/imaging"
	"metald.io/metald/internal/imaging/osimage"
	"metald.io/metald/internal/imaging/ramdisk"
)

// imagesDir is where a data directory keeps the files that machines boot.
const imagesDir = "images"

func newImageCommand() *cobra.Command {
	c := group("image", "Make the ramdisk and OS images, and give them to the daemon",
		newImageRamdiskCommand(), newImageLockCommand(), newImageBuildCommand(), newImageImportCommand(), newImageListCommand())
	c.Long = c.Short + `.

The ramdisk is what a machine boots to be inspected. An OS image is made from a recipe in three steps: lock pins each package
and file, build makes the files, import gives them to the daemon.`
	return c
}

// imageAccess reads the flags that every command has from the root.
func imageAccess(c *cobra.Command) *access {
	a := &access{dataDir: defaultDataDir}
	for name, into := range map[string]*string{"kubeconfig": &a.kubeconfig, "data-dir": &a.dataDir, "namespace": &a.namespace} {
		if f := c.Flag(name); f != nil {
			*into = f.Value.String()
		}
	}
	return a
}

// partFlags are the files that end up inside a ramdisk or an image.
type partFlags struct {
	agent, stub, authority string
}

func (p *partFlags) add(c *cobra.Command) {
	agent := "metald-agent"
	if self, err := os.Executable(); err == nil {
		agent = filepath.Join(filepath.Dir(self), agent)
	}
	c.Flags().StringVar(&p.agent, "agent", agent, "the metald-agent program, static")
	c.Flags().StringVar(&p.stub, "stub", "/usr/lib/systemd/boot/efi/linuxx64.efi.stub", "systemd's EFI boot stub (Debian: systemd-boot-efi)")
}

func (p *partFlags) addAuthority(c *cobra.Command) {
	c.Flags().StringVar(&p.authority, "ca-file", "", "the site CA that agents trust (default: the data directory's, made if there is none)")
}

// readAuthority reads the site CA, and makes the data directory's keys where there are none yet: a ramdisk may be built
// before the daemon's first start.
func (p *partFlags) readAuthority(dataDir string) ([]byte, error) {
	if p.authority == "" {
		text, err := daemon.SiteAuthorities(dataDir, time.Now())
		if !errors.Is(err, fs.ErrNotExist) {
			return text, err
		}
		keys, err := daemon.EnsurePKI(dataDir, nil, time.Now())
		if err != nil {
			return nil, err
		}
		return keys.SiteCA, nil
	}
	text, err := os.ReadFile(p.authority)
	if err != nil {
		return nil, fmt.Errorf("reading the site CA: %w", err)
	}
	return text, nil
}

func newImageRamdiskCommand() *cobra.Command {
	var parts partFlags
	var kernel, output, line, from string
	var base, keepOwn bool
	c := &cobra.Command{
		Use: "ramdisk", Short: "Make the ramdisk that machines boot to be inspected",
		Long: `Make the ramdisk: a unified kernel image of a kernel package, the drivers of common servers, metald-agent and the site CA.
It goes into the data directory's image store and is offered from then on; the daemon may be running.

With --from it is made of the ramdisk that a release ships, by adding the site CA: in a moment, with no network and no other
program. That is what metald.service does before each start.`,
		Example: "  metald image ramdisk --kernel-package linux-image-amd64\n  metald image ramdisk --from /usr/share/metald/ramdisk.efi",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			dataDir := imageAccess(c).dataDir
			if from == "" {
				return makeRamdisk(c.Context(), c.OutOrStdout(), dataDir, parts, kernel, output, line, base)
			}
			if base || dataDir == "" && (keepOwn || output == "" || parts.authority == "") {
				return usageErrorf("--from takes no --base, and without a data directory it needs --output and --ca-file and takes no --keep-own")
			}
			return fromRelease(c.Context(), c.OutOrStdout(), dataDir, parts, from, output, keepOwn)
		},
	}
	parts.add(c)
	parts.addAuthority(c)
	c.Flags().StringVar(&kernel, "kernel-package", "linux-image-amd64", "a linux-image .deb file, or a package's name that apt-get fetches")
	c.Flags().StringVarP(&output, "output", "o", "", "write the file here too; with --data-dir=\"\" only here")
	c.Flags().StringVar(&line, "command-line", ramdisk.CommandLine, "the kernel's command line")
	c.Flags().StringVar(&from, "from", "", "a release's ramdisk: only the site CA is added to it")
	c.Flags().BoolVar(&keepOwn, "keep-own", false, "with --from: change nothing where a ramdisk of one's own kernel package is offered")
	c.Flags().BoolVar(&base, "base", false, "leave out the site CA: what a release ships, for --from (needs --output and --data-dir=\"\")")
	return c
}

func makeRamdisk(ctx context.Context, out io.Writer, dataDir string, parts partFlags, kernelPackage, output, line string, base bool) error {
	start := time.Now()
	if base && (output == "" || dataDir != "" || parts.authority != "") {
		return usageErrorf("--base needs --output and --data-dir=\"\", and takes no --ca-file")
	}
	if !base && dataDir == "" && (output == "" || parts.authority == "") {
		return usageErrorf("without a data directory --output and --ca-file are needed")
	}
	spec := ramdisk.Spec{CommandLine: line, Initramfs: ramdisk.Initramfs{Modules: ramdisk.ServerModules}}
	var err error
	build := ramdisk.BuildBase
	if !base {
		build = ramdisk.Build
		if spec.Authority, err = parts.readAuthority(dataDir); err != nil {
			return err
		}
	}
	if spec.Agent, err = os.ReadFile(parts.agent); err != nil {
		return fmt.Errorf("reading the agent: %w", err)
	}
	if spec.Stub, err = os.ReadFile(parts.stub); err != nil {
		return fmt.Errorf("reading the boot stub: %w", err)
	}
	work, err := os.MkdirTemp("", "metald-ramdisk-*")
	if err != nil {
		return fmt.Errorf("making a work folder: %w", err)
	}
	defer os.RemoveAll(work)
	deb := kernelPackage
	if filepath.Ext(deb) != ".deb" {
		if deb, err = ramdisk.FetchKernel(ctx, deb, work); err != nil {
			return err
		}
	}
	if spec.Kernel, err = ramdisk.UnpackKernel(ctx, deb, filepath.Join(work, "kernel")); err != nil {
		return err
	}
	built, err := build(ctx, spec)
	if err != nil {
		return err
	}
	return keepRamdisk(ctx, out, dataDir, output, built, spec.Kernel.Release, time.Since(start))
}

func keepRamdisk(ctx context.Context, out io.Writer, dataDir, output string, built []byte, release string, took time.Duration) error {
	if output != "" {
		if err := os.WriteFile(output, built, 0o644); err != nil {
			return fmt.Errorf("writing the ramdisk: %w", err)
		}
	}
	if dataDir != "" {
		store, err := imaging.OpenStore(filepath.Join(dataDir, imagesDir))
		if err != nil {
			return err
		}
		file, err := store.AddBytes(ctx, built)
		if err != nil {
			return err
		}
		if err := store.SetRamdisk(runtime.GOARCH, file); err != nil {
			return err
		}
		fmt.Fprintf(out, "ramdisk %s\n", file.SHA256)
	}
	_, err := fmt.Fprintf(out, "kernel %s, %.1f MiB, made in %s\n", release, float64(len(built))/(1<<20), took.Round(100*time.Millisecond))
	return err
}

func newImageImportCommand() *cobra.Command {
	return &cobra.Command{
		Use: "import DIR", Short: "Give a built image to the daemon",
		Long: `Copy the files of a built image into the data directory's image store and make its Image object. It must run on the daemon's
machine. Importing the same image again changes nothing.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return importImage(c.Context(), c.OutOrStdout(), imageAccess(c), args[0])
		},
	}
}

func importImage(ctx context.Context, out io.Writer, a *access, dir string) error {
	image, err := osimage.LoadImage(filepath.Join(dir, osimage.ImageName))
	if err != nil {
		return err
	}
	store, err := imaging.OpenStore(filepath.Join(a.dataDir, imagesDir))
	if err != nil {
		return err
	}
	files := map[string]v1alpha1.File{osimage.UKIName: image.Spec.UKI, osimage.RootName: image.Spec.Root.File}
	if image.Spec.Loader != nil {
		files[osimage.LoaderName] = *image.Spec.Loader
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		want := files[name]
		if store.Verify(want) == nil {
			continue
		}
		if err := store.AddFile(ctx, filepath.Join(dir, name), want); err != nil {
			return fmt.Errorf("importing %s: %w", image.Name, err)
		}
	}
	d, err := a.open()
	if err != nil {
		return err
	}
	err = d.metald.Post().Resource("images").Param("fieldManager", fieldManager).Body(image).Do(ctx).Error()
	if apierrors.IsAlreadyExists(err) {
		var have v1alpha1.Image
		if err := d.metald.Get().Resource("images").Name(image.Name).Do(ctx).Into(&have); err != nil {
			return fmt.Errorf("reading image %s: %w", image.Name, err)
		}
		if !equality.Semantic.DeepEqual(have.Spec, image.Spec) {
			return fmt.Errorf("importing image %s: there is another of that name, and an Image is immutable", image.Name)
		}
		_, err = fmt.Fprintf(out, "image %s unchanged\n", image.Name)
		return err
	}
	if err != nil {
		return fmt.Errorf("making image %s: %w", image.Name, err)
	}
	_, err = fmt.Fprintf(out, "image %s created\n", image.Name)
	return err
}

func newImageListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List images",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			d, err := imageAccess(c).open()
			if err != nil {
				return err
			}
			var list v1alpha1.ImageList
			if err := d.metald.Get().Resource("images").Do(c.Context()).Into(&list); err != nil {
				return fmt.Errorf("listing images: %w", err)
			}
			w := printers.GetNewTabWriter(c.OutOrStdout())
			fmt.Fprintln(w, "NAME\tARCH\tKUBERNETES\tOS\tKERNEL\tROOT MIB")
			for _, i := range list.Items {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\n", i.Name, i.Spec.Architecture, i.Spec.KubernetesVersion, i.Spec.OS, i.Spec.Kernel, i.Spec.Root.SizeBytes>>20)
			}
			return w.Flush()
		},
	}
}
