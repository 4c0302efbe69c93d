// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"

	"metald.io/metald/api/v1alpha1"
)

// newID names one installation.
func newID() string { return uuid.NewString() }

// disks are the drives that the last inspection saw.
func (v View) disks() []v1alpha1.DiskFacts {
	if f := v.agent().Facts; f != nil {
		return f.Disks
	}
	return nil
}

// erasedSince answers whether the drives were erased after they were last inspected.
func (v View) erasedSince() bool {
	e := v.Progress.Status.Erase
	return e != nil && e.OK && e.Epoch > v.agent().Inspected
}

// disksInUse names the disks that held partitions when they were last looked at. Somebody may still want what is on them.
func (v View) disksInUse() []string {
	if v.taken() || v.erasedSince() {
		return nil
	}
	var used []string
	for _, d := range v.disks() {
		if d.Partitions > 0 {
			used = append(used, fmt.Sprintf("%s (%d partitions)", diskName(target(d)), d.Partitions))
		}
	}
	return used
}

// mayHoldSomething answers whether writing to a disk may destroy what somebody wants.
func (v View) mayHoldSomething(t v1alpha1.DiskTarget) bool {
	if v.erasedSince() && v.Progress.Status.Deployment.Install.Epoch == 0 {
		return false
	}
	for _, d := range v.disks() {
		if target(d) == t && d.Partitions == 0 {
			return slices.ContainsFunc(v.Progress.Status.Transitions, func(t v1alpha1.Transition) bool { return t.On == string(Renewed) })
		}
	}
	return true
}

func target(d v1alpha1.DiskFacts) v1alpha1.DiskTarget {
	return v1alpha1.DiskTarget{Name: d.Name, SerialNumber: d.SerialNumber, WWN: d.WWN, Model: d.Model, SizeBytes: d.SizeBytes,
		PCIAddress: d.PCIAddress, HCTL: d.HCTL}
}

// diskNeeds is the least disk that an image can be installed on: the EFI system partition, two slots, and some state. The
// agent, which lays the disk out, has the last word.
func diskNeeds(i *v1alpha1.Image) int64 {
	const mib = 1 << 20
	return 256*mib + 4*i.Spec.UKI.SizeBytes + 2*i.Spec.Root.SizeBytes + 1024*mib
}

func diskName(t v1alpha1.DiskTarget) string {
	name := "/dev/" + t.Name
	if id := cmp.Or(t.SerialNumber, t.WWN); id != "" {
		name += " (serial " + id + ")"
	}
	return name
}

// chooseDisk finds the disk that Metal3's rootDeviceHints mean. All hints that are given must fit; of several disks that
// fit the first by name is taken where hints were given, as Metal3 does. Without hints it is the smallest disk of at least
// need bytes that is not rotating, else the smallest: data disks are the bigger ones.
func chooseDisk(disks []v1alpha1.DiskFacts, hints *metal3.RootDeviceHints, need int64) (v1alpha1.DiskTarget, error) {
	sorted := slices.Clone(disks)
	slices.SortFunc(sorted, func(a, b v1alpha1.DiskFacts) int { return cmp.Compare(a.Name, b.Name) })
	var why []string
	var fit []v1alpha1.DiskFacts
	for _, d := range sorted {
		switch reason := unfit(d, hints); {
		case reason != "":
			why = append(why, diskName(target(d))+": "+reason)
		case d.SizeBytes < need:
			why = append(why, fmt.Sprintf("%s: %d bytes, %d are needed", diskName(target(d)), d.SizeBytes, need))
		default:
			fit = append(fit, d)
		}
	}
	if len(fit) == 0 {
		if len(disks) == 0 {
			return v1alpha1.DiskTarget{}, fmt.Errorf("the inspection saw no disk at all")
		}
		return v1alpha1.DiskTarget{}, fmt.Errorf("no disk fits: %s", strings.Join(why, "; "))
	}
	if hints == nil || *hints == (metal3.RootDeviceHints{}) {
		slices.SortStableFunc(fit, func(a, b v1alpha1.DiskFacts) int {
			if a.Rotational != b.Rotational {
				if a.Rotational {
					return 1
				}
				return -1
			}
			return cmp.Compare(a.SizeBytes, b.SizeBytes)
		})
	}
	return target(fit[0]), nil
}

// unfit names the first hint that a disk does not meet, empty where it meets all. The rules are Metal3's: strings match
// exactly but for vendor and model, which may be a part; sizes are in GB of 2^30 bytes.
func unfit(d v1alpha1.DiskFacts, h *metal3.RootDeviceHints) string {
	if h == nil {
		return ""
	}
	exact := func(what, want string, have ...string) string {
		if want == "" || slices.ContainsFunc(have, func(s string) bool { return s != "" && strings.EqualFold(s, want) }) {
			return ""
		}
		return fmt.Sprintf("%s is %q, wanted %q", what, have[0], want)
	}
	part := func(what, want, have string) string {
		if want == "" || strings.Contains(strings.ToLower(have), strings.ToLower(want)) {
			return ""
		}
		return fmt.Sprintf("%s is %q, wanted %q", what, have, want)
	}
	for _, reason := range []string{
		exact("name", strings.TrimPrefix(h.DeviceName, "/dev/"), append([]string{d.Name}, trimmed(d.Links)...)...),
		exact("HCTL", h.HCTL, d.HCTL),
		part("model", h.Model, d.Model),
		part("vendor", h.Vendor, d.Vendor),
		exact("serial number", h.SerialNumber, d.SerialNumber),
		exact("WWN", h.WWN, d.WWN, strings.TrimPrefix(d.WWN, "0x"), "0x"+d.WWN),
		exact("WWN with extension", h.WWNWithExtension, d.WWN+strings.TrimPrefix(d.WWNVendorExtension, "0x")),
		exact("WWN vendor extension", h.WWNVendorExtension, d.WWNVendorExtension),
	} {
		if reason != "" {
			return reason
		}
	}
	if h.MinSizeGigabytes > 0 && d.SizeBytes < int64(h.MinSizeGigabytes)<<30 {
		return fmt.Sprintf("it has %d GB, wanted at least %d", d.SizeBytes>>30, h.MinSizeGigabytes)
	}
	if h.Rotational != nil && *h.Rotational != d.Rotational {
		return fmt.Sprintf("rotational is %t, wanted %t", d.Rotational, *h.Rotational)
	}
	return ""
}

func trimmed(links []string) []string {
	var out []string
	for _, l := range links {
		out = append(out, strings.TrimPrefix(l, "/dev/"))
	}
	return out
}
