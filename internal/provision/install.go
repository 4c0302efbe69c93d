// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/inventory"
	"metald.io/metald/internal/inventory/audit"
)

// stepPatience is how long an agent may work on a long step without a sign of getting on.
const stepPatience = 10 * time.Minute

// install has the ramdisk write the host's image to its disk, once. written is true when the agent has said that it is
// there and verified.
func (s *step) install(ctx context.Context) (written bool, out outcome) {
	i := s.Progress.Status.Deployment.Install
	if i.Written != nil {
		return true, content()
	}
	if i.Raw != nil { // before the machine is booted for it
		if _, err := s.configDrive(ctx); err != nil {
			return false, stuck(metal3.ProvisioningError, "ConfigDriveIncomplete", err, "make or correct the Secret")
		}
	}
	if i.Allowed == nil {
		if out := s.allowWrite(ctx); out.waiting != nil || out.err != nil {
			return false, out
		}
	} else if !s.inPhase(writePhase) { // the last try failed, and was told so: this is another
		if out := s.announceWrite(ctx); out.err != nil {
			return false, out
		}
	}
	if done, out := s.boot(ctx, metal3.ProvisioningError, bootRamdisk, s.ramdiskToBoot(), v1alpha1.RamdiskMode); !done {
		return false, out
	}
	r, ended := s.result(v1alpha1.InstallStep)
	switch {
	case !ended:
		return false, s.awaitsStep(ctx, "Installing", fmt.Sprintf("the agent to write the image to %s", diskName(i.Disk)))
	case !r.OK:
		acted := inventory.WithAct(ctx, s.key, writing(s.Progress.Status.Deployment, audit.Failed, r.Message, s.epoch()))
		p, err := s.Store.Progresses().Update(acted, s.Host.Namespace, s.Host.Name, func(p *v1alpha1.HostProgress) error {
			p.Status.Boot = nil
			endPhase(&p.Status, writePhase, metav1.NewTime(s.now()))
			return nil
		})
		if err != nil {
			return false, failed(metal3.ProvisioningError, err)
		}
		s.Progress = p
		return false, failed(metal3.ProvisioningError, errors.New("writing the image: "+r.Message))
	}
	acted := inventory.WithAct(ctx, s.key, writing(s.Progress.Status.Deployment, audit.Done, "", s.epoch()))
	p, err := s.Store.Progresses().Update(acted, s.Host.Namespace, s.Host.Name, func(p *v1alpha1.HostProgress) error {
		now := metav1.NewTime(s.now())
		if d := p.Status.Deployment; d != nil && d.Install != nil && d.Install.ID == i.ID {
			d.Install.Written, d.Install.Epoch = &now, p.Status.Epoch
		}
		endPhase(&p.Status, writePhase, now)
		return nil
	})
	if err != nil {
		return false, failed(metal3.ProvisioningError, fmt.Errorf("recording the installation: %w", err))
	}
	s.Progress = p
	s.log.Info("image is on disk", "host", s.key, "epoch", s.epoch(), "disk", i.Disk.Name, "serial", i.Disk.SerialNumber)
	s.tell(ctx, "Normal", "Installed", "the image was written to "+diskName(i.Disk)+" and verified")
	return true, content()
}

// allowWrite counts the write against the cap where the disk may hold something, and notes that it may go on.
func (s *step) allowWrite(ctx context.Context) outcome {
	i := s.Progress.Status.Deployment.Install
	if s.mayHoldSomething(i.Disk) {
		if out := s.spend(ctx, "write an image to "+diskName(i.Disk)); out.waiting != nil || out.err != nil {
			return out
		}
	}
	return s.announceWrite(ctx)
}

// writePhase is under way from the announcement of a write to its end, good or bad.
const writePhase = "write image"

// announceWrite notes that the agent may write, before it is told to.
func (s *step) announceWrite(ctx context.Context) outcome {
	ctx = inventory.WithAct(ctx, s.key, writing(s.Progress.Status.Deployment, audit.Intent, "", s.epoch()))
	p, err := s.Store.Progresses().Update(ctx, s.Host.Namespace, s.Host.Name, func(p *v1alpha1.HostProgress) error {
		now := metav1.NewTime(s.now())
		if d := p.Status.Deployment; d != nil && d.Install != nil && d.Install.Allowed == nil {
			d.Install.Allowed = &now
		}
		startPhase(&p.Status, writePhase, now)
		return nil
	})
	if err != nil {
		return failed(metal3.ProvisioningError, err)
	}
	s.Progress = p
	return content()
}

// inPhase answers whether a phase was begun and has not ended.
func (v View) inPhase(name string) bool {
	return slices.ContainsFunc(v.Progress.Status.Phases, func(p v1alpha1.Phase) bool { return p.Name == name && p.End == nil })
}

