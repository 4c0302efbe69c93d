// SPDX-License-Identifier: Apache-2.0

package rack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// phase is one timed step of Up.
type phase struct {
	name string
	run  func(context.Context) error
	took time.Duration
}

// Up starts what is not up yet. Each phase looks first whether it has anything to do, so a second Up is quick and one that
// was stopped goes on.
func (r *Rack) Up(ctx context.Context) error {
	phases := append(r.Setup(), phase{name: "hosts: from off to Ready", run: r.enrolAndFollow})
	if err := r.run(ctx, phases); err != nil {
		return err
	}
	return r.farewell(ctx, phases)
}

// Setup is all of Up but the host's own way: after it, metald serves and knows its images, its cluster and its pool.
func (r *Rack) Setup() []phase {
	return []phase{
		{name: "Debian packages", run: r.Install},
		{name: "metald and its agent", run: r.build},
		{name: "Kubernetes programs", run: r.Programs},
		{name: "network", run: r.fresh},
		{name: "Kubernetes control plane", run: r.controlPlane},
		{name: "machines' BMCs", run: r.startBMCs},
		{name: "metald serve", run: r.StartMetald},
		{name: "ramdisk", run: r.ramdisk},
		{name: "OS image", run: r.image},
		{name: "cluster and pool", run: r.pool},
	}
}

// RunSetup is Setup for a test.
func (r *Rack) RunSetup(ctx context.Context) error { return r.run(ctx, r.Setup()) }

func (r *Rack) run(ctx context.Context, phases []phase) error {
	if err := needRoot(); err != nil {
		return err
	}
	for _, dir := range []string{r.Dir, r.Cache} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("making the lab's directory: %w", err)
		}
	}
	for n := range phases {
		p := &phases[n]
		r.say("==> %s", p.name)
		start := time.Now()
		err := p.run(ctx)
		p.took = time.Since(start)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		r.say("    %s", p.took.Round(100*time.Millisecond))
	}
	return nil
}

// build makes the programs under test, and the lab's own as a file that stays: `go run` removes its program at its end.
func (r *Rack) build(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "make", "--no-print-directory", "build")
	cmd.Dir = r.Repo
	if err := r.progress(cmd, ""); err != nil {
		return err
	}
	if err := os.MkdirAll(r.Program(""), 0o755); err != nil {
		return fmt.Errorf("making the lab's directory: %w", err)
	}
	for name, source := range map[string]string{"lab": "./test/lab", "pause": "./deploy/image/pause"} {
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", r.Program(name), source)
		cmd.Dir = r.Repo
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if err := r.progress(cmd, ""); err != nil {
			return err
		}
	}
	return nil
}

// fresh makes the network. Where nothing of an earlier run lives any more, its state goes first: a rack whose machines are
// all off and whose cluster has forgotten them starts from nothing.
func (r *Rack) fresh(ctx context.Context) error {
	if len(r.Processes()) == 0 {
		if err := r.clean(ctx); err != nil {
			return err
		}
	}
	for _, dir := range []string{r.Dir, r.sockets()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("making the lab's directory: %w", err)
		}
	}
	if err := r.network(ctx); err != nil {
		return err
	}
	if err := r.startAdvertiser(ctx); err != nil {
		return err
	}
	return r.wrappers()
}

// shortNames are the lab's commands that a person types often.
var shortNames = []string{"kubectl", "metald", "bmh", "console", "disk", "exec"}

// wrappers are short names for what a person types next.
func (r *Rack) wrappers() error {
	for _, name := range shortNames {
		text := fmt.Sprintf("#!/bin/sh\ncd %q && exec %q --rack %s %s \"$@\"\n", r.Repo, r.Program("lab"), r.short(), name)
		if err := os.WriteFile(r.Path(name), []byte(text), 0o755); err != nil {
			return fmt.Errorf("writing %s: %w", name, err)
		}
		link := filepath.Join(r.Cache, name)
		if r.Name == "metald-lab" {
			os.Remove(link)
			if err := os.Symlink(r.Path(name), link); err != nil {
				return fmt.Errorf("writing %s: %w", name, err)
			}
		}
	}
	return nil
}

func (r *Rack) startBMCs(ctx context.Context) error {
	for n := range r.Hosts {
		if err := r.StartBMC(ctx, r.Spec(n).Name); err != nil {
			return err
		}
	}
	return r.startStranger(ctx)
}

// Down ends everything that Up started and removes the rack's state; what was built stays.
func (r *Rack) Down(ctx context.Context) error {
	if err := needRoot(); err != nil {
		return err
	}
	if err := r.clean(ctx); err != nil {
		return err
	}
	r.say("the lab is down; what was built is kept in %s", r.Cache)
	return nil
}

// clean ends processes in an order in which none restarts or misses another: metald, the BMCs, the machines, the rest.
func (r *Rack) clean(ctx context.Context) error {
	turns := make([][]string, 4)
	for _, name := range r.Processes() {
		turn := 3
		switch {
		case name == "metald":
			turn = 0
		case strings.HasSuffix(name, ".bmc"), strings.HasSuffix(name, ".chassis"):
			turn = 1
		case strings.HasSuffix(name, ".qemu"):
			turn = 2
		}
		turns[turn] = append(turns[turn], name)
	}
	for turn, names := range turns {
		grace := 10 * time.Second
		if turn > 1 {
			// Nothing of theirs is kept, and an API server takes its time when its store goes at the same moment.
			grace = time.Second
		}
		ended := make(chan error)
		for _, name := range names {
			go func() { ended <- r.Stop(name, grace) }()
		}
		var errs []error
		for range names {
			errs = append(errs, <-ended)
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	if err := r.removeNetwork(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	for _, dir := range []string{r.Dir, r.sockets()} {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("removing the lab's state: %w", err)
		}
	}
	if r.Name == "metald-lab" {
		for _, name := range shortNames {
			os.Remove(filepath.Join(r.Cache, name))
		}
	}
	return nil
}

// Status shows what runs.
func (r *Rack) Status(ctx context.Context) error {
	running := r.Processes()
	if len(running) == 0 {
		r.say("the lab is down")
		return nil
	}
	for _, name := range running {
		pid, _ := r.Running(name)
		r.say("%-28s pid %-8d log %s", name, pid, r.Log(name))
	}
	if _, ok := r.Running("metald"); ok {
		cmd := r.MetaldCommand(ctx, "status")
		cmd.Stdout, cmd.Stderr = r.Out, r.Out
		return cmd.Run()
	}
	return nil
}
