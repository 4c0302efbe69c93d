// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"errors"
	"fmt"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/bmc"
	"metald.io/metald/internal/pxe"
)

// lookAgain is how often a machine on its way is asked for its power; the agent's own report comes by itself.
const lookAgain = 10 * time.Second

// boot takes the host one step towards an agent of this mode, booted from answer. done is true when it has arrived.
func (s *step) boot(ctx context.Context, kind metal3.ErrorType, answer, digest, mode string) (done bool, out outcome) {
	ctx, cancel := context.WithTimeout(ctx, bmcTimeout)
	defer cancel()
	c, err := s.controller(ctx)
	if err != nil {
		return false, s.bmcTrouble(ctx, kind, err)
	}
	// A report that came in is news enough; power is read again only where it decides.
	p, err := s.powered(ctx, c, lookAgain)
	if err != nil {
		return false, s.bmcTrouble(ctx, kind, err)
	}
	next := nextBootStep(s.View, answer, digest, mode, p == bmc.On, s.now(), s.brokeOff(s.Progress.Status.Boot))
	if next != stepArrived && next != stepAwait { // about to switch: look again, not at what was remembered
		if p, err = s.powered(ctx, c, 0); err != nil {
			return false, s.bmcTrouble(ctx, kind, err)
		}
		next = nextBootStep(s.View, answer, digest, mode, p == bmc.On, s.now(), s.brokeOff(s.Progress.Status.Boot))
	}
	order := s.Progress.Status.Boot
	if next == stepOrder {
		if n, ok := s.slots.take(s.key, s.Limits.Boots); !ok {
			return false, awaits(fmt.Sprintf("its turn: %d machines are booting, which is the limit", n), "BootSlot", time.Time{}, "", 5*time.Second)
		}
	}
	switch next {
	case stepArrived:
		s.slots.leave(s.key)
		if err := s.endBoot(ctx, answer); err != nil {
			return false, failed(kind, err)
		}
		return true, content()
	case stepAwait:
		s.slots.take(s.key, 0)
		return false, awaits(s.whereInBoot(), "Booting", order.Deadline.Time, "", lookAgain)
	case stepPowerOff:
		if !s.mayTouch() {
			return false, s.holdOff()
		}
		return false, s.switchOff(ctx, c, "to boot the "+answer)
	case stepOrder:
		if err := s.order(ctx, answer, digest); err != nil {
			return false, failed(kind, fmt.Errorf("writing the boot order: %w", err))
		}
		return false, s.start(ctx, kind, c, answer)
	case stepPowerOn:
		return false, s.start(ctx, kind, c, answer)
	}
	s.slots.leave(s.key)
	err = s.bootFailure(order, mode, p)
	if dropErr := s.dropOrder(ctx); dropErr != nil {
		return false, failed(kind, dropErr)
	}
	return false, failed(kind, err)
}

// start sets the one-time boot, reads it back and switches on. The order for it stands on disk.
func (s *step) start(ctx context.Context, kind metal3.ErrorType, c *session, answer string) outcome {
	from := bmc.BootDisk
	if answer != bootDisk {
		var err error
		if from, err = c.NetworkBoot(ctx); err != nil {
			return s.bmcTrouble(ctx, kind, fmt.Errorf("asking how the machine boots from the network: %w", err))
		}
	}
	if err := s.bootOnce(ctx, c, from); err != nil {
		return s.bmcTrouble(ctx, kind, fmt.Errorf("setting one-time boot to %s: %w", from, err))
	}
	s.log.Info("switching on", "host", s.key, "state", string(s.state()), "reason", "to boot the "+answer, "epoch", s.epoch())
	if err := s.power(ctx, c, bmc.PowerOn); err != nil {
		return s.bmcTrouble(ctx, kind, fmt.Errorf("switching on: %w", err))
	}
	c.power = ""
	return awaits(s.whereInBoot(), "Booting", s.Progress.Status.Boot.Deadline.Time, "", 5*time.Second)
}

// order raises the epoch and says what the machine will be offered, before anything is switched.
func (s *step) order(ctx context.Context, answer, digest string) error {
	p, err := s.Store.Progresses().Update(ctx, s.Host.Namespace, s.Host.Name, func(p *v1alpha1.HostProgress) error {
		now := s.now()
		next, err := s.nextEpoch(p.Status.Epoch)
		if err != nil {
			return err
		}
		p.Status.Epoch = next
		p.Status.Power = &v1alpha1.PowerLease{Owner: "provision", Reason: "to boot the " + answer, Epoch: p.Status.Epoch, Since: metav1.NewTime(now)}
		p.Status.Boot = &v1alpha1.BootOrder{Answer: answer, Digest: digest, Epoch: p.Status.Epoch,
			Ordered: metav1.NewTime(now), Deadline: metav1.NewTime(now.Add(s.Limits.Boot))}
		startPhase(&p.Status, "boot "+answer, metav1.NewTime(now))
		return nil
	})
	if err == nil {
		s.Progress = p
	}
	return err
}

