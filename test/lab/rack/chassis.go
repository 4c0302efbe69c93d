// SPDX-License-Identifier: Apache-2.0

package rack

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"
)

// A machine with an IPMI BMC is switched by two programs: Debian's ipmi_sim speaks the protocol and starts `lab chassis` for
// each thing that it wants to know or do; the keeper, a process that stays, holds the machine. So the machine's firmware gets
// one boot list from one hand, whoever asks.

func keeperName(machine string) string { return machine + ".chassis" }

// switchName is the process that switches a machine and logs it.
func (s Spec) switchName() string {
	if s.Protocol == IPMI {
		return keeperName(s.Name)
	}
	return bmcName(s.Name)
}

// ServeChassis keeps one machine until ctx ends, and answers Chassis. The machine stays as it is.
func (r *Rack) ServeChassis(ctx context.Context, name string) error {
	spec, err := r.SpecOf(name)
	if err != nil {
		return err
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	machine, err := OpenMachine(ctx, r, spec, logger)
	if err != nil {
		return err
	}
	path := r.socket(name, "chassis")
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("keeping %s: %w", name, err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("keeping %s: %w", name, err)
	}
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	defer stop()
	logger.Info("chassis is kept", "host", name)
	for {
		conn, err := listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("keeping %s: %w", name, err)
		}
		go func() {
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(time.Minute))
			line, err := bufio.NewReader(io.LimitReader(conn, 4096)).ReadString('\n')
			if err != nil {
				return
			}
			said, err := chassis(ctx, machine, strings.Fields(line))
			if !strings.HasPrefix(line, "get ") || err != nil {
				logger.Info("chassis", "host", name, "asked", strings.TrimSpace(line), "err", err)
			}
			if err != nil {
				fmt.Fprintf(conn, "error %s\n", strings.ReplaceAll(err.Error(), "\n", " "))
				return
			}
			fmt.Fprintf(conn, "ok\n%s", said)
		}()
	}
}

// chassisBoots are ipmi_sim's words for what a machine boots from once.
var chassisBoots = map[string]string{"none": bootNone, "pxe": bootPXE, "default": bootDisk}

// chassis does what ipmi_sim asks: "get NAME...", "set NAME VALUE ..." or "check NAME VALUE...".
func chassis(ctx context.Context, m *Machine, args []string) (string, error) {
	if len(args) == 0 {
		return "", errors.New("nothing is asked")
	}
	verb, args := args[0], args[1:]
	var said strings.Builder
	switch verb {
	case "get":
		for _, name := range args {
			value, err := chassisValue(ctx, m, name)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(&said, "%s:%s\n", name, value)
		}
	case "set", "check":
		if len(args)%2 != 0 {
			return "", fmt.Errorf("%s wants pairs of name and value, not %q", verb, args)
		}
		for ; len(args) > 0; args = args[2:] {
			change, err := chassisChange(m, args[0], args[1])
			if err == nil && verb == "set" {
				err = change(ctx)
			}
			if err != nil {
				return "", err
			}
		}
	default:
		return "", fmt.Errorf("no such verb as %q: get, set, check", verb)
	}
	return said.String(), nil
}

func chassisValue(ctx context.Context, m *Machine, name string) (string, error) {
	switch name {
	case "power":
		on, err := m.Powered(ctx)
		if on {
			return "1", err
		}
		return "0", err
	case "boot":
		target, err := m.BootOnce(ctx)
		for word, t := range chassisBoots {
			if t == target {
				return word, err
			}
		}
		return "none", err
	}
	return "", fmt.Errorf("%q cannot be read: power, boot", name)
}

// chassisChange is what setting a name to a value does; an error where there is no such thing.
func chassisChange(m *Machine, name, value string) (func(context.Context) error, error) {
	type change = func(context.Context) error
	nothing := func(context.Context) error { return nil }
	switch name + " " + value {
	case "power 1":
		return m.PowerOn, nil
	case "power 0":
		return m.PowerOff, nil
	case "reset 1":
		return m.Reset, nil
	case "shutdown 1":
		return m.Shutdown, nil
	case "reset 0", "shutdown 0": // lines that are let go
		return nothing, nil
	}
	target, known := chassisBoots[value]
	if name != "boot" || !known {
		return nil, fmt.Errorf("%s cannot be set to %q", name, value)
	}
	return change(func(ctx context.Context) error { return m.SetBootOnce(ctx, target) }), nil
}

// Chassis asks a machine's keeper, past its BMC, and returns what ipmi_sim would be told.
func (r *Rack) Chassis(name string, args ...string) (string, error) {
	conn, err := net.Dial("unix", r.socket(name, "chassis"))
	if err != nil {
		return "", fmt.Errorf("asking the chassis of %s: %w", name, err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := fmt.Fprintln(conn, strings.Join(args, " ")); err != nil {
		return "", fmt.Errorf("asking the chassis of %s: %w", name, err)
	}
	text, err := io.ReadAll(conn)
	if err != nil {
		return "", fmt.Errorf("asking the chassis of %s: %w", name, err)
	}
	verdict, said, _ := strings.Cut(string(text), "\n")
	if verdict != "ok" {
		return "", fmt.Errorf("asking the chassis of %s for %q: %s", name, strings.Join(args, " "), verdict)
	}
	return said, nil
}
