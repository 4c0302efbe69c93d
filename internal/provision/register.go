// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/bmc"
)

// meet looks at a host for the first time, or again while no BMC is named.
func (s *step) meet(context.Context) outcome {
	if s.Host.HasBMCDetails() {
		return moved(Enrolled)
	}
	if s.state() == metal3.StateNone {
		return moved(Sighted)
	}
	return heldBack("NoBMC", "the address of its BMC", "set spec.bmc.address and spec.bmc.credentialsName")
}

// register makes sure whom we talk to: first the certificate, then the credentials, then the identity behind them.
func (s *step) register(ctx context.Context) outcome {
	ctx, cancel := context.WithTimeout(ctx, bmcTimeout)
	defer cancel()
	if _, err := bmc.ParseAddress(s.Host.Spec.BMC.Address); err != nil {
		return stuck(metal3.RegistrationError, "BMCAddressInvalid", err, "correct spec.bmc.address")
	}
	if secret, err := s.secret(ctx); err != nil {
		return stuck(metal3.RegistrationError, "BMCCredentialsMissing", err,
			fmt.Sprintf("make secret %s/%s with username and password", s.Host.Namespace, s.Host.Spec.BMC.CredentialsName))
	} else if s.refused(secret) {
		return s.bmcTrouble(ctx, metal3.RegistrationError, errRefused)
	}
	c, err := s.controller(ctx)
	if err != nil {
		return s.bmcTrouble(ctx, metal3.RegistrationError, err)
	}
	id, err := c.Identity(ctx)
	if err != nil {
		return s.bmcTrouble(ctx, metal3.RegistrationError, err)
	}
	if _, err := s.powered(ctx, c, 0); err != nil {
		return s.bmcTrouble(ctx, metal3.RegistrationError, err)
	}
	if out := s.keepIdentity(ctx, id); out.err != nil {
		return out
	}
	switch {
	case s.adopted():
		return moved(Adopted)
	case s.inspectionWaived():
		return moved(Waived)
	}
	return moved(Verified)
}

// pin notes the BMC's certificate on first contact, or when a person accepted a new one, before any credential is sent.
func (s *step) pin(ctx context.Context, address bmc.Address) error {
	accepted := strings.ToLower(s.Host.Annotations[v1alpha1.BMCCertificateAnnotation])
	pinned := s.identity().BMCCertificateSHA256
	if !address.Certified() || pinned != "" && (accepted == "" || accepted == pinned) {
		return nil // IPMI, and plain HTTP spelt out in the address, have no certificate
	}
	shown, _, err := s.BMCs.Certificate(ctx, address)
	if err != nil {
		return err
	}
	if accepted != "" && shown != accepted {
		return &bmc.PinChangedError{Pinned: accepted, Shown: shown}
	}
	s.log.Info("pinning the BMC's certificate", "host", s.key, "bmc", address.String(), "sha256", shown, "before", pinned)
	return s.changeInventory(ctx, func(i *v1alpha1.HostInventoryStatus) {
		now := metav1.NewTime(s.now())
		i.Identity.BMCCertificateSHA256, i.Identity.BMCCertificatePinned = shown, &now
	})
}

// changeInventory writes the mind's part of a HostInventory; Identity and BMC are not nil inside change.
func (s *step) changeInventory(ctx context.Context, change func(*v1alpha1.HostInventoryStatus)) error {
	i, err := s.Store.Inventories().Update(ctx, s.Host.Namespace, s.Host.Name, func(i *v1alpha1.HostInventory) error {
		if i.Status.Identity == nil {
			i.Status.Identity = &v1alpha1.Identity{}
		}
		if i.Status.BMC == nil {
			i.Status.BMC = &v1alpha1.BMCFacts{}
		}
		change(&i.Status)
		return nil
	})
	if err == nil {
		s.Inventory = i
	}
	return err
}

