// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"metald.io/metald/internal/imaging/osimage"
)

// buildFlags are common to lock and build.
type buildFlags struct {
	partFlags
	loader  string
	sources map[string]string
}

// loaderFile is where Debian has the boot loader, by architecture.
var loaderFile = map[string]string{
	"amd64": "/usr/lib/systemd/boot/efi/systemd-bootx64.efi",
	"arm64": "/usr/lib/systemd/boot/efi/systemd-bootaa64.efi",
}

func (b *buildFlags) add(c *cobra.Command) {
	b.partFlags.add(c)
	c.Flags().StringVar(&b.loader, "loader", loaderFile[runtime.GOARCH],
		"systemd's EFI boot loader for disks (Debian: systemd-boot-efi); empty makes an image that runs diskless only")
	c.Flags().StringToStringVar(&b.sources, "source", nil, "NAME=DIR: the folder behind NAME:PATH in the recipe (may be repeated)")
}

func (b *buildFlags) inputs() osimage.Inputs {
	return osimage.Inputs{Agent: b.agent, Stub: b.stub, Loader: b.loader, Sources: b.sources}
}

func newImageLockCommand() *cobra.Command {
	var flags buildFlags
	var output string
	var keep bool
	c := &cobra.Command{
		Use: "lock RECIPE", Short: "Pin each package and file of a recipe",
		Long: `Ask this machine's apt which packages a recipe means today, and pin each by version and digest in a lock file, with all local
files. Nothing is installed. Run apt-get update first to get what is new.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			recipe, err := osimage.LoadRecipe(args[0])
			if err != nil {
				return err
			}
			if output == "" {
				output = filepath.Join(filepath.Dir(args[0]), "image.lock")
			}
			var previous *osimage.Lock
			if keep {
				if previous, err = osimage.LoadLock(output); err != nil {
					return err
				}
			}
			lock, err := osimage.Resolve(c.Context(), recipe, flags.inputs(), previous)
			if err != nil {
				return err
			}
			text, err := lock.Text()
			if err != nil {
				return err
			}
			if err := renameio.WriteFile(output, text, 0o644); err != nil {
				return fmt.Errorf("writing lock: %w", err)
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s: %d packages, kernel %s %s, %d files\n", output, len(lock.Packages), lock.Kernel.Name, lock.Kernel.Version, len(lock.Files))
			return err
		},
	}
	flags.add(c)
	c.Flags().StringVarP(&output, "output", "o", "", "the lock file (default: image.lock beside the recipe)")
	c.Flags().BoolVar(&keep, "keep-packages", false, "keep the packages of the lock file that is there, and pin only local files anew")
	return c
}

func newImageBuildCommand() *cobra.Command {
	var flags buildFlags
	var lockFile, output, pool, seed string
	c := &cobra.Command{
		Use: "build RECIPE", Short: "Make an OS image from a recipe and its lock",
		Long: `Make an OS image: a read-only root under dm-verity (root.img), the unified kernel image that boots it (image.efi), the boot
loader that starts it from a disk (loader.efi), and its description (image.yaml). It needs root. Two builds from one lock, with one site CA, give the same bytes.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			start := time.Now()
			recipe, err := osimage.LoadRecipe(args[0])
			if err != nil {
				return err
			}
			if lockFile == "" {
				lockFile = filepath.Join(filepath.Dir(args[0]), "image.lock")
			}
			lock, err := osimage.LoadLock(lockFile)
			if err != nil {
				return fmt.Errorf("%w (make it with `metald image lock`)", err)
			}
			options := osimage.Options{
				Inputs: flags.inputs(), Pool: pool, Out: output,
				Logger: slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil)),
			}
			if options.Authority, err = flags.readAuthority(imageAccess(c).dataDir); err != nil {
				return err
			}
			if seed != "" {
				if options.Seed, err = os.ReadFile(seed); err != nil {
					return fmt.Errorf("reading the seed: %w", err)
				}
			}
			image, err := osimage.Build(c.Context(), recipe, lock, options)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "image %s: root %.1f MiB, UKI %.1f MiB, made in %s\n", image.Name,
				float64(image.Spec.Root.SizeBytes)/(1<<20), float64(image.Spec.UKI.SizeBytes)/(1<<20), time.Since(start).Round(100*time.Millisecond))
			return err
		},
	}
	flags.add(c)
	flags.addAuthority(c)
	c.Flags().StringVar(&lockFile, "lock", "", "the lock file (default: image.lock beside the recipe)")
	c.Flags().StringVarP(&output, "output", "o", "image", "the folder for the image's files")
	c.Flags().StringVar(&pool, "pool", "/var/cache/metald/packages", "the folder that keeps fetched packages")
	c.Flags().StringVar(&seed, "seed", "", "a JoinSeed to build in, for one host that joins without a daemon (it is a secret)")
	return c
}
