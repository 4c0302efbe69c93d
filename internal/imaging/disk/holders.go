// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// holders says in words who holds a block device or one of its partitions, as far as /proc and /sys tell.
func holders(info os.FileInfo) string {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "the kernel gives it to nobody else"
	}
	number := fmt.Sprintf("%d:%d", unix.Major(stat.Rdev), unix.Minor(stat.Rdev))
	dir := "/sys/dev/block/" + number
	devices := map[string]string{number: info.Name()}
	parts, _ := filepath.Glob(dir + "/*/partition") // the pattern is well formed
	for _, p := range parts {
		if b, err := os.ReadFile(filepath.Dir(p) + "/dev"); err == nil {
			devices[strings.TrimSpace(string(b))] = filepath.Base(filepath.Dir(p))
		}
	}
	var by []string
	mounts, _ := os.ReadFile("/proc/self/mountinfo") // without it nothing is known of mounts
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 4 && devices[f[2]] != "" {
			by = append(by, fmt.Sprintf("%s is mounted on %s", devices[f[2]], f[4]))
		}
	}
	swaps, _ := os.ReadFile("/proc/swaps")
	for _, name := range devices {
		if slices.Contains(strings.Fields(string(swaps)), "/dev/"+name) {
			by = append(by, name+" is swapped to")
		}
	}
	held, _ := filepath.Glob(dir + "/holders/*")
	more, _ := filepath.Glob(dir + "/*/holders/*")
	for _, h := range append(held, more...) {
		by = append(by, "it is part of "+filepath.Base(h))
	}
	if len(by) == 0 {
		return "another program has it open for itself alone"
	}
	slices.Sort(by)
	return strings.Join(by, ", ")
}
