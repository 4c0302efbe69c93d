// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"

	"metald.io/metald/api/v1alpha1"
)

// Want is what should be true of a host's machine now. The power step and the boot servers both ask for it, so that no
// machine is switched on into a boot that it will not be offered.
type Want struct {
	Power power // on, off or untouched
	Boot  string
	// Digest is the sha256 of the file for Boot, empty where the machine gets no file: it boots from its disk, or not at all.
	Digest string
}

// want is a pure function of the host.
func want(v View) Want {
	r := row(v.state())
	w := Want{Power: r.power, Boot: bootNone}
	switch {
	case r.power == asNeeded:
		w.Power = untouched // its work switches by itself, step by step
	case v.paused():
		w.Power = untouched
	case r.power == asAsked && v.state() == metal3.StateExternallyProvisioned && !v.taken():
		w.Power = untouched // adopted and running: metald leaves it as it is until a person takes it
	case r.power == asAsked && v.Host.Spec.Online:
		w.Power = on
	case r.power == asAsked:
		w.Power = off
	}
	if w.Power == off && v.Host.Spec.DisablePowerOff {
		w.Power = untouched
	}
	order := v.Progress.Status.Boot
	if order != nil && r.orders(order.Answer) && order.Epoch == v.epoch() && v.permits(order) {
		w.Boot, w.Digest = order.Answer, order.Digest
	}
	return w
}

// permits answers whether a boot order still stands: an image only while it is the one that was deployed, a disk only
// while what was deployed lies on it.
func (v View) permits(order *v1alpha1.BootOrder) bool {
	d := v.Progress.Status.Deployment
	switch order.Answer {
	case bootImage:
		return d != nil && d.UKI == order.Digest
	case bootDisk:
		return d != nil && d.Install != nil && d.Install.Written != nil
	}
	return true
}

// bootStep is the next small step of a boot into the network that metald ordered.
type bootStep string

const (
	stepPowerOff bootStep = "switch off"    // the machine must be off before an order is written
	stepOrder    bootStep = "write order"   // raise the epoch, say what it will be offered
	stepPowerOn  bootStep = "switch on"     // set the one-time boot and switch on
	stepAwait    bootStep = "await agent"   // the machine is on its way
	stepGiveUp   bootStep = "give up boot"  // the deadline passed
	stepArrived  bootStep = "agent arrived" // the agent of this epoch has proved itself
)

// nextBootStep decides how a boot into answer goes on, from what is on disk and what the BMC reads now. It can be asked
// again after a crash at any point: an order stands on disk before the machine is switched on.
func nextBootStep(v View, answer, digest, mode string, poweredOn bool, now time.Time, brokeOff bool) bootStep {
	order := v.Progress.Status.Boot
	stands := order != nil && order.Answer == answer && order.Digest == digest && order.Epoch == v.epoch()
	_, refused := v.result(v1alpha1.RefuseStep)
	refused = refused && !(answer == bootDisk && v.reporting(mode)) // it came up from its other slot
	switch {
	case stands && refused:
		return stepGiveUp // the machine has refused what it was sent, whatever it said before
	case stands && v.reporting(mode) && poweredOn:
		return stepArrived
	case stands && now.After(order.Deadline.Time):
		return stepGiveUp
	case stands && !poweredOn && v.reporting(mode):
		return stepGiveUp // it had arrived and is off again: a new boot needs a new epoch
	case stands && !poweredOn:
		return stepPowerOn
	case stands && brokeOff && !v.reporting(mode):
		return stepGiveUp // it sits in its firmware and will not ask again
	case stands:
		return stepAwait
	case poweredOn:
		return stepPowerOff
	default:
		return stepOrder
	}
}
