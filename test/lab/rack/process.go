// SPDX-License-Identifier: Apache-2.0

package rack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is one long-running program of the rack.
type process struct {
	name string
	argv []string
	env  []string
	// here runs it outside the rack's network namespace.
	here bool
}

// start runs p in a session of its own, so that a Ctrl-C meant for the lab's command does not reach it, with its output in
// log/NAME.log. It does nothing where p runs already.
func (r *Rack) start(p process) error {
	if _, ok := r.Running(p.name); ok {
		return nil
	}
	for _, dir := range []string{"log", "run"} {
		if err := os.MkdirAll(r.Path(dir), 0o755); err != nil {
			return fmt.Errorf("starting %s: %w", p.name, err)
		}
	}
	out, err := os.OpenFile(r.Log(p.name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("starting %s: %w", p.name, err)
	}
	defer out.Close()
	argv := p.argv
	if !p.here {
		argv = append([]string{"ip", "netns", "exec", r.Name}, argv...)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = r.Dir, out, out
	cmd.Env = append(os.Environ(), p.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", p.name, err)
	}
	go cmd.Wait() // reaped here while the lab's command lives, by init afterwards
	return r.record(p.name, cmd.Process.Pid)
}

// Log is where a process's output lies.
func (r *Rack) Log(name string) string { return r.Path("log", name+".log") }

// record remembers a process by its id and its start time. "ip netns exec" replaces itself, so both stay.
func (r *Rack) record(name string, pid int) error {
	since, state := stat(pid)
	if state == 0 {
		return fmt.Errorf("starting %s: it ended at once: %s", name, r.lastLine(name))
	}
	text := fmt.Sprintf("%d %s\n", pid, since)
	if err := os.WriteFile(r.Path("run", name+".pid"), []byte(text), 0o644); err != nil {
		return fmt.Errorf("recording process %s: %w", name, err)
	}
	return nil
}

// stat reads a process's start time (field 22 of proc(5)'s stat) and state; state 0 is a process that is not there.
func stat(pid int) (since string, state byte) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return "", 0
	}
	return fields[19], fields[0][0]
}

// Running finds the live process of that name.
func (r *Rack) Running(name string) (pid int, ok bool) {
	text, err := os.ReadFile(r.Path("run", name+".pid"))
	if err != nil {
		return 0, false
	}
	id, since, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	pid, err = strconv.Atoi(id)
	if err != nil {
		return 0, false
	}
	now, state := stat(pid)
	return pid, state != 0 && now == since
}

// Signal sends a signal to the process of that name.
func (r *Rack) Signal(name string, sig syscall.Signal) error {
	pid, ok := r.Running(name)
	if !ok {
		return fmt.Errorf("signalling %s: it is not running", name)
	}
	if err := syscall.Kill(pid, sig); err != nil {
		return fmt.Errorf("signalling %s: %w", name, err)
	}
	return nil
}

// Stop ends a process: politely, and after grace for good. A process that is not there is fine.
func (r *Rack) Stop(name string, grace time.Duration) error {
	record := r.Path("run", name+".pid")
	pid, ok := r.Running(name)
	if !ok {
		os.Remove(record)
		return nil
	}
	syscall.Kill(pid, syscall.SIGCONT)
	for _, try := range []struct {
		sig  syscall.Signal
		wait time.Duration
	}{{syscall.SIGTERM, grace}, {syscall.SIGKILL, 10 * time.Second}} {
		if err := syscall.Kill(pid, try.sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("ending %s: %w", name, err)
		}
		for deadline := time.Now().Add(try.wait); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			if _, ok := r.Running(name); !ok {
				os.Remove(record)
				return nil
			}
		}
	}
	return fmt.Errorf("ending %s: process %d does not end", name, pid)
}

// Processes names all recorded processes that still run.
func (r *Rack) Processes() []string {
	records, _ := filepath.Glob(r.Path("run", "*.pid"))
	var names []string
	for _, path := range records {
		name := strings.TrimSuffix(filepath.Base(path), ".pid")
		if _, ok := r.Running(name); ok {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	return names
}

// lastLine is a process's last word, for error messages.
func (r *Rack) lastLine(name string) string {
	text, err := os.ReadFile(r.Log(name))
	if err != nil || len(bytes.TrimSpace(text)) == 0 {
		return "it said nothing; log " + r.Log(name)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return fmt.Sprintf("%s (log %s)", lines[len(lines)-1], r.Log(name))
}

// Inside makes a command that runs in the rack's network namespace.
func (r *Rack) Inside(ctx context.Context, argv ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", r.Name}, argv...)...)
	cmd.Dir = r.Dir
	return cmd
}

// output runs a command to its end and returns what it printed, or an error that holds its complaint.
func output(cmd *exec.Cmd) (string, error) {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	if err != nil {
		return string(text), fmt.Errorf("running %s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(text), nil
}
