// SPDX-License-Identifier: Apache-2.0

// Command offline shows that a release needs no internet: in a network namespace without a route it installs the Debian
// package into a fresh, minimal Debian, types three commands, and has a QEMU machine with real UEFI firmware inspected.
// What was typed and what was said becomes a document. It must not help metald: what it types is what a person would type,
// and what it does in the place of systemd, which does not run in a folder, it says.
//
// Start reading at prove.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"metald.io/metald/test/lab/rack"
)

func main() {
	log.SetFlags(0)
	dist := flag.String("dist", "dist", "folder with the release")
	out := flag.String("out", "", "the document to write; none prints the transcript")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *dist, *out); err != nil {
		log.Fatalf("offline: %v", err)
	}
}

func run(ctx context.Context, dist, out string) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("it needs root: it makes a network namespace and installs a package into a folder")
	}
	debs, err := filepath.Glob(filepath.Join(dist, "metald_*_amd64.deb"))
	if err != nil || len(debs) != 1 {
		return fmt.Errorf("finding the release: want one metald_*_amd64.deb in %s, there are %d: make dist", dist, len(debs))
	}
	work, err := os.MkdirTemp("", "metald-offline-*")
	if err != nil {
		return fmt.Errorf("making a work folder: %w", err)
	}
	defer os.RemoveAll(work)
	r, err := rack.New("offline", os.Stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Down(context.WithoutCancel(ctx))) }()
	log.Print("a rack: one machine, its BMC, a network without a way out")
	if err := build(ctx, r); err != nil {
		return err
	}
	if err := r.Bare(ctx); err != nil {
		return err
	}
	log.Print("a minimal Debian, made with the internet that it will not have")
	site := &site{rack: r, root: filepath.Join(work, "root")}
	if err := site.make(ctx, debs[0]); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, site.stop()) }()
	if err := prove(ctx, site); err != nil {
		return errors.Join(err, keep(site))
	}
	if out == "" {
		_, err := io.WriteString(os.Stdout, site.transcript())
		return err
	}
	return writeDocument(out, site.transcript())
}

// build makes the lab's program, which is the machine's BMC.
func build(ctx context.Context, r *rack.Rack) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", r.Program("lab"), "./test/lab")
	cmd.Dir, cmd.Env = r.Repo, append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the lab's program: %w: %s", err, text)
	}
	return nil
}

// prove types what a person would, and looks at what comes of it. Commands with a number count.
func prove(ctx context.Context, s *site) error {
	host := s.rack.Spec(0).Name
	hosts, err := s.rack.HostsFile(s.rack.Password, host)
	if err != nil {
		return err
	}
	if err := s.place(hosts, "hosts.csv", 0o600); err != nil {
		return err
	}
	s.say("The machine has one network, and no way out of it:")
	if err := s.shell(ctx, 0, "cat /proc/net/route | cut -f 1-3,8"); err != nil {
		return err
	}
	if err := s.shell(ctx, 0, "getent hosts debian.org || echo no such host"); err != nil {
		return err
	}
	if s.said("no such host") == 0 {
		return errors.New("the namespace has a way to the internet")
	}
	s.say("Three commands, the list of machines being at hand:")
	if err := s.shell(ctx, 1, "dpkg -i metald_*_amd64.deb"); err != nil {
		return err
	}
	if err := s.shell(ctx, 2, "metald setup --interface "+rack.Bridge+" --address "+rack.Gateway+" --range "+rack.RangeFirst+"-"+rack.RangeLast); err != nil {
		return err
	}
	s.say("With systemd, `metald setup` has started the service now. None runs in this root, so this is typed in its place; it is what\n" +
		"metald.service says, as its user and with its two capabilities, and the daemon tells a socket when it is ready:")
	if err := s.serve(ctx); err != nil {
		return err
	}
	if err := s.shell(ctx, 3, "metald import hosts.csv"); err != nil {
		return err
	}
	s.say("From here on nothing is typed but questions:")
	if err := s.follow(ctx, host, "inspecting", 3*time.Minute); err != nil {
		return err
	}
	if err := s.shell(ctx, 0, "metald status "+host); err != nil {
		return err
	}
	s.say("The machine's firmware fetches the ramdisk from metald, the agent in it proves itself and reports:")
	if err := s.follow(ctx, host, "available", 20*time.Minute); err != nil {
		return err
	}
	if err := s.shell(ctx, 0, "metald status "+host); err != nil {
		return err
	}
	for _, want := range []string{"inspecting", "available"} {
		if s.said(want) == 0 {
			return fmt.Errorf("the transcript does not say %q", want)
		}
	}
	return nil
}

// keep leaves the logs of a run that failed, and says where.
func keep(s *site) error {
	dir, err := os.MkdirTemp("", "metald-offline-logs-*")
	if err != nil {
		return err
	}
	for _, name := range []string{s.log, s.rack.Log(s.rack.Spec(0).Name + ".console"), s.rack.Log(s.rack.Spec(0).Name + ".bmc")} {
		if text, err := os.ReadFile(name); err == nil {
			_ = os.WriteFile(filepath.Join(dir, filepath.Base(name)), text, 0o644)
		}
	}
	_ = os.WriteFile(filepath.Join(dir, "transcript"), []byte(s.transcript()), 0o644)
	log.Printf("logs are kept in %s", dir)
	return nil
}

// writeDocument puts the transcript where the document has its place for it; the rest of it is written by people.
func writeDocument(path, transcript string) error {
	const begin, end = "<!-- transcript -->\n", "<!-- end -->\n"
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading the document: %w", err)
	}
	head, rest, found := strings.Cut(string(text), begin)
	_, tail, closed := strings.Cut(rest, end)
	if !found || !closed {
		return fmt.Errorf("writing %s: it has no place for a transcript (%q to %q)", path, begin, end)
	}
	return os.WriteFile(path, []byte(head+begin+transcript+end+tail), 0o644)
}
