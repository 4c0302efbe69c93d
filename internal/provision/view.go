// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"strings"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"

	"metald.io/metald/api/v1alpha1"
)

// View is all that is known of one host at one moment. Nothing in it is nil, and functions over it touch nothing else.
type View struct {
	Host      *metal3.BareMetalHost
	Progress  *v1alpha1.HostProgress
	Inventory *v1alpha1.HostInventory
	// PausedBy is what pauses the host from above: its pool, or all of metald; empty where nothing does.
	PausedBy string
	// Unseen is since when the host waits to be looked at again because the inventory was restored from a backup; zero where it
	// does not. See restored.go.
	Unseen time.Time
}

// state is where the host is. The mind's own record is written first, so it wins over the host's status.
func (v View) state() State {
	if v.Progress.Status.State != "" {
		return State(v.Progress.Status.State)
	}
	return v.Host.Status.Provisioning.State
}

func (v View) epoch() int64 { return v.Progress.Status.Epoch }

func (v View) deleting() bool { return v.Host.DeletionTimestamp != nil }

// paused answers whether a person stopped all work on the host, on its pool, or on everything.
func (v View) paused() bool {
	_, paused := v.Host.Annotations[v1alpha1.PausedAnnotation]
	return paused || v.PausedBy != ""
}

// allPaused answers whether a person stopped all work on every host.
func (m *Mind) allPaused() bool { return m.everythingPaused.Load() }

// pausedBy names what pauses a host from above, from memory: stoppedBy asks the store.
func (m *Mind) pausedBy(h *metal3.BareMetalHost) string {
	if m.allPaused() {
		return everything
	}
	if c := h.Spec.ConsumerRef; c != nil && c.Kind == "NodePool" {
		if p, ok := m.pools.get(c.Namespace + "/" + c.Name); ok {
			if paused(p) {
				return "NodePool " + keyOf(p)
			}
		}
	}
	return ""
}

// taken answers whether a person allows a machine that was found running to be switched.
func (v View) taken() bool { return v.takenBy() != "" }

// takenBy is who allowed it, and why.
func (v View) takenBy() string { return v.Host.Annotations[v1alpha1.TakenAnnotation] }

// mayTouch answers whether metald may end what runs on the machine: it started it itself, or a person gave it over.
func (v View) mayTouch() bool { return v.epoch() > 0 || v.taken() }

// adopted answers whether the host runs something that metald leaves alone.
func (v View) adopted() bool { return v.Host.Spec.ExternallyProvisioned }

// inspectDisabled is inspect.metal3.io's older way to say spec.inspectionMode: disabled, which users still write.
const inspectDisabled = "disabled"

func (v View) inspectionWaived() bool {
	return v.Host.Spec.InspectionMode == metal3.InspectionModeDisabled ||
		v.Host.Annotations[metal3.InspectAnnotationPrefix] == inspectDisabled
}

// claimed answers whether somebody says what to run here.
func (v View) claimed() bool {
	return (v.Host.Spec.CustomDeploy != nil || v.Host.Spec.Image != nil) && v.Host.Spec.Online
}

// changedMind answers whether the host is no longer told to run what is deployed on it.
func (v View) changedMind(d *v1alpha1.Deployment) bool {
	if d.Install != nil && d.Install.Raw != nil {
		return v.Host.Spec.Image == nil || v.Host.Spec.Image.URL != d.Install.Raw.URL
	}
	return v.Host.Spec.CustomDeploy == nil
}

func (v View) agent() v1alpha1.AgentFacts {
	if v.Inventory.Status.Agent == nil {
		return v1alpha1.AgentFacts{}
	}
	return *v.Inventory.Status.Agent
}

func (v View) identity() v1alpha1.Identity {
	if v.Inventory.Status.Identity == nil {
		return v1alpha1.Identity{}
	}
	return *v.Inventory.Status.Identity
}

func (v View) bmc() v1alpha1.BMCFacts {
	if v.Inventory.Status.BMC == nil {
		return v1alpha1.BMCFacts{}
	}
	return *v.Inventory.Status.BMC
}

// reporting answers whether an agent of this mode has proved itself in this epoch.
func (v View) reporting(mode string) bool {
	a := v.agent()
	return v.epoch() > 0 && a.Epoch == v.epoch() && a.Mode == mode
}

// result answers how a step of this epoch ended, and false while it has not.
func (v View) result(step string) (v1alpha1.StepResult, bool) {
	for _, s := range v.agent().Steps {
		if s.Step == step && s.Epoch == v.epoch() {
			return s, true
		}
	}
	return v1alpha1.StepResult{}, false
}

// bootMAC is the address the host boots from, in lower case with colons.
func (v View) bootMAC() string { return strings.ToLower(v.Host.Spec.BootMACAddress) }

// nodeName is the Node's name in its cluster: the host's.
func (v View) nodeName() string { return v.Host.Name }

func (v View) ref() v1alpha1.HostRef {
	return v1alpha1.HostRef{Namespace: v.Host.Namespace, Name: v.Host.Name, UID: string(v.Host.UID)}
}

// since is when the state was entered.
func (v View) since() time.Time {
	if v.Progress.Status.Since == nil {
		return v.Host.CreationTimestamp.Time
	}
	return v.Progress.Status.Since.Time
}

// stalled answers whether the state is past its limit.
func (v View) stalled(now time.Time) bool {
	limit := row(v.state()).limit
	if sign := v.agent().ProgressAt; sign != nil && now.Sub(sign.Time) < stepPatience {
		return false // a long step that gets on
	}
	return limit > 0 && now.Sub(v.since()) > limit
}
