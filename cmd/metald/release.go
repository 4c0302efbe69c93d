// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"metald.io/metald/internal/imaging"
	"metald.io/metald/internal/imaging/ramdisk"
)

// fromRelease makes the site's ramdisk of the one that a release ships. With keepOwn a ramdisk that was built in another
// way stays the one that is offered: it may hold drivers that the release's has not.
func fromRelease(ctx context.Context, out io.Writer, dataDir string, parts partFlags, from, output string, keepOwn bool) error {
	start := time.Now()
	base, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("reading the release's ramdisk: %w", err)
	}
	if keepOwn {
		own, err := ownRamdisk(dataDir)
		if err != nil {
			return err
		}
		if own {
			_, err := fmt.Fprintln(out, "ramdisk unchanged: it was not made of a release's")
			return err
		}
	}
	authority, err := parts.readAuthority(dataDir)
	if err != nil {
		return err
	}
	built, err := ramdisk.Localize(base, authority)
	if err != nil {
		return err
	}
	kernel, _ := ramdisk.Released(built)
	return keepRamdisk(ctx, out, dataDir, output, built, kernel, time.Since(start))
}

// ownRamdisk says whether the store offers a ramdisk that is whole and no release's. A damaged one is nobody's.
func ownRamdisk(dataDir string) (bool, error) {
	store, err := imaging.OpenStore(filepath.Join(dataDir, imagesDir))
	if err != nil {
		return false, err
	}
	file, err := store.Ramdisk(runtime.GOARCH)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := store.Verify(file); err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, imaging.ErrDigest) {
			return false, nil
		}
		return false, err
	}
	f, err := store.Open(file.SHA256)
	if err != nil {
		return false, err
	}
	defer f.Close()
	image, err := io.ReadAll(f)
	if err != nil {
		return false, fmt.Errorf("reading the ramdisk: %w", err)
	}
	_, released := ramdisk.Released(image)
	return !released, nil
}
