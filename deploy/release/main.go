// SPDX-License-Identifier: Apache-2.0

// Command release makes what a site without internet installs: one archive and one Debian package for each architecture,
// with the programs, the ramdisk but for the site's CA, units, definitions, a bill of materials, checksums and licences.
// Equal sources give equal bytes: every time is the commit's, every list is sorted, every input is pinned (go.sum,
// debian.lock). It must not know what metald does.
//
// Start reading at build; stage.go says what goes where.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// release is one run.
type release struct {
	// version is what the programs call themselves.
	version string
	// built is the commit's time: no file of a release is younger.
	built time.Time
	// ldflags are those of `make build`, without the version and time that are added here.
	ldflags string
	// out gets the release, work holds what may be thrown away, cache what Debian's mirror gave.
	out, work, cache string
}

func main() {
	log.SetFlags(0)
	r := release{}
	var arches string
	flag.StringVar(&r.version, "version", "", "the release's version, as git describe says it")
	flag.StringVar(&r.out, "out", "dist", "folder for the release; it is emptied first")
	flag.StringVar(&r.cache, "cache", "build/release/cache", "folder for packages of Debian's mirror")
	flag.StringVar(&r.ldflags, "ldflags", "-s -w", "flags for Go's linker")
	flag.StringVar(&arches, "arch", "amd64", "architectures, in Go's words, with commas")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := r.build(ctx, strings.Split(arches, ",")); err != nil {
		log.Fatalf("release: %v", err)
	}
}

func (r *release) build(ctx context.Context, arches []string) (err error) {
	if r.version == "" {
		return errors.New("it needs a -version")
	}
	if r.built, err = commitTime(ctx); err != nil {
		return err
	}
	// What other programs write must not depend on whose machine this is.
	syscall.Umask(0o022)
	if r.work, err = os.MkdirTemp("", "metald-release-*"); err != nil {
		return fmt.Errorf("making a work folder: %w", err)
	}
	defer os.RemoveAll(r.work)
	if err := os.RemoveAll(r.out); err != nil {
		return fmt.Errorf("emptying %s: %w", r.out, err)
	}
	if err := os.MkdirAll(r.out, 0o755); err != nil {
		return fmt.Errorf("making %s: %w", r.out, err)
	}
	for _, arch := range arches {
		if err := r.architecture(ctx, arch); err != nil {
			return fmt.Errorf("%s: %w", arch, err)
		}
	}
	return writeSums(filepath.Join(r.out, "SHA256SUMS"), r.out)
}

// architecture makes the archive and the package of one architecture.
func (r *release) architecture(ctx context.Context, arch string) error {
	start := time.Now()
	root := filepath.Join(r.work, arch)
	if err := r.stage(ctx, arch, root); err != nil {
		return err
	}
	name := fmt.Sprintf("metald_%s_linux_%s", r.version, arch)
	if err := writeTarball(filepath.Join(r.out, name+".tar.gz"), root, name, r.built); err != nil {
		return err
	}
	if err := r.writeDeb(ctx, root, arch); err != nil {
		return err
	}
	log.Printf("%s: done in %s", arch, time.Since(start).Round(time.Second))
	return nil
}

// commitTime is SOURCE_DATE_EPOCH (reproducible-builds.org) or the time of the commit that is built.
func commitTime(ctx context.Context) (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		out, err := output(exec.CommandContext(ctx, "git", "log", "-1", "--format=%ct"))
		if err != nil {
			return time.Time{}, fmt.Errorf("asking git for the commit's time (or set SOURCE_DATE_EPOCH): %w", err)
		}
		text = out
	}
	var seconds int64
	if _, err := fmt.Sscanf(text, "%d", &seconds); err != nil {
		return time.Time{}, fmt.Errorf("reading the commit's time %q: %w", text, err)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// output runs a program and returns what it says; an error has the last of what it complained of.
func output(cmd *exec.Cmd) (string, error) {
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "", fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, strings.TrimSpace(string(exit.Stderr)))
	}
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(out)), nil
}
