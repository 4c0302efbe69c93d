// SPDX-License-Identifier: Apache-2.0

// Package facts inspects a machine: processors, memory, disks, network devices, PCI functions and firmware, as the
// kernel shows them below /proc and /sys. Slow facts only: what changes by the minute is a metric and not a fact.
//
// It must not know who asks, and it changes nothing. Everything is read below a root directory, so that a directory tree
// stands for a machine in a test. A fact that cannot be read leaves the others whole and is named in Problems.
//
// Start reading at Read.
package facts

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/gpu"
)

// reader reads one machine and keeps count of what it could not read.
type reader struct {
	root     string
	problems []string
}

// Read inspects the machine whose file system is at root ("/" for this one). bootMAC, which may be empty, marks the
// network device that the machine booted from.
func Read(root, bootMAC string) *v1alpha1.HostFacts {
	r := &reader{root: root}
	facts := &v1alpha1.HostFacts{
		Hostname: r.line("proc/sys/kernel/hostname"),
		Kernel:   r.line("proc/sys/kernel/osrelease"),
	}
	for _, part := range []struct {
		what string
		read func() error
	}{
		{"SMBIOS", func() error { return r.smbios(facts) }},
		{"processors", func() error { return r.cpu(&facts.CPU) }},
		{"memory", func() error { return r.memory(&facts.Memory) }},
		{"disks", func() (err error) { facts.Disks, err = r.disks(); return err }},
		{"network devices", func() (err error) { facts.NICs, err = r.nics(bootMAC); return err }},
		{"PCI functions", func() (err error) { facts.PCI, err = gpu.PCI(root); return err }},
		{"firmware", func() error { return r.firmware(&facts.Firmware) }},
	} {
		r.try(part.what, part.read)
	}
	facts.Problems = r.problems
	return facts
}

// try reads one part. Firmware and drivers make up the strangest things: a part that panics is a problem, not the end.
func (r *reader) try(what string, read func() error) {
	defer func() {
		if p := recover(); p != nil {
			r.problem("reading %s: panic: %v", what, p)
		}
	}()
	if err := read(); err != nil {
		r.problem("reading %s: %v", what, err)
	}
}

func (r *reader) problem(format string, args ...any) {
	text := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "; ")
	r.problems = append(r.problems, text[:min(len(text), 512)])
}

func (r *reader) path(name string) string { return filepath.Join(r.root, name) }

// line is the first line of a file, empty when it cannot be read.
func (r *reader) line(name string) string {
	text, err := os.ReadFile(r.path(name))
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimSpace(first)
}

// number is a file that holds one decimal number, 0 when it does not.
func (r *reader) number(name string) int64 {
	n, _ := strconv.ParseInt(r.line(name), 10, 64)
	return n
}

// base is the last element of what a link points to, empty when it is none.
func (r *reader) base(name string) string {
	target, err := os.Readlink(r.path(name))
	if err != nil {
		return ""
	}
	return filepath.Base(target)
}

// exists says whether there is such a file.
func (r *reader) exists(name string) bool {
	_, err := os.Lstat(r.path(name))
	return err == nil
}

// list is the names in a directory, none when there is no such directory.
func (r *reader) list(name string) ([]string, error) {
	entries, err := os.ReadDir(r.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	names := make([]string, 0, len(entries))
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names, err
}

// architecture is that of this program: it runs on the machine it reads.
const architecture = runtime.GOARCH
