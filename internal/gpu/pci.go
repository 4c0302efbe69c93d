// SPDX-License-Identifier: Apache-2.0

package gpu

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"metald.io/metald/api/v1alpha1"
)

// devicesDir is where the kernel lists PCI functions, below the root directory.
const devicesDir = "sys/bus/pci/devices"

// PCI lists the PCI functions of the machine whose file system is at root ("/" for this one), sorted by address. Virtual
// functions are left out: they are made by a driver's setting and not part of the machine. A function whose ids cannot be
// read is left out as well, and named in the error that comes with the rest.
func PCI(root string) ([]v1alpha1.PCIFacts, error) {
	dir := filepath.Join(root, devicesDir)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a machine without PCI, as some virtual machines are
	}
	if err != nil {
		return nil, fmt.Errorf("listing PCI functions: %w", err)
	}
	var all []v1alpha1.PCIFacts
	var errs []error
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		if _, err := os.Lstat(filepath.Join(path, "physfn")); err == nil {
			continue
		}
		facts, err := function(path)
		if err != nil {
			errs = append(errs, fmt.Errorf("reading PCI function %s: %w", entry.Name(), err))
			continue
		}
		all = append(all, facts)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Address < all[j].Address })
	return all, errors.Join(errs...)
}

// function reads one directory of /sys/bus/pci/devices.
func function(dir string) (v1alpha1.PCIFacts, error) {
	facts := v1alpha1.PCIFacts{Address: filepath.Base(dir), NUMANode: -1}
	for _, id := range []struct {
		file   string
		digits int
		into   *string
	}{
		{"vendor", 4, &facts.VendorID},
		{"device", 4, &facts.DeviceID},
		{"class", 6, &facts.Class},
	} {
		text, err := os.ReadFile(filepath.Join(dir, id.file))
		if err != nil {
			return facts, err
		}
		if *id.into, err = hexID(string(text), id.digits); err != nil {
			return facts, fmt.Errorf("reading %s: %w", id.file, err)
		}
	}
	// What follows is missing on some functions: bridges have no subsystem, conventional PCI has no link.
	facts.SubsystemVendor, _ = hexID(line(dir, "subsystem_vendor"), 4)
	facts.SubsystemDevice, _ = hexID(line(dir, "subsystem_device"), 4)
	if node, err := strconv.Atoi(line(dir, "numa_node")); err == nil {
		facts.NUMANode = node
	}
	if target, err := os.Readlink(filepath.Join(dir, "driver")); err == nil {
		facts.Driver = filepath.Base(target)
	}
	facts.LinkSpeed, facts.LinkWidth = link(dir, "current_link_speed"), link(dir, "current_link_width")
	facts.MaxLinkSpeed, facts.MaxLinkWidth = link(dir, "max_link_speed"), link(dir, "max_link_width")
	facts.Kind = kindOf(facts.Class, facts.VendorID, facts.DeviceID)
	return facts, nil
}

// line is the first line of a sysfs attribute, empty when it cannot be read.
func line(dir, file string) string {
	text, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimSpace(first)
}

// link reads a link attribute. The kernel writes "Unknown" or a width of 0 or 255 where there is no link to speak of:
// that is no fact.
func link(dir, file string) string {
	switch text := line(dir, file); text {
	case "Unknown", "Unknown speed", "0", "255":
		return ""
	default:
		return text
	}
}

// hexID turns sysfs' "0x10de\n" into "10de", of exactly that many digits.
func hexID(text string, digits int) (string, error) {
	id, found := strings.CutPrefix(strings.TrimSpace(text), "0x")
	if !found || len(id) != digits {
		return "", fmt.Errorf("%q is not 0x and %d hex digits", strings.TrimSpace(text), digits)
	}
	if _, err := strconv.ParseUint(id, 16, 32); err != nil {
		return "", fmt.Errorf("%q is not 0x and %d hex digits", strings.TrimSpace(text), digits)
	}
	return strings.ToLower(id), nil
}
