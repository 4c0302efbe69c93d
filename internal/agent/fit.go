// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"metald.io/metald/api/v1alpha1"
)

// maxFacts is what the daemon takes of one inspection, as JSON.
const maxFacts = 256 << 10

// Fit leaves out what matters least until the facts are small enough for the daemon, and says in Problems what it left
// out. A machine with very many functions should be known in part rather than not at all.
func Fit(facts *v1alpha1.HostFacts) *v1alpha1.HostFacts {
	for _, drop := range []struct {
		what string
		from func()
	}{
		{"the CPU's flags", func() { facts.CPU.Flags = nil }},
		{"PCI bridges and functions of no known kind", func() {
			facts.PCI = slices.DeleteFunc(facts.PCI, func(f v1alpha1.PCIFacts) bool { return f.Kind == "bridge" || f.Kind == "other" })
		}},
		{"problems beyond the first 100", func() { facts.Problems = facts.Problems[:min(100, len(facts.Problems))] }},
		{"all PCI functions", func() { facts.PCI = nil }},
		{"network devices beyond the first 256", func() { facts.NICs = facts.NICs[:min(256, len(facts.NICs))] }},
		{"disks beyond the first 256", func() { facts.Disks = facts.Disks[:min(256, len(facts.Disks))] }},
	} {
		if text, err := json.Marshal(facts); err != nil || len(text) <= maxFacts {
			return facts
		}
		drop.from()
		facts.Problems = append(facts.Problems, "too many facts for one report: left out "+drop.what)
	}
	return facts
}

// Summary is an inspection in one line, for a console.
func Summary(facts *v1alpha1.HostFacts) string {
	kinds := map[string]int{}
	for _, f := range facts.PCI {
		kinds[f.Kind]++
	}
	parts := []string{
		strings.TrimSpace(facts.System.Manufacturer + " " + facts.System.Product),
		fmt.Sprintf("%d CPU threads", facts.CPU.Threads),
		fmt.Sprintf("%d MiB", facts.Memory.TotalMiB),
		fmt.Sprintf("%d disks", len(facts.Disks)),
		fmt.Sprintf("%d NICs", len(facts.NICs)),
	}
	if n := kinds["gpu"]; n > 0 {
		parts = append(parts, fmt.Sprintf("%d GPUs", n))
	}
	if facts.TPM != nil {
		parts = append(parts, "TPM "+facts.TPM.Version)
	}
	if n := len(facts.Problems); n > 0 {
		parts = append(parts, fmt.Sprintf("%d facts could not be read", n))
	}
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ", ")
}
