// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"errors"
	"fmt"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/inventory"
)

// cleaningDisabled is the mode in which nothing is erased.
const cleaningDisabled = string(metal3.CleaningModeDisabled)

// erase has the ramdisk erase the drives of a released host. A full erase that fails is never replaced by a lesser one.
func (s *step) erase(ctx context.Context) (done bool, out outcome) {
	l, e := s.Progress.Status.Leaving, s.Progress.Status.Erase
	if e != nil && e.Begun.Before(&l.Since) {
		e = nil // of an earlier life
	}
	switch {
	case e != nil && e.Ended != nil && (e.OK || e.Mode == cleaningDisabled):
		return true, outcome{}
	case e != nil && e.Ended != nil && s.Progress.Status.Attempts >= eraseTries:
		return false, stuck(metal3.ProvisioningError, "EraseFailed", errors.New("the drives could not be erased: "+failures(e)),
			fmt.Sprintf("replace the drive, or give the host up: metald host forget %s", s.Host.Name))
	case e == nil || e.Ended != nil:
		if out := s.beginErase(ctx, l.Cleaning); out.err != nil || out.waiting != nil {
			return false, out
		}
		if s.Progress.Status.Erase.Ended != nil {
			return true, outcome{}
		}
	}
	if done, out := s.boot(ctx, metal3.ProvisioningError, bootRamdisk, s.ramdiskToBoot(), v1alpha1.RamdiskMode); !done {
		return false, out
	}
	if s.Progress.Status.Erase.Epoch != s.epoch() { // on disk before the agent is told
		err := s.changeErase(ctx, func(e *v1alpha1.Erase) { e.Epoch = s.epoch() })
		if err != nil {
			return false, failed(metal3.ProvisioningError, err)
		}
	}
	r, ended := s.result(v1alpha1.EraseStep)
	if !ended {
		return false, s.awaitsStep(ctx, "Erasing", fmt.Sprintf("the agent to erase %d drive(s)", len(s.disks())))
	}
	return s.endErase(ctx, r)
}

// beginErase writes down that an erase begins, and counts it, before anything is done.
func (s *step) beginErase(ctx context.Context, mode string) outcome {
	nothing := s.agent().Facts != nil && len(s.disks()) == 0 // a machine without drives
	if mode != cleaningDisabled && !nothing {
		if out := s.spend(ctx, "erase all drives of "+s.Host.Name); out.err != nil || out.waiting != nil {
			return out
		}
	}
	now := metav1.NewTime(s.now())
	if mode != cleaningDisabled && !nothing {
		ctx = inventory.WithAct(ctx, s.key, erasing(v1alpha1.Erase{Mode: mode, Begun: now}, s.epoch()))
	}
	p, err := s.Store.Progresses().Update(ctx, s.Host.Namespace, s.Host.Name, func(p *v1alpha1.HostProgress) error {
		p.Status.Erase = &v1alpha1.Erase{Mode: mode, Begun: now}
		if mode == cleaningDisabled || nothing {
			p.Status.Erase.Ended, p.Status.Erase.OK = &now, nothing
		} else {
			startPhase(&p.Status, "erase", now)
		}
		return nil
	})
	if err != nil {
		return failed(metal3.ProvisioningError, err)
	}
	s.Progress = p
	return outcome{}
}

func (s *step) changeErase(ctx context.Context, change func(*v1alpha1.Erase)) error {
	p, err := s.Store.Progresses().Update(ctx, s.Host.Namespace, s.Host.Name, func(p *v1alpha1.HostProgress) error {
		if p.Status.Erase != nil {
			change(p.Status.Erase)
		}
		return nil
	})
	if err == nil {
		s.Progress = p
	}
	return err
}

