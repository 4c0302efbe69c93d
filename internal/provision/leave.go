// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/bmc"
)

// deprovision takes back what the host was given, stops it, and cleans it as its cleaning mode asks.
func (s *step) deprovision(ctx context.Context) outcome {
	if out := s.takeBack(ctx); out.err != nil && !s.deleting() {
		return out
	}
	if s.deleting() {
		return moved(Removed)
	}
	tctx, cancel := context.WithTimeout(ctx, bmcTimeout)
	defer cancel()
	c, err := s.controller(tctx)
	if err != nil {
		return s.bmcTrouble(ctx, metal3.ProvisioningError, err)
	}
	p, err := s.powered(tctx, c, 0)
	if err != nil {
		return s.bmcTrouble(ctx, metal3.ProvisioningError, err)
	}
	if p != bmc.Off {
		return s.switchOff(tctx, c, "the host was released")
	}
	if s.Host.Spec.AutomatedCleaningMode != metal3.CleaningModeDisabled {
		return heldBack("ErasePending", "an erase of its disks, which this version of metald cannot do",
			"delete the host, or set spec.automatedCleaningMode to disabled to reuse it unerased")
	}
	return moved(Cleaned)
}

// takeBack revokes the host's bootstrap credential and forgets its deployment.
func (s *step) takeBack(ctx context.Context) outcome {
	if d := s.Progress.Status.Deployment; d != nil {
		if err := s.revoke(ctx, d.Cluster); err != nil {
			return failed(metal3.ProvisioningError, fmt.Errorf("taking back the bootstrap credential: %w", err))
		}
	}
	p, err := s.Store.Progresses().Update(ctx, s.Host.Namespace, s.Host.Name, func(p *v1alpha1.HostProgress) error {
		p.Status.Deployment, p.Status.Join, p.Status.Boot = nil, nil, nil
		return nil
	})
	if err != nil {
		return failed(metal3.ProvisioningError, err)
	}
	s.Progress = p
	return content()
}

// deleteTries is how often a BMC that does not answer is asked before its host is let go all the same.
const deleteTries = 3

// stop switches a machine off that metald had switched on. A dead BMC holds up a deletion for three tries, not for ever.
func (s *step) stop(ctx context.Context) outcome {
	if !s.mayTouch() || s.Host.Spec.DisablePowerOff {
		return moved(Stopped)
	}
	tctx, cancel := context.WithTimeout(ctx, bmcTimeout)
	defer cancel()
	out := s.stopOnce(tctx)
	if out.err != nil && (out.person || s.Progress.Status.Attempts+1 >= deleteTries) {
		s.log.Warn("letting go of a host that could not be switched off", "host", s.key, "err", out.err)
		s.tell(ctx, "Warning", "PowerOffSkipped", "the host was let go while its power could not be switched: "+out.err.Error())
		return moved(Stopped)
	}
	return out
}

func (s *step) stopOnce(ctx context.Context) outcome {
	c, err := s.controller(ctx)
	if err != nil {
		return s.bmcTrouble(ctx, metal3.PowerManagementError, err)
	}
	p, err := s.powered(ctx, c, 0)
	if err != nil {
		return s.bmcTrouble(ctx, metal3.PowerManagementError, err)
	}
	if p != bmc.Off {
		return s.switchOff(ctx, c, "the host is being deleted")
	}
	return moved(Stopped)
}

// letGo ends the host: its companions first, then the finalizer that kept it.
func (s *step) letGo(ctx context.Context) outcome {
	if !s.deleting() {
		return stuck(metal3.ProvisioningError, "NotDeleted", errors.New("the host is in state deleting but nobody deleted it"), "delete the host")
	}
	if err := s.sweepAway(ctx, s.Host.Namespace, s.Host.Name); err != nil {
		return failed(metal3.ProvisioningError, fmt.Errorf("removing what belongs to the host: %w", err))
	}
	_, err := s.Store.Hosts().Update(ctx, s.Host.Namespace, s.Host.Name, func(h *metal3.BareMetalHost) error {
		h.Finalizers = slices.DeleteFunc(h.Finalizers, func(f string) bool { return f == v1alpha1.HostFinalizer })
		return nil
	})
	if err != nil {
		return failed(metal3.ProvisioningError, fmt.Errorf("removing the finalizer: %w", err))
	}
	s.bmcs.drop(s.key)
	s.log.Info("host let go", "host", s.key)
	return content()
}
