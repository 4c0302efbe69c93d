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
	"metald.io/metald/internal/bmc"
	"metald.io/metald/internal/inventory"
	"metald.io/metald/internal/inventory/audit"
)

const (
	// drainTimeout is how long pods may take to leave where the pool does not say.
	drainTimeout = 10 * time.Minute
	// drainAgain is how often a Node that is being drained is asked who is still there.
	drainAgain = 5 * time.Second
	// eraseTries is how often a failed erase is tried again before a person must look.
	eraseTries = 3
)

// deprovision takes a host out of its cluster, takes back what it was given, stops it, and erases it as its cleaning mode
// asks. Each part is noted when it is done, so a restart goes on where it was.
func (s *step) deprovision(ctx context.Context) outcome {
	if done, out := s.vacate(ctx); !done {
		return out
	}
	if out := s.takeBack(ctx); out.err != nil && !s.deleting() {
		return out
	}
	if !s.deleting() {
		if done, out := s.halt(ctx); !done {
			return out
		}
	}
	if out := s.removeNode(ctx); out.waiting != nil || out.err != nil {
		return out
	}
	if out := s.forgetDeployment(ctx); out.err != nil {
		return out
	}
	if s.deleting() {
		return moved(Removed)
	}
	if done, out := s.erase(ctx); !done {
		return out
	}
	p, err := s.Store.Progresses().Update(ctx, s.Host.Namespace, s.Host.Name, func(p *v1alpha1.HostProgress) error {
		p.Status.Leaving, p.Status.Boot = nil, nil
		return nil
	})
	if err != nil {
		return failed(metal3.ProvisioningError, err)
	}
	s.Progress = p
	return moved(Cleaned)
}

// changeLeaving writes the record of a host's way out, and makes it where there is none yet.
func (s *step) changeLeaving(ctx context.Context, change func(*v1alpha1.Leaving)) error {
	p, err := s.Store.Progresses().Update(ctx, s.Host.Namespace, s.Host.Name, func(p *v1alpha1.HostProgress) error {
		if p.Status.Leaving == nil {
			now := s.now()
			p.Status.Leaving = &v1alpha1.Leaving{Since: metav1.NewTime(now), DrainUntil: metav1.NewTime(now.Add(s.drainTimeout())), Cleaning: s.cleaning()}
		}
		change(p.Status.Leaving)
		return nil
	})
	if err == nil {
		s.Progress = p
	}
	return err
}

func (s *step) drainTimeout() time.Duration {
	if d := s.Progress.Status.Deployment; d != nil {
		if pool, ok := s.pools.get(d.Pool); ok && pool.Spec.DrainTimeout != nil {
			return pool.Spec.DrainTimeout.Duration
		}
	}
	return drainTimeout
}

// cleaning is what the host's deployment asked for when it was claimed; without one what Metal3's field says.
func (v View) cleaning() string {
	if d := v.Progress.Status.Deployment; d != nil && d.Cleaning != "" {
		return d.Cleaning
	}
	return first(string(v.Host.Spec.AutomatedCleaningMode), string(metal3.CleaningModeMetadata))
}

// vacate closes the host's Node to new pods and lets those on it go elsewhere, until its time is up. done is true when
// nothing is left to wait for.
func (s *step) vacate(ctx context.Context) (done bool, out outcome) {
	l := s.Progress.Status.Leaving
	if l == nil {
		if err := s.changeLeaving(ctx, func(*v1alpha1.Leaving) {}); err != nil {
			return false, failed(metal3.ProvisioningError, err)
		}
		l = s.Progress.Status.Leaving
	}
	if l.Drained != nil {
		return true, outcome{}
	}
	var left []string
	var err error
	if s.hasNode() && s.runsItsNode() {
		left, err = s.drain(ctx, l)
	}
	over := !s.now().Before(l.DrainUntil.Time)
	switch {
	case stoppedNow(err):
		return false, s.pause(s.stopped.by)
	case err == nil && len(left) == 0:
	case over && err != nil:
		left = append(left, "its cluster could not be asked: "+err.Error())
	case over:
	case err != nil:
		return false, awaits("cluster "+s.Progress.Status.Deployment.Cluster+" to answer, to drain node "+s.nodeName()+": "+err.Error(), "Draining",
			l.DrainUntil.Time, "", drainAgain)
	default:
		return false, awaits(fmt.Sprintf("%d pod(s) to leave node %s: %s", len(left), s.nodeName(), left[0]), "Draining", l.DrainUntil.Time, "", drainAgain)
	}
	if len(left) > 0 {
		s.log.Warn("node was not empty when its time was up", "host", s.key, "left", left)
		s.tell(ctx, "Warning", "DrainTimedOut", fmt.Sprintf("left behind: %v", left))
	}
	if s.Progress.Status.Leaving.Cordoned != nil {
		ctx = inventory.WithAct(ctx, s.key, s.draining(audit.Done, left))
	}
	err = s.changeLeaving(ctx, func(l *v1alpha1.Leaving) {
		now := metav1.NewTime(s.now())
		l.Drained, l.LeftBehind = &now, left
	})
	if err != nil {
		return false, failed(metal3.ProvisioningError, err)
	}
	return true, outcome{}
}

