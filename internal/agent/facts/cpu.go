// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"metald.io/metald/api/v1alpha1"
)

var (
	cpuDir  = regexp.MustCompile(`^cpu[0-9]+$`)
	nodeDir = regexp.MustCompile(`^node[0-9]+$`)
)

// cpu counts what the kernel has brought up. Names come from /proc/cpuinfo, the shape from sysfs, which says it alike on
// every architecture.
func (r *reader) cpu(facts *v1alpha1.CPUFacts) error {
	facts.Architecture = architecture
	text, err := os.ReadFile(r.path("proc/cpuinfo"))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		key, value, found := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		if !found || value == "" {
			continue
		}
		switch strings.TrimSpace(key) {
		case "processor":
			if _, err := strconv.Atoi(value); err == nil {
				facts.Threads++
			}
		case "model name":
			facts.Model = value
		case "cpu MHz":
			if mhz, err := strconv.ParseFloat(value, 64); err == nil {
				facts.MHz = int(mhz)
			}
		case "flags", "Features": // x86, arm64
			facts.Flags = strings.Fields(value)
		}
	}
	slices.Sort(facts.Flags)
	return r.shape(facts)
}

// shape counts sockets and cores by their ids, which are unique only together.
func (r *reader) shape(facts *v1alpha1.CPUFacts) error {
	names, err := r.list("sys/devices/system/cpu")
	if err != nil {
		return err
	}
	sockets, cores := map[string]bool{}, map[string]bool{}
	for _, name := range names {
		topology := "sys/devices/system/cpu/" + name + "/topology/"
		if !cpuDir.MatchString(name) || !r.exists(topology+"core_id") {
			continue
		}
		socket := r.line(topology + "physical_package_id")
		sockets[socket] = true
		cores[socket+"/"+r.line(topology+"die_id")+"/"+r.line(topology+"core_id")] = true
	}
	facts.Sockets, facts.Cores = len(sockets), len(cores)
	// The rated speed is a fact; the one in /proc/cpuinfo is that of the moment.
	if khz := r.number("sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq"); khz > 0 {
		facts.MHz = int(khz / 1000)
	}
	nodes, err := r.list("sys/devices/system/node")
	for _, name := range nodes {
		if nodeDir.MatchString(name) {
			facts.NUMANodes++
		}
	}
	return err
}