// endErase keeps the record of each drive, and sends the machine off to rest.
func (s *step) endErase(ctx context.Context, r v1alpha1.StepResult) (done bool, out outcome) {
	ok := r.OK && len(r.Erased) >= len(s.disks())
	for _, d := range r.Erased {
		ok = ok && d.OK
	}
	now := metav1.NewTime(s.now())
	ended := *s.Progress.Status.Erase
	ended.Ended, ended.OK, ended.Drives = &now, ok, r.Erased
	err := s.changeErase(inventory.WithAct(ctx, s.key, erasing(ended, s.epoch())), func(e *v1alpha1.Erase) {
		e.Ended, e.OK, e.Drives = &now, ok, r.Erased
	})
	if err == nil {
		err = s.endPhaseNow(ctx, "erase")
	}
	if err == nil {
		err = s.dropOrder(ctx)
	}
	if err != nil {
		return false, failed(metal3.ProvisioningError, fmt.Errorf("recording the erase: %w", err))
	}
	if !ok {
		return false, failed(metal3.ProvisioningError, errors.New("erasing the drives: "+first(r.Message, failures(s.Progress.Status.Erase))))
	}
	s.log.Info("drives erased", "host", s.key, "epoch", s.epoch(), "mode", s.Progress.Status.Erase.Mode, "drives", len(r.Erased))
	s.tell(ctx, "Normal", "Erased", fmt.Sprintf("%s: %d drive(s), see status.erase of the HostProgress", s.Progress.Status.Erase.Mode, len(r.Erased)))
	return true, outcome{}
}

func (s *step) endPhaseNow(ctx context.Context, phase string) error {
	p, err := s.Store.Progresses().Update(ctx, s.Host.Namespace, s.Host.Name, func(p *v1alpha1.HostProgress) error {
		endPhase(&p.Status, phase, metav1.NewTime(s.now()))
		return nil
	})
	if err == nil {
		s.Progress = p
	}
	return err
}

func failures(e *v1alpha1.Erase) string {
	text := ""
	for _, d := range e.Drives {
		if !d.OK {
			text = joinText(text, diskName(v1alpha1.DiskTarget{Name: d.Name, SerialNumber: d.SerialNumber, WWN: d.WWN})+": "+d.Error)
		}
	}
	return first(text, "no record came for one of them")
}

func joinText(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}

// mayErase answers whether the ramdisk's agent may erase the host's drives now.
func (v View) mayErase() bool {
	e := v.Progress.Status.Erase
	return v.state() == metal3.StateDeprovisioning && v.Progress.Status.Leaving != nil && v.Progress.Status.Leaving.Stopped != nil &&
		e != nil && e.Ended == nil && e.Epoch == v.epoch() && v.agent().Facts != nil
}

func (s *step) erasePlan() *v1alpha1.ErasePlan {
	plan := &v1alpha1.ErasePlan{Mode: s.Progress.Status.Erase.Mode}
	for _, d := range s.disks() {
		plan.Drives = append(plan.Drives, target(d))
	}
	return plan
}

// erased tells whether the drives hold nothing of who had the host last.
func erased(v View) metav1.Condition {
	e := v.Progress.Status.Erase
	say := func(status bool, reason, message string) metav1.Condition {
		return condition(v1alpha1.ErasedCondition, status, reason, message)
	}
	switch {
	case v.Progress.Status.Deployment != nil:
		return say(false, "InUse", "the host is deployed")
	case e == nil:
		return say(false, "NeverErased", "metald has not erased this host's drives")
	case e.Ended == nil:
		return say(false, "Erasing", "")
	case e.Mode == cleaningDisabled:
		return say(false, "CleaningDisabled", "the cleaning mode asked for no erase: the drives hold what the last user left")
	case !e.OK:
		return say(false, "EraseFailed", failures(e))
	case e.Mode == v1alpha1.EraseMetadata:
		return say(false, "MetadataOnly", fmt.Sprintf("partition tables of %d drive(s) were removed, the data was not", len(e.Drives)))
	}
	return say(true, "Full", fmt.Sprintf("%d drive(s) erased and read back at %s", len(e.Drives), e.Ended.UTC().Format("2006-01-02T15:04:05Z")))
}