// keepIdentity pins what the BMC says of the machine the first time, and refuses when it later says something else.
func (s *step) keepIdentity(ctx context.Context, id bmc.Identity) outcome {
	known := s.identity()
	for _, c := range []struct{ what, pinned, shown string }{
		{"system UUID", known.SystemUUID, id.SystemUUID},
		{"serial number", known.SerialNumber, id.SerialNumber},
		{"serial number", s.Host.Annotations[v1alpha1.SerialNumberAnnotation], id.SerialNumber},
	} {
		if c.pinned != "" && c.shown != "" && !strings.EqualFold(c.pinned, c.shown) && !bmc.SameUUID(c.shown, c.pinned) {
			return stuck(metal3.RegistrationError, "IdentityChanged",
				fmt.Errorf("the BMC names %s %s, pinned is %s: this is another machine", c.what, c.shown, c.pinned),
				"delete the host and import it again, or correct spec.bmc.address")
		}
	}
	driver := "redfish"
	if a, err := bmc.ParseAddress(s.Host.Spec.BMC.Address); err == nil && a.IPMI() {
		driver = "ipmi"
	}
	err := s.changeInventory(ctx, func(i *v1alpha1.HostInventoryStatus) {
		i.Identity.SystemUUID = strings.ToLower(first(i.Identity.SystemUUID, id.SystemUUID))
		i.Identity.SerialNumber = first(i.Identity.SerialNumber, id.SerialNumber)
		i.Identity.BootMAC = s.bootMAC()
		b := i.BMC
		b.Driver, b.Manufacturer, b.Model, b.SerialNumber = driver, id.Manufacturer, id.Model, id.SerialNumber
		b.SystemUUID, b.BIOSVersion, b.BMCVersion = strings.ToLower(id.SystemUUID), id.BIOSVersion, id.BMCVersion
		b.CertificateSHA256, b.Error = i.Identity.BMCCertificateSHA256, ""
	})
	if err != nil {
		return failed(metal3.RegistrationError, fmt.Errorf("writing the host's identity: %w", err))
	}
	return content()
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// prepare settles what must hold before a claim. Erasing and firmware settings join here; nothing is destructive before
// a claim.
func (s *step) prepare(context.Context) outcome { return moved(Prepared) }

// rest keeps an available host as its owner asked, until somebody claims it.
func (s *step) rest(ctx context.Context) outcome {
	switch {
	case s.adopted():
		return moved(Adopted)
	case s.claimed():
		return s.claim(ctx)
	case s.reinstallAsked():
		return s.renew(ctx)
	case s.reinspectionAsked():
		if err := s.dropAnnotation(ctx, metal3.InspectAnnotationPrefix); err != nil {
			return failed(metal3.InspectionError, err)
		}
		return moved(Doubted)
	}
	if out := s.keepPower(ctx); out.waiting != nil || out.err != nil {
		return out
	}
	return s.holdForDisks(false)
}

func (s *step) reinspectionAsked() bool {
	value, asked := s.Host.Annotations[metal3.InspectAnnotationPrefix]
	return asked && value != inspectDisabled
}

func (s *step) dropAnnotation(ctx context.Context, key string) error {
	h, err := s.Store.Hosts().Update(ctx, s.Host.Namespace, s.Host.Name, func(h *metal3.BareMetalHost) error {
		delete(h.Annotations, key)
		return nil
	})
	if err == nil {
		s.Host = h
	}
	return err
}

// leaveAlone watches an adopted host and switches nothing unless a person took it.
func (s *step) leaveAlone(ctx context.Context) outcome {
	if !s.adopted() {
		return moved(Returned)
	}
	return s.keepPower(ctx)
}

// keepPower brings the machine to the power that its state and its owner want, where that is not a boot of its own.
func (s *step) keepPower(ctx context.Context) outcome {
	ctx, cancel := context.WithTimeout(ctx, bmcTimeout)
	defer cancel()
	c, err := s.controller(ctx)
	if err != nil {
		return s.bmcTrouble(ctx, metal3.PowerManagementError, err)
	}
	p, err := s.powered(ctx, c, s.Limits.Poll)
	if err != nil {
		return s.bmcTrouble(ctx, metal3.PowerManagementError, err)
	}
	w := want(s.View)
	switch {
	case w.Power == off && p != bmc.Off && !s.mayTouch():
		return s.holdOff()
	case w.Power == off && p != bmc.Off && s.lingers():
		return awaits("a claim, before its ramdisk is switched off", "Lingering", s.since().Add(linger), "", linger)
	case w.Power == off && p != bmc.Off:
		return s.switchOff(ctx, c, "spec.online is false")
	case w.Power == on && p == bmc.Off:
		if row(s.state()).orders(bootRamdisk) {
			return s.bootRamdisk(ctx)
		}
		return s.switchOn(ctx, c, "spec.online is true")
	}
	return content()
}

// linger is how long a host that has just been inspected stays in its ramdisk, so that who claims it at once need not boot
// it again.
const linger = 15 * time.Second

func (s *step) lingers() bool {
	return s.state() == metal3.StateAvailable && s.reporting(v1alpha1.RamdiskMode) && s.now().Sub(s.since()) < linger
}

var errStillOn = errors.New("the BMC accepted the power-off, but still reads On")

// switchOff ends a machine's power and looks again until the BMC reads Off.
func (s *step) switchOff(ctx context.Context, c *session, why string) outcome {
	if out := s.countPowerOff(ctx, why); out.err != nil || out.waiting != nil {
		return out
	}
	if out := s.leasePower(ctx, why); out.err != nil {
		return out
	}
	s.log.Info("switching off", "host", s.key, "state", string(s.state()), "reason", why)
	if err := s.power(ctx, c, bmc.ForceOff); err != nil {
		return s.bmcTrouble(ctx, metal3.PowerManagementError, fmt.Errorf("switching off: %w", err))
	}
	for range 10 {
		p, err := s.powered(ctx, c, 0)
		if err != nil {
			return s.bmcTrouble(ctx, metal3.PowerManagementError, err)
		}
		if p == bmc.Off {
			return awaits("the machine to settle after power-off", "PowerOff", time.Time{}, "", time.Second)
		}
		select {
		case <-ctx.Done():
			return failed(metal3.PowerManagementError, errStillOn)
		case <-time.After(time.Second):
		}
	}
	return failed(metal3.PowerManagementError, errStillOn)
}

// switchOn starts a machine into whatever it boots by itself.
func (s *step) switchOn(ctx context.Context, c *session, why string) outcome {
	if out := s.leasePower(ctx, why); out.err != nil {
		return out
	}
	s.log.Info("switching on", "host", s.key, "state", string(s.state()), "reason", why)
	if err := s.power(ctx, c, bmc.PowerOn); err != nil {
		return s.bmcTrouble(ctx, metal3.PowerManagementError, fmt.Errorf("switching on: %w", err))
	}
	c.power = ""
	return awaits("the machine to switch on", "PowerOn", time.Time{}, "", 2*time.Second)
}

// leasePower writes who switches, and why, before it is done.
func (s *step) leasePower(ctx context.Context, why string) outcome {
	p, err := s.Store.Progresses().Update(ctx, s.Host.Namespace, s.Host.Name, func(p *v1alpha1.HostProgress) error {
		l := &v1alpha1.PowerLease{Owner: "provision", Reason: why, Epoch: p.Status.Epoch, Since: metav1.NewTime(s.now())}
		if old := p.Status.Power; old != nil && old.Reason == why && old.Epoch == l.Epoch {
			l.Since, l.Counted = old.Since, old.Counted
		}
		p.Status.Power = l
		return nil
	})
	if err != nil {
		return failed(metal3.PowerManagementError, fmt.Errorf("taking the power lease: %w", err))
	}
	s.Progress = p
	return content()
}

// countPowerOff counts the end of what runs on the machine against the cap, once for each reason and epoch. The ramdisk,
// and an image that never came up, are nobody's work.
func (s *step) countPowerOff(ctx context.Context, why string) outcome {
	a := s.agent()
	works := s.epoch() == 0 || a.Epoch == s.epoch() && a.Mode == v1alpha1.OSMode
	if l := s.Progress.Status.Power; !works || l != nil && l.Counted && l.Reason == why && l.Epoch == s.epoch() {
		return outcome{}
	}
	if out := s.spend(ctx, "switch off "+s.Host.Name+", "+why); out.err != nil || out.waiting != nil {
		return out
	}
	if out := s.leasePower(ctx, why); out.err != nil {
		return out
	}
	p, err := s.Store.Progresses().Update(ctx, s.Host.Namespace, s.Host.Name, func(p *v1alpha1.HostProgress) error {
		if p.Status.Power != nil {
			p.Status.Power.Counted = true
		}
		return nil
	})
	if err != nil {
		return failed(metal3.PowerManagementError, fmt.Errorf("counting a power-off: %w", err))
	}
	s.Progress = p
	return outcome{}
}

// holdOff waits for a person, because the machine runs something that metald did not start.
func (s *step) holdOff() outcome {
	return heldBack("HostRunning", "a person: the machine was found running and may be in use; it is only read, not switched",
		fmt.Sprintf("if it is free to use: metald host take %s --reason TEXT; if not: set spec.externallyProvisioned", s.Host.Name))
}
