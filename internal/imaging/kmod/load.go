// SPDX-License-Identifier: Apache-2.0

package kmod

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Load loads the named modules and all that they need into the running kernel. It goes on after a module that does not
// load, and returns what went wrong with each. A module that is there already, or whose device or CPU feature is not there
// (ENODEV), is no error.
func (t *Tree) Load(names ...string) error {
	var errs []error
	for _, name := range names {
		files, err := t.Closure(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, f := range files {
			if t.loaded[f] {
				continue
			}
			// Tried once, whatever comes of it.
			t.loaded[f] = true
			if err := insert(filepath.Join(t.dir, f)); err != nil && !errors.Is(err, unix.ENODEV) {
				errs = append(errs, fmt.Errorf("loading module %s: %w", Name(f), err))
			}
		}
	}
	return errors.Join(errs...)
}

// Coldplug loads the modules that claim the devices below sys (usually /sys), again and again until no device asks for a
// new one, because a bus driver brings new devices. It returns the names it loaded for, in their order. It may be called
// again later: a device that appears late is then served.
func (t *Tree) Coldplug(sys string) ([]string, error) {
	var wanted []string
	var errs []error
	for {
		names, err := t.wanted(sys)
		if err != nil {
			return wanted, err
		}
		var fresh []string
		for _, n := range names {
			if m, ok := t.modules[n]; ok && !t.loaded[m.path] {
				fresh = append(fresh, n)
			}
		}
		if len(fresh) == 0 {
			return wanted, errors.Join(errs...)
		}
		if err := t.Load(fresh...); err != nil {
			errs = append(errs, err)
		}
		wanted = append(wanted, fresh...)
	}
}

// wanted lists the modules of the tree that some device below sys asks for.
func (t *Tree) wanted(sys string) ([]string, error) {
	var names []string
	seen := map[string]bool{}
	root := filepath.Join(sys, "devices")
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			// Devices go away while sysfs is read.
			if errors.Is(err, fs.ErrNotExist) && p != root {
				return nil
			}
			return err
		}
		if d.IsDir() || d.Name() != "modalias" {
			return nil
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return nil
		}
		a := strings.TrimSpace(string(b))
		if a == "" || seen[a] {
			return nil
		}
		seen[a] = true
		for _, n := range t.Match(a) {
			if !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading device aliases: %w", err)
	}
	return names, nil
}

func insert(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}
