// SPDX-License-Identifier: Apache-2.0

// Command lab starts a virtual rack on this machine: QEMU hosts with real UEFI firmware and a TPM each, their BMCs, a
// Kubernetes control plane, and metald between them. It is what `make lab` runs. It must not do anything for metald: what it types
// into metald is what a person would type.
//
// Start reading at commands, then in package rack at up.go.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"

	"metald.io/metald/test/lab/rack"
)

type command struct {
	name, args, help string
	run              func(ctx context.Context, r *rack.Rack, args []string) error
}

var commands []command

func init() {
	commands = []command{
		{"up", "", "start everything that is not up yet, and show the hosts go from off to Ready", func(ctx context.Context, r *rack.Rack, _ []string) error { return r.Up(ctx) }},
		{"down", "", "end everything that up started; what was built is kept", func(ctx context.Context, r *rack.Rack, _ []string) error { return r.Down(ctx) }},
		{"status", "", "show what runs", func(ctx context.Context, r *rack.Rack, _ []string) error { return r.Status(ctx) }},
		{"install", "", "install missing Debian packages, starting nothing", func(ctx context.Context, r *rack.Rack, _ []string) error { return r.Install(ctx) }},
		{"build", "", "build the control plane's programs", func(ctx context.Context, r *rack.Rack, _ []string) error { return r.Programs(ctx) }},
		{"kubectl", "ARGS...", "kubectl at the Kubernetes cluster", inside(func(r *rack.Rack) []string {
			return []string{r.Program("kubectl"), "--kubeconfig=" + r.AdminKubeconfig()}
		})},
		{"metald", "ARGS...", "metald's command line at the lab's metald", inside(func(r *rack.Rack) []string { return []string{r.Metald()} })},
		{"bmh", "ARGS...", "kubectl at metald's own API", inside(func(r *rack.Rack) []string {
			return []string{r.Program("kubectl"), "--kubeconfig=" + r.MetaldKubeconfig()}
		})},
		{"exec", "PROGRAM ARGS...", "run a program inside the lab's network namespace", inside(func(*rack.Rack) []string { return nil })},
		{"console", "HOST", "follow a machine's serial console; Ctrl-] leaves", func(ctx context.Context, r *rack.Rack, args []string) error {
			if len(args) != 1 {
				return errors.New("console needs the name of one host")
			}
			return r.Console(ctx, args[0], os.Stdin, os.Stdout)
		}},
		{"disk", "HOST", "show what lies on a machine's disk, seen from outside", func(ctx context.Context, r *rack.Rack, args []string) error {
			if len(args) != 1 {
				return errors.New("disk needs the name of one host")
			}
			return r.ShowDisk(ctx, args[0])
		}},
		{"power", "HOST on|off|reset|netboot", "press a machine's buttons through its BMC, past metald", power},
	}
}

// hidden are commands that the lab gives itself.
var hidden = map[string]func(ctx context.Context, r *rack.Rack, args []string) error{
	"bmc":       func(ctx context.Context, r *rack.Rack, args []string) error { return r.ServeBMC(ctx, args[0]) },
	"stranger":  func(ctx context.Context, r *rack.Rack, args []string) error { return r.ServeStranger(ctx, args[0]) },
	"keep":      func(ctx context.Context, r *rack.Rack, args []string) error { return r.ServeChassis(ctx, args[0]) },
	"advertise": func(ctx context.Context, r *rack.Rack, args []string) error { return r.Advertise(ctx, args[0]) },
	"soak": func(ctx context.Context, r *rack.Rack, args []string) error {
		times, err := strconv.Atoi(args[0])
		if err != nil {
			return fmt.Errorf("reading how often: %w", err)
		}
		return r.Soak(ctx, times, len(args) > 1 && args[1] == "busy")
	},
	// What ipmi_sim starts: chassis HOST get|set|check NAME VALUE ...
	"chassis": func(_ context.Context, r *rack.Rack, args []string) error {
		said, err := r.Chassis(args[0], args[1:]...)
		fmt.Print(said)
		return err
	},
	"get": func(ctx context.Context, _ *rack.Rack, args []string) error {
		return rack.Fetch(ctx, args[0], os.Stdout)
	},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:])
	switch exit, isExit := err.(*exec.ExitError); {
	case err == nil:
	case isExit && exit.ExitCode() > 0: // bare: the program that the person asked for has said what is wrong itself
		os.Exit(exit.ExitCode())
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "\nstopped; `make lab` goes on where it was, `make lab-down` ends everything")
		os.Exit(130)
	default:
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	name := "lab"
	if len(args) > 1 && args[0] == "--rack" {
		name, args = args[1], args[2:]
	}
	if len(args) == 0 {
		usage()
		os.Exit(2)
	}
	r, err := rack.New(name, os.Stdout)
	if err != nil {
		return err
	}
	for _, c := range commands {
		if c.name == args[0] {
			return c.run(ctx, r, args[1:])
		}
	}
	if own, ok := hidden[args[0]]; ok && len(args) > 1 {
		return own(ctx, r, args[1:])
	}
	usage()
	os.Exit(2)
	return nil
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: lab [--rack NAME] COMMAND")
	for _, c := range commands {
		fmt.Fprintf(os.Stderr, "  %-34s %s\n", c.name+" "+c.args, c.help)
	}
}

// inside makes a command that becomes another program in the lab's namespace.
func inside(prefix func(*rack.Rack) []string) func(context.Context, *rack.Rack, []string) error {
	return func(ctx context.Context, r *rack.Rack, args []string) error {
		argv := append(prefix(r), args...)
		if len(argv) == 0 {
			return errors.New("exec needs a program")
		}
		if !r.NetworkUp() {
			return errors.New("the lab is not up: type `make lab`")
		}
		cmd := r.Inside(ctx, argv...)
		cmd.Dir = ""
		cmd.Env = append(os.Environ(), "METALD_KUBECONFIG="+r.MetaldKubeconfig())
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		return cmd.Run()
	}
}

func power(ctx context.Context, r *rack.Rack, args []string) error {
	if len(args) != 2 {
		return errors.New("power needs a host and one of on, off, reset, netboot")
	}
	return r.Button(ctx, args[0], args[1])
}
