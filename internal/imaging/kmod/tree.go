// SPDX-License-Identifier: Apache-2.0

// Package kmod knows one kernel's modules: what depends on what, which hardware wants which module, and how to load them
// without modprobe. The image tools use it to choose what goes into a ramdisk; the agent uses it to load what its machine
// wants. It must not know the daemon, the network or what a ramdisk is for: the agent links it and has to stay small.
//
// Start reading at Tree, then Coldplug.
package kmod

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Tree is what depmod wrote for one kernel release under lib/modules.
type Tree struct {
	dir     string
	modules map[string]module // by name, with underscores
	builtin map[string]bool
	aliases map[string][]alias // by what stands before the first colon, "" where there is none
	pre     map[string][]string
	post    map[string][]string
	loaded  map[string]bool
}

type module struct {
	path string   // relative to the tree
	deps []string // names, nearest first
}

type alias struct{ pattern, name string }

// MissingError names modules that a kernel has neither as a file nor built in.
type MissingError struct {
	Release string
	Names   []string
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("kernel %s has no module %s", e.Release, strings.Join(e.Names, ", "))
}

// Open reads lib/modules/RELEASE below root: modules.dep, modules.alias, modules.softdep and modules.builtin. Only the
// first must be there.
func Open(root, release string) (*Tree, error) {
	t := &Tree{
		dir:     filepath.Join(root, "lib/modules", release),
		modules: map[string]module{}, builtin: map[string]bool{}, aliases: map[string][]alias{},
		pre: map[string][]string{}, post: map[string][]string{}, loaded: map[string]bool{},
	}
	for _, f := range []struct {
		name     string
		take     func(string)
		optional bool
	}{
		{"modules.dep", t.takeDep, false},
		{"modules.alias", t.takeAlias, true},
		{"modules.softdep", t.takeSoftdep, true},
		{"modules.builtin", t.takeBuiltin, true},
	} {
		if err := eachLine(filepath.Join(t.dir, f.name), f.take); err != nil {
			if f.optional && errors.Is(err, fs.ErrNotExist) {
				continue
			}
			return nil, fmt.Errorf("reading the module lists of kernel %s: %w", release, err)
		}
	}
	return t, nil
}

// Release is the kernel's release, as uname -r says it.
func (t *Tree) Release() string { return filepath.Base(t.dir) }

// Dir is where the tree lies.
func (t *Tree) Dir() string { return t.dir }

// Name is a module's name from its file or a user's spelling: no directory, no suffix, underscores.
func Name(s string) string {
	s = path.Base(s)
	s, _, _ = strings.Cut(s, ".ko")
	return strings.ReplaceAll(s, "-", "_")
}

// Closure lists the files that must be loaded for the named modules, in an order that works: each after all that it
// needs. What is built in needs no file. Paths are relative to Dir. Names that the kernel does not know are a
// *MissingError; softdeps it does not know are left out, as modprobe does.
func (t *Tree) Closure(names ...string) ([]string, error) {
	var files, missing []string
	done := map[string]bool{}
	var visit func(name string)
	visit = func(name string) {
		m, ok := t.modules[name]
		if !ok || done[name] {
			return
		}
		done[name] = true
		for _, s := range t.pre[name] {
			for _, n := range t.resolve(s) {
				visit(n)
			}
		}
		for _, d := range m.deps {
			visit(d)
		}
		files = append(files, m.path)
		for _, s := range t.post[name] {
			for _, n := range t.resolve(s) {
				visit(n)
			}
		}
	}
	for _, name := range names {
		found := t.resolve(name)
		if len(found) == 0 && !t.builtin[Name(name)] {
			missing = append(missing, name)
		}
		for _, n := range found {
			visit(n)
		}
	}
	if len(missing) > 0 {
		return nil, &MissingError{Release: t.Release(), Names: missing}
	}
	return files, nil
}

// Match lists the modules that claim a device's modalias, as the kernel shows it in sysfs.
func (t *Tree) Match(modalias string) []string {
	kind, _, found := strings.Cut(modalias, ":")
	if !found {
		kind = ""
	}
	var names []string
	for _, a := range t.aliases[kind] {
		if ok, err := path.Match(a.pattern, modalias); err == nil && ok && !slices.Contains(names, a.name) {
			names = append(names, a.name)
		}
	}
	return names
}

// resolve turns a module's name or an alias like "crc32c" into module names that have files.
func (t *Tree) resolve(name string) []string {
	if _, ok := t.modules[Name(name)]; ok {
		return []string{Name(name)}
	}
	if t.builtin[Name(name)] {
		return nil
	}
	return t.Match(name)
}

// takeDep reads "kernel/a.ko: kernel/b.ko kernel/c.ko".
func (t *Tree) takeDep(line string) {
	file, rest, ok := strings.Cut(line, ":")
	if !ok {
		return
	}
	m := module{path: file}
	for _, d := range strings.Fields(rest) {
		m.deps = append(m.deps, Name(d))
	}
	t.modules[Name(file)] = m
}

// takeAlias reads "alias pci:v00008086d* e1000e".
func (t *Tree) takeAlias(line string) {
	f := strings.Fields(line)
	if len(f) != 3 || f[0] != "alias" {
		return
	}
	kind, _, found := strings.Cut(f[1], ":")
	if !found {
		kind = ""
	}
	t.aliases[kind] = append(t.aliases[kind], alias{pattern: f[1], name: Name(f[2])})
}

// takeSoftdep reads "softdep a pre: b c post: d".
func (t *Tree) takeSoftdep(line string) {
	f := strings.Fields(line)
	if len(f) < 3 || f[0] != "softdep" {
		return
	}
	into := t.pre
	for _, w := range f[2:] {
		switch w {
		case "pre:":
			into = t.pre
		case "post:":
			into = t.post
		default:
			into[Name(f[1])] = append(into[Name(f[1])], w)
		}
	}
}

func (t *Tree) takeBuiltin(line string) { t.builtin[Name(line)] = true }

func eachLine(file string, take func(string)) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if line := strings.TrimSpace(lines.Text()); line != "" && !strings.HasPrefix(line, "#") {
			take(line)
		}
	}
	return lines.Err()
}