// awaitsStep waits for a long step of the agent, for as long as it gets on.
func (s *step) awaitsStep(ctx context.Context, reason, what string) outcome {
	a := s.agent()
	last := s.Progress.Status.Boot.Ordered.Time
	for _, sign := range []*metav1.Time{a.FirstSeen, a.ProgressAt} {
		if sign != nil && sign.After(last) {
			last = sign.Time
		}
	}
	until := last.Add(stepPatience)
	if s.now().After(until) {
		if err := s.dropOrder(ctx); err != nil {
			return failed(metal3.ProvisioningError, err)
		}
		return failed(metal3.ProvisioningError, fmt.Errorf("the agent gave no sign of getting on for %s while metald waited for %s", stepPatience, what))
	}
	if p := a.Progress; p != nil && p.Doing != "" {
		what += ": " + p.Doing
		if p.Total > 0 {
			what += fmt.Sprintf(", %d %%", p.Done*100/p.Total)
		}
	}
	return awaits(what, reason, until, "", lookAgain)
}

// ramdiskToBoot is the ramdisk that the host's order names while it stands, else the newest: a new one counts from the
// next boot on. It is empty, and the boot then fails with its reason, where there is none.
func (s *step) ramdiskToBoot() string {
	if order := s.Progress.Status.Boot; order != nil && order.Answer == bootRamdisk && order.Epoch == s.epoch() {
		return order.Digest
	}
	f, err := s.ramdisk()
	if err != nil {
		return ""
	}
	return f.SHA256
}

// mayInstall answers whether the ramdisk's agent may write to the host's disk now.
func (v View) mayInstall() bool {
	d := v.Progress.Status.Deployment
	return v.state() == metal3.StateProvisioning && d != nil && d.Install != nil && d.Install.Allowed != nil && d.Install.Written == nil
}

// installPlan is the order to write.
func (s *step) installPlan(ctx context.Context) (*v1alpha1.InstallPlan, error) {
	d := s.Progress.Status.Deployment
	plan := &v1alpha1.InstallPlan{ID: d.Install.ID, Disk: d.Install.Disk}
	if raw := d.Install.Raw; raw != nil {
		plan.Raw = &v1alpha1.RawImage{URL: raw.URL, Checksum: raw.Checksum, ChecksumType: raw.ChecksumType}
		drive, err := s.configDrive(ctx)
		if err == nil && len(drive) > 0 {
			err = s.released(ctx, "config drive", diskName(d.Install.Disk), "plan "+d.Install.ID)
		}
		plan.Raw.ConfigDrive = drive
		return plan, err
	}
	image, ok := s.images.get(d.Image)
	if !ok || image.Spec.UKI.SHA256 != d.UKI || image.Spec.Root.SHA256 != d.Root || image.Spec.Loader == nil {
		return nil, fmt.Errorf("image %s, which this host was claimed for, is gone or is another: import it again", d.Image)
	}
	plan.Image = &v1alpha1.ImageFiles{UKI: image.Spec.UKI, Root: image.Spec.Root, RootHash: image.Spec.RootHash, Loader: *image.Spec.Loader}
	return plan, nil
}

// renew takes a person's order to write the disk anew.
func (s *step) renew(ctx context.Context) outcome {
	by := s.Host.Annotations[v1alpha1.ReinstallAnnotation]
	d := s.Progress.Status.Deployment
	if d == nil || d.Install == nil {
		if err := s.dropAnnotation(ctx, v1alpha1.ReinstallAnnotation); err != nil {
			return failed(metal3.ProvisioningError, err)
		}
		s.tell(ctx, "Warning", "ReinstallRefused", "this host does not run from a disk that metald wrote")
		return awaits("a look at what is asked", "Looking", time.Time{}, "", time.Second)
	}
	if done, out := s.vacate(ctx); !done {
		return out
	}
	if out := s.removeNode(ctx); out.err != nil || out.waiting != nil {
		return out
	}
	p, err := s.Store.Progresses().Update(ctx, s.Host.Namespace, s.Host.Name, func(p *v1alpha1.HostProgress) error {
		if i := p.Status.Deployment.Install; i != nil {
			i.ID, i.Written, i.Allowed, i.Epoch = newID(), nil, nil, 0
		}
		p.Status.Boot, p.Status.Leaving = nil, nil
		return nil
	})
	if err != nil {
		return failed(metal3.ProvisioningError, err)
	}
	s.Progress = p
	s.log.Info("writing the disk anew", "host", s.key, "reason", by)
	s.tell(ctx, "Normal", "Reinstalling", by)
	if err := s.dropAnnotation(ctx, v1alpha1.ReinstallAnnotation); err != nil {
		return failed(metal3.ProvisioningError, err)
	}
	if s.state() == metal3.StateProvisioned {
		return moved(Renewed)
	}
	return awaits("the disk to be written anew", "Reinstalling", time.Time{}, "", time.Millisecond)
}

// reinstallAsked answers whether a person wants the disk written anew.
func (v View) reinstallAsked() bool { return v.Host.Annotations[v1alpha1.ReinstallAnnotation] != "" }