// endBoot notes that the boot has come to its agent, once.
func (s *step) endBoot(ctx context.Context, answer string) error {
	if !s.inPhase("boot " + answer) {
		return nil
	}
	p, err := s.Store.Progresses().Update(ctx, s.Host.Namespace, s.Host.Name, func(p *v1alpha1.HostProgress) error {
		endPhase(&p.Status, "boot "+answer, metav1.NewTime(s.at))
		return nil
	})
	if err == nil {
		s.Progress = p
	}
	return err
}

func (s *step) dropOrder(ctx context.Context) error {
	p, err := s.Store.Progresses().Update(ctx, s.Host.Namespace, s.Host.Name, func(p *v1alpha1.HostProgress) error {
		p.Status.Boot = nil
		return nil
	})
	if err == nil {
		s.Progress = p
	}
	return err
}

// whereInBoot says how far the machine has come.
func (s *step) whereInBoot() string {
	order := s.Progress.Status.Boot
	switch {
	case order != nil && order.Answer == bootDisk:
		return "the machine to start from its disk and its agent to prove itself"
	case order == nil || order.Asked == nil:
		return "the firmware to ask for its boot file"
	case !gotWhole(order):
		return "the machine to fetch its boot file"
	case order.Answer == bootImage:
		return "the image to start and its agent to prove itself"
	}
	return "the ramdisk's agent to prove itself"
}

// bootFailure names the stage at which a boot ended.
func (s *step) bootFailure(order *v1alpha1.BootOrder, mode string, p bmc.PowerState) error {
	refusal := s.agent().Refusal
	switch {
	case refusal != nil && refusal.At.After(order.Ordered.Time):
		return errors.New(refusal.Message)
	case p != bmc.On && s.reporting(mode):
		return errors.New("the machine is off although it had started; somebody else switched it, or it lost power")
	case order.Answer == bootDisk:
		return fmt.Errorf("the machine was switched on to start from its disk, but its agent did not prove itself in %s: look at its console", s.Limits.Boot)
	case order.Asked == nil:
		return fmt.Errorf("the firmware never asked for its boot file: is network boot enabled, and is %s the MAC address of a port on the provisioning network?", s.bootMAC())
	}
	if s.brokeOff(order) {
		return fmt.Errorf("the machine asked for its boot file and did not take it whole: the transfer broke off, and nothing came for %s", transferPause)
	}
	return fmt.Errorf("the machine took its boot file, but its agent did not prove itself in %s: look at its console", s.Limits.Boot)
}

// Boot answers what a machine that asks the network gets. It is pxe's BootPolicy: it decides nothing that want has not
// decided, and it never waits.
func (m *Mind) Boot(asking pxe.Machine) (pxe.Answer, bool) {
	keys := m.evidence.find(macWord(asking.MAC.String()))
	for _, uuid := range asking.UUIDs() { // in both byte orders: firmware does not agree on one
		if len(keys) == 0 {
			keys = m.evidence.find(uuidWord(uuid))
		}
	}
	if len(keys) != 1 {
		return pxe.Answer{}, false
	}
	key := keys[0]
	v, ok := m.glance(key)
	if !ok {
		return pxe.Answer{}, false
	}
	answer := pxe.Answer{Host: key, Hostname: v.Host.Name}
	w := want(v)
	if w.Digest == "" {
		return answer, true
	}
	answer.Digest, answer.File = w.Digest, w.Boot+".efi"
	if asking.Boots() {
		m.asked.Store(key, metav1.NewTime(m.now()))
		m.lookAtHost(key)
	}
	return answer, true
}

// glance is a host's view from memory. It is shared: read it only.
func (m *Mind) glance(key string) (View, bool) {
	v := View{Progress: &v1alpha1.HostProgress{}, Inventory: &v1alpha1.HostInventory{}}
	var ok bool
	if v.Host, ok = m.hosts.get(key); !ok {
		return v, false
	}
	if p, ok := m.progress.get(key); ok && ownedBy(p, v.Host.UID) {
		v.Progress = p
	}
	if i, ok := m.inventories.get(key); ok && ownedBy(i, v.Host.UID) {
		v.Inventory = i
	}
	v.PausedBy = m.pausedBy(v.Host)
	return v, true
}
