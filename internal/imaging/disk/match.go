// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"strconv"
	"strings"

	"metald.io/metald/api/v1alpha1"
)

// Match says whether the disk that is seen is the plan's, and answers a *WrongDiskError with the evidence if it is not. The
// size must be the same. A serial number or WWN that is both wanted and seen must be the same, and one of them must be so
// seen; where the plan has neither, the disk's place (PCI address, SCSI address) takes their part. Names count for nothing.
func Match(target v1alpha1.DiskTarget, seen v1alpha1.DiskFacts) error {
	evidence := []struct{ what, want, seen string }{
		{"serial number", target.SerialNumber, seen.SerialNumber},
		{"WWN", target.WWN, seen.WWN},
	}
	if target.SerialNumber == "" && target.WWN == "" {
		evidence = []struct{ what, want, seen string }{
			{"PCI address", target.PCIAddress, seen.PCIAddress},
			{"SCSI address", target.HCTL, seen.HCTL},
		}
		if target.PCIAddress != "" {
			// The kernel counts SCSI hosts in the order in which it meets them; behind a PCI address the rest is what tells.
			evidence[1].want, evidence[1].seen = withoutHost(target.HCTL), withoutHost(seen.HCTL)
		}
	}
	if target.SizeBytes <= 0 || seen.SizeBytes != target.SizeBytes {
		return &WrongDiskError{What: "size in bytes", Want: strconv.FormatInt(target.SizeBytes, 10), Seen: strconv.FormatInt(seen.SizeBytes, 10)}
	}
	matched := false
	for _, e := range evidence {
		want, got := strings.TrimSpace(e.want), strings.TrimSpace(e.seen)
		switch {
		case want == "" || got == "":
		case strings.EqualFold(want, got):
			matched = true
		default:
			return &WrongDiskError{What: e.what, Want: want, Seen: got}
		}
	}
	if m, s := strings.TrimSpace(target.Model), strings.TrimSpace(seen.Model); m != "" && s != "" && m != s {
		return &WrongDiskError{What: "model", Want: m, Seen: s}
	}
	if matched {
		return nil
	}
	for _, e := range evidence {
		if e.want != "" {
			return &WrongDiskError{What: e.what, Want: e.want}
		}
	}
	return &WrongDiskError{What: "serial number, WWN, PCI or SCSI address", Seen: seen.Name}
}

func withoutHost(hctl string) string {
	if _, rest, ok := strings.Cut(hctl, ":"); ok {
		return rest
	}
	return hctl
}
