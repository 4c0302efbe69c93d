// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/inventory"
)

// Claimant is the host that a machine claims to be, and what it must show for it.
type Claimant struct {
	Known    bool
	Host     v1alpha1.HostRef
	Epoch    int64
	PinnedEK string
	// NoTPM is a person's reason to let the host in without a TPM.
	NoTPM string
	// Refuse turns the machine away whatever it can prove.
	Refuse *v1alpha1.AgentError
}

// Identify finds the host that a machine claims to be: by the endorsement key it shows, else by system UUID, else by the
// MAC addresses of its ports. ekSHA256 is not proved yet. Evidence that points at two hosts is refused.
func (m *Mind) Identify(hello v1alpha1.Hello, ekSHA256 string) Claimant {
	var hosts, says []string // the hosts that are named, by the strongest evidence first, and what names each
	note := func(evidence, what string) {
		for _, key := range m.evidence.find(evidence) {
			if !slices.Contains(hosts, key) {
				hosts, says = append(hosts, key), append(says, what+" names "+key)
			}
		}
	}
	note(ekWord(ekSHA256), "its TPM")
	note(uuidWord(hello.SystemUUID), "its system UUID")
	for _, mac := range hello.MACs {
		note(macWord(mac), "MAC address "+mac)
	}
	if len(hosts) == 0 {
		return Claimant{}
	}
	c := m.claimant(hosts[0], hello)
	if len(hosts) == 1 {
		return c
	}
	c.Refuse = &v1alpha1.AgentError{Reason: "IdentityConflict",
		Message: "the machine shows evidence of two hosts: " + strings.Join(says, ", ") + "; both are left alone until a person sorts them out"}
	return c
}

func (m *Mind) claimant(key string, hello v1alpha1.Hello) Claimant {
	v, ok := m.glance(key)
	if !ok {
		return Claimant{}
	}
	c := Claimant{Known: true, Host: v.ref(), Epoch: v.epoch(), PinnedEK: v.identity().EKSHA256, NoTPM: v.Host.Annotations[v1alpha1.NoTPMAnnotation]}
	c.Refuse = m.admit(v, hello)
	return c
}

// admit answers why a machine may not open a session now, or nil. A boot is only believed if it was ordered: the proof of
// a TPM that is not pinned yet, or of a position, is worth nothing after the order's deadline.
func (m *Mind) admit(v View, hello v1alpha1.Hello) *v1alpha1.AgentError {
	order := v.Progress.Status.Boot
	answer := bootImage
	switch {
	case hello.Mode == v1alpha1.RamdiskMode:
		answer = bootRamdisk
	case hello.Slot != "":
		answer = bootDisk
	}
	refuse := func(text string, args ...any) *v1alpha1.AgentError {
		return &v1alpha1.AgentError{Reason: "NotOrdered", Message: fmt.Sprintf(text, args...)}
	}
	switch {
	case order == nil || order.Epoch != v.epoch():
		return refuse("host %s was not told to boot", v.Host.Name)
	case order.Answer != answer:
		return refuse("host %s was told to boot the %s, but an agent of the %s calls", v.Host.Name, order.Answer, answer)
	case !v.permits(order):
		return refuse("host %s was told to boot an image that is no longer deployed on it", v.Host.Name)
	case hello.Mode == v1alpha1.OSMode && hello.RootHash != v.Progress.Status.Deployment.RootHash:
		return refuse("host %s runs root hash %.16s…, deployed is %.16s…", v.Host.Name, hello.RootHash, v.Progress.Status.Deployment.RootHash)
	}
	known := v.identity().EKSHA256 != "" || v.agent().BootID == hello.BootID && v.agent().Epoch == v.epoch()
	if !known && m.now().After(order.Deadline.Time) {
		return refuse("host %s was told to boot, but the deadline for it has passed", v.Host.Name)
	}
	return nil
}