// hasNode answers whether the host has, or may have, a Node in a cluster that still is one of ours.
func (s *step) hasNode() bool {
	d := s.Progress.Status.Deployment
	if d == nil || d.Cluster == "" {
		return false
	}
	if _, ok := s.clusters.get(d.Cluster); !ok {
		return false // nobody can be asked any more
	}
	return s.Progress.Status.Join != nil
}

// runsItsNode answers whether anybody is there to end pods in order. Those of a machine that is off, or that refused its
// image, are ended already; the cluster learns it when the Node is deleted.
func (s *step) runsItsNode() bool {
	a := s.agent()
	return s.Host.Status.PoweredOn && a.Mode == v1alpha1.OSMode && a.Epoch == s.epoch()
}

func (s *step) drain(ctx context.Context, l *v1alpha1.Leaving) ([]string, error) {
	f := s.follows.get(s.Progress.Status.Deployment.Cluster)
	if f == nil {
		return nil, errors.New("it is away")
	}
	ctx, cancel := context.WithTimeout(ctx, bmcTimeout)
	defer cancel()
	if _, ok := f.node(s.nodeName()); !ok {
		return nil, nil
	}
	if l.Cordoned == nil {
		if err := f.cluster.Cordon(ctx, s.nodeName(), s.hostLabel(), true); err != nil {
			return nil, err
		}
		announced := inventory.WithAct(ctx, s.key, s.draining(audit.Intent, nil))
		if err := s.changeLeaving(announced, func(l *v1alpha1.Leaving) { now := metav1.NewTime(s.now()); l.Cordoned = &now }); err != nil {
			return nil, err
		}
	}
	return f.cluster.Drain(ctx, s.nodeName(), s.hostLabel(), l.DrainUntil.Time)
}

// removeNode deletes the host's Node. A cluster that is away holds it up until the drain's time is over; a Node that then
// is left is named in an Event.
func (s *step) removeNode(ctx context.Context) outcome {
	l := s.Progress.Status.Leaving
	if l == nil || l.Removed != nil {
		return outcome{}
	}
	if s.hasNode() {
		err := errors.New("it is away")
		if f := s.follows.get(s.Progress.Status.Deployment.Cluster); f != nil {
			tctx, cancel := context.WithTimeout(ctx, bmcTimeout)
			defer cancel()
			err = f.cluster.DeleteNode(tctx, s.nodeName(), s.hostLabel())
		}
		switch {
		case err == nil:
		case stoppedNow(err):
			return s.pause(s.stopped.by)
		case s.now().Before(l.DrainUntil.Time):
			return awaits("cluster "+s.Progress.Status.Deployment.Cluster+" to answer, to delete node "+s.nodeName()+": "+err.Error(), "Draining",
				l.DrainUntil.Time, "", drainAgain)
		default:
			s.log.Warn("node is left behind", "host", s.key, "err", err)
			s.tell(ctx, "Warning", "NodeLeftBehind", "the host goes on without its Node being deleted: "+err.Error())
		}
	}
	if err := s.changeLeaving(ctx, func(l *v1alpha1.Leaving) { now := metav1.NewTime(s.now()); l.Removed = &now }); err != nil {
		return failed(metal3.ProvisioningError, err)
	}
	return outcome{}
}

// halt switches the machine off, once: the ramdisk that erases it is switched on later.
func (s *step) halt(ctx context.Context) (done bool, out outcome) {
	if s.Progress.Status.Leaving.Stopped != nil {
		return true, outcome{}
	}
	ctx, cancel := context.WithTimeout(ctx, bmcTimeout)
	defer cancel()
	c, err := s.controller(ctx)
	if err != nil {
		return false, s.bmcTrouble(ctx, metal3.ProvisioningError, err)
	}
	p, err := s.powered(ctx, c, 0)
	if err != nil {
		return false, s.bmcTrouble(ctx, metal3.ProvisioningError, err)
	}
	if p != bmc.Off {
		return false, s.switchOff(ctx, c, "the host was released")
	}
	if err := s.changeLeaving(ctx, func(l *v1alpha1.Leaving) { now := metav1.NewTime(s.now()); l.Stopped = &now }); err != nil {
		return false, failed(metal3.ProvisioningError, err)
	}
	return true, outcome{}
}

// takeBack revokes the host's bootstrap credential.
func (s *step) takeBack(ctx context.Context) outcome {
	d := s.Progress.Status.Deployment
	if d == nil || s.Progress.Status.Join == nil {
		return outcome{}
	}
	if err := s.revoke(ctx, d.Cluster); err != nil {
		return failed(metal3.ProvisioningError, fmt.Errorf("taking back the bootstrap credential: %w", err))
	}
	return outcome{}
}

// forgetDeployment ends what the host was told to run.
func (s *step) forgetDeployment(ctx context.Context) outcome {
	if s.Progress.Status.Deployment == nil && s.Progress.Status.Join == nil {
		return outcome{}
	}
	p, err := s.Store.Progresses().Update(ctx, s.Host.Namespace, s.Host.Name, func(p *v1alpha1.HostProgress) error {
		p.Status.Deployment, p.Status.Join, p.Status.Boot = nil, nil, nil
		return nil
	})
	if err != nil {
		return failed(metal3.ProvisioningError, err)
	}
	s.Progress = p
	return outcome{}
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
	if s.stopped != nil {
		return out
	}
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
