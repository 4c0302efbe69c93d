// SPDX-License-Identifier: Apache-2.0

package erase

import (
	"regexp"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/imaging/disk"
)

// drive is one drive of the machine.
type drive struct {
	facts v1alpha1.DiskFacts
	// listed says that the plan has it: no other is written to.
	listed bool
	// busy says that it is its group's turn-taker now; guarded by run.mu.
	busy   bool
	pulse  *Pulse
	record v1alpha1.DriveErasure
}

// match finds the drives of a plan among those that are there. A drive that is there and not listed has a record that says
// so; missing are the records of those that are listed and not there.
func match(targets []v1alpha1.DiskTarget, seen []v1alpha1.DiskFacts) (drives []*drive, missing []v1alpha1.DriveErasure) {
	now := metav1.Now()
	for _, f := range seen {
		drives = append(drives, &drive{facts: f, record: v1alpha1.DriveErasure{
			Name: f.Name, SerialNumber: f.SerialNumber, WWN: f.WWN, Model: f.Model, SizeBytes: f.SizeBytes, Started: now,
		}})
	}
	// First those whose name is still the same: the boot partitions of one eMMC differ in nothing else.
	left := slices.Clone(targets)
	for _, named := range []bool{true, false} {
		left = slices.DeleteFunc(left, func(t v1alpha1.DiskTarget) bool {
			at := slices.IndexFunc(drives, func(d *drive) bool {
				return !d.listed && (!named || d.facts.Name == t.Name) && is(t, d.facts)
			})
			if at < 0 {
				return false
			}
			drives[at].listed = true
			return true
		})
	}
	for _, t := range left {
		missing = append(missing, v1alpha1.DriveErasure{
			Name: t.Name, SerialNumber: t.SerialNumber, WWN: t.WWN, Model: t.Model, SizeBytes: t.SizeBytes, Started: now, Ended: &now,
			Error: "missing: the last inspection saw it, and the machine does not have it now",
		})
	}
	for _, d := range drives {
		if !d.listed {
			d.record.Ended = &now
			d.record.Error = "not listed: the last inspection did not see this drive, so it was not touched; inspect the host again"
		}
	}
	return drives, missing
}

// is says whether a drive is the one that an inspection saw, by the rule of whoever writes images; a drive that nothing
// tells from others is known by its name and size.
func is(t v1alpha1.DiskTarget, f v1alpha1.DiskFacts) bool {
	if t.SerialNumber == "" && t.WWN == "" && t.PCIAddress == "" && t.HCTL == "" {
		return t.Name == f.Name && t.SizeBytes == f.SizeBytes
	}
	return disk.Match(t, f) == nil
}

var controller = regexp.MustCompile(`^nvme[0-9]+`)

// related says whether erasing one drive may erase the other: they are namespaces of one controller, or two ways to one
// drive.
func related(a, b v1alpha1.DiskFacts) bool {
	if c := controller.FindString(a.Name); c != "" && c == controller.FindString(b.Name) {
		return true
	}
	return twin(a, b)
}

// twin says whether two block devices look like two ways to one drive. What it says is only believed where reading back
// through the second way shows the work of the first.
func twin(a, b v1alpha1.DiskFacts) bool {
	return a.WWN != "" && a.WWN == b.WWN && a.WWNVendorExtension == b.WWNVendorExtension && a.SerialNumber == b.SerialNumber &&
		a.SizeBytes == b.SizeBytes
}

// groups are the drives that must be erased one after the other.
func groups(drives []*drive) [][]*drive {
	var all [][]*drive
	for _, d := range drives {
		group := []*drive{d}
		all = slices.DeleteFunc(all, func(g []*drive) bool {
			if !slices.ContainsFunc(g, func(o *drive) bool { return related(d.facts, o.facts) }) {
				return false
			}
			group = append(slices.Clone(g), group...)
			return true
		})
		all = append(all, group)
	}
	return all
}