// Epoch is the present epoch of a host, or a NotFound error where the host is gone or another one has its name.
func (m *Mind) Epoch(host v1alpha1.HostRef) (int64, error) {
	v, ok := m.glance(host.Namespace + "/" + host.Name)
	if !ok || string(v.Host.UID) != host.UID {
		return 0, apierrors.NewNotFound(schema.GroupResource{Group: "metal3.io", Resource: "baremetalhosts"}, host.Name)
	}
	return v.epoch(), nil
}

// Caller is an agent that has proved itself.
type Caller struct {
	Host   v1alpha1.HostRef
	Epoch  int64
	Mode   string
	BootID string
	// IP is the address it calls from, on the provisioning network; it becomes the Node's.
	IP string
}

// Next blocks until there is work for an agent, or ctx ends: then the order is to wait.
func (m *Mind) Next(ctx context.Context, c Caller) (v1alpha1.Order, error) {
	host, epoch := c.Host, c.Epoch
	key := host.Namespace + "/" + host.Name
	ctx = inventory.WithHost(ctx, key)
	for {
		changed := m.wakes.wait(key)
		order := v1alpha1.Order{Message: v1alpha1.Message{HostUID: host.UID, Epoch: epoch, Step: v1alpha1.WaitStep}}
		s, err := m.view(ctx, host.Namespace, host.Name)
		if err != nil {
			return order, err
		}
		begin := s.begins(ctx)
		if string(s.Host.UID) != host.UID || s.epoch() != epoch {
			return order, nil // the desk's fence says the rest
		}
		stale, _, err := s.stale(ctx)
		if err != nil {
			return order, err
		}
		do := v1alpha1.WaitStep
		if !stale {
			do = nextOrder(s.View, c.Mode, c.BootID)
		}
		switch do {
		case v1alpha1.InspectStep:
			order.Step = v1alpha1.InspectStep
			return order, nil
		case v1alpha1.InstallStep:
			plan, err := s.installPlan(begin)
			if err != nil {
				m.log.Warn("planning an installation", "host", key, "err", err)
				s.tell(ctx, "Warning", "InstallNotPlanned", err.Error())
				break // the agent asks again
			}
			order.Step, order.Install = v1alpha1.InstallStep, plan
			return order, nil
		case v1alpha1.EraseStep:
			order.Step, order.Erase = v1alpha1.EraseStep, s.erasePlan()
			return order, nil
		case v1alpha1.JoinStep:
			seed, err := s.release(begin, c.BootID, c.IP)
			if err != nil {
				m.log.Warn("releasing a join seed", "host", key, "err", err)
				s.tell(ctx, "Warning", "SeedNotReleased", err.Error())
				break // the agent asks again
			}
			order.Step, order.Join = v1alpha1.JoinStep, seed
			return order, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return order, nil
		}
	}
}

// nextOrder is what a proved agent shall do now.
func nextOrder(v View, mode, bootID string) string {
	switch {
	case v.paused() || v.deleting():
	case mode == v1alpha1.RamdiskMode && row(v.state()).state == "inspecting" && v.agent().Inspected != v.epoch():
		if _, ended := v.result(v1alpha1.InspectStep); !ended {
			return v1alpha1.InspectStep
		}
	case mode == v1alpha1.RamdiskMode && v.mayInstall():
		if _, ended := v.result(v1alpha1.InstallStep); !ended {
			return v1alpha1.InstallStep
		}
	case mode == v1alpha1.RamdiskMode && v.state() == "deprovisioning" && v.agent().Facts == nil: // inspection was waived
		return v1alpha1.InspectStep
	case mode == v1alpha1.RamdiskMode && v.mayErase():
		if _, ended := v.result(v1alpha1.EraseStep); !ended {
			return v1alpha1.EraseStep
		}
	case mode == v1alpha1.OSMode && row(v.state()).orders(bootImage) && v.Progress.Status.Deployment != nil:
		if v.agent().BootID != bootID {
			break // another boot of this host has proved itself since
		}
		r, ended := v.result(v1alpha1.JoinStep)
		g := v.Progress.Status.Join
		sameBoot := g != nil && g.BootID == bootID && g.Epoch == v.epoch()
		if !ended || r.OK && !sameBoot {
			return v1alpha1.JoinStep
		}
	}
	return v1alpha1.WaitStep
}
