// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"encoding/json"

	"metald.io/metald/api/v1alpha1"
)

const (
	// maxDrives bounds the records of an erase, maxErased their weight as JSON: HostInventory has room for both.
	maxDrives = 256
	maxErased = 128 << 10
	// maxTried, maxLine and maxName bound one record.
	maxTried = 16
	maxLine  = 200
	maxName  = 128
)

// onDisks are the steps that take long and write to disks, from the ramdisk alone.
var onDisks = map[string]bool{v1alpha1.InstallStep: true, v1alpha1.EraseStep: true}

// checkProgress refuses progress that no agent of ours reports, and clips its text.
func checkProgress(step string, p *v1alpha1.StepProgress) error {
	switch {
	case !onDisks[step]:
		return refuse("BadRequest", "the step %q has no progress", clip(step, 64))
	case p.Done < 0 || p.Total < 0:
		return refuse("BadRequest", "progress is %d of %d bytes", p.Done, p.Total)
	}
	p.Doing = clip(p.Doing, maxLine)
	return nil
}

// checkDone refuses what only another step or another mode can have to say, and brings the records of an erase to a
// size that the inventory can hold.
func checkDone(mode string, in *v1alpha1.Done) error {
	switch {
	case onDisks[in.Step] && mode != v1alpha1.RamdiskMode:
		return refuse("BadRequest", "an agent in mode %s cannot end the step %q", mode, in.Step)
	case len(in.Erased) > 0 && in.Step != v1alpha1.EraseStep:
		return refuse("BadRequest", "the step %q erases nothing", in.Step)
	case in.AlreadyThere && in.Step != v1alpha1.InstallStep:
		return refuse("BadRequest", "the step %q installs nothing", in.Step)
	case len(in.Erased) > maxDrives:
		return refuse("BadRequest", "the erase has %d records, more than %d", len(in.Erased), maxDrives)
	}
	return fit(in.Erased)
}

// fit clips the texts of the records. If they are too heavy still, what was tried before gives way first: how each drive
// ended is what nobody else knows.
func fit(records []v1alpha1.DriveErasure) error {
	for i := range records {
		r := &records[i]
		for _, text := range []*string{&r.Name, &r.SerialNumber, &r.WWN, &r.Model, &r.Method} {
			*text = clip(*text, maxName)
		}
		r.Verified, r.Error = clip(r.Verified, maxLine), clip(r.Error, maxLine)
		r.Tried = r.Tried[:min(len(r.Tried), maxTried)]
		for j := range r.Tried {
			r.Tried[j] = clip(r.Tried[j], maxLine)
		}
	}
	if heavy(records) {
		for i := range records {
			records[i].Tried = nil
		}
	}
	if heavy(records) {
		return refuse("BadRequest", "the records of the erase weigh more than %d bytes", maxErased)
	}
	return nil
}

func heavy(records []v1alpha1.DriveErasure) bool {
	text, err := json.Marshal(records)
	return err != nil || len(text) > maxErased
}
