// SPDX-License-Identifier: Apache-2.0

package early

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"metald.io/metald/internal/imaging/kmod"
)

// Drivers loads the modules of an initramfs: those that listFile names, one a line, and those that the machine's devices
// ask for. It returns what it loaded for devices, and what went wrong beside that: one driver that does not load is no
// reason to give up a machine.
func Drivers(listFile string) (loaded []string, err error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return nil, fmt.Errorf("reading the kernel's release: %w", err)
	}
	tree, err := kmod.Open("/", unix.ByteSliceToString(name.Release[:]))
	if err != nil {
		return nil, err
	}
	always, err := lines(listFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading the list of modules: %w", err)
	}
	loadErr := tree.Load(always...)
	loaded, plugErr := tree.Coldplug("/sys")
	return loaded, errors.Join(present(loadErr), present(plugErr))
}

// present leaves out what says no more than that a module's hardware is not there: the list is for every machine.
func present(err error) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var rest []error
		for _, one := range joined.Unwrap() {
			rest = append(rest, present(one))
		}
		return errors.Join(rest...)
	}
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

func lines(file string) ([]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []string
	for scan := bufio.NewScanner(f); scan.Scan(); {
		if line := strings.TrimSpace(scan.Text()); line != "" && !strings.HasPrefix(line, "#") {
			all = append(all, line)
		}
	}
	return all, nil
}
