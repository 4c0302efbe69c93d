// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"slices"
	"strings"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
)

// hostView is one line of `metald status`, and one item of its JSON. The API's own objects say the same in more words; this is
// what scripts may hold on to.
type hostView struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        viewMeta `json:"metadata"`
	// BMC is the address as it was given.
	BMC     string `json:"bmc"`
	BootMAC string `json:"bootMAC,omitempty"`
	// Power is On, Off or Unknown.
	Power string `json:"power"`
	// State is Metal3's provisioning state, "" for a host that nothing was done for yet.
	State  string       `json:"state"`
	Since  *metav1.Time `json:"since,omitempty"`
	Paused bool         `json:"paused,omitempty"`
	// PausedBy says who paused the host, its pool or everything, and why.
	PausedBy string `json:"pausedBy,omitempty"`
	// Waiting is what the host waits for, nil where for nothing.
	Waiting *v1alpha1.Waiting `json:"waiting,omitempty"`
	Stalled bool              `json:"stalled,omitempty"`
	Error   string            `json:"error,omitempty"`
	Epoch   int64             `json:"epoch,omitempty"`
	Pool    string            `json:"pool,omitempty"`
	Image   string            `json:"image,omitempty"`
	// Disk is what metald wrote or writes to; Slot is the slot of it that runs.
	Disk *viewDisk `json:"disk,omitempty"`
	Slot string    `json:"slot,omitempty"`
	// Step is how far a long step is; nil where none is under way.
	Step    *viewStep         `json:"step,omitempty"`
	Leaving *v1alpha1.Leaving `json:"leaving,omitempty"`
	// Erase is the last erase of the host's drives.
	Erase *v1alpha1.Erase `json:"erase,omitempty"`
	// Node is the Node's name once it has joined; NodeReady is what the cluster says of it.
	Node       string             `json:"node,omitempty"`
	NodeReady  bool               `json:"nodeReady"`
	Ready      bool               `json:"ready"`
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	Phases     []v1alpha1.Phase   `json:"phases,omitempty"`
}

type viewMeta struct {
	Name      string            `json:"name"`
	Namespace string            `json:"namespace"`
	UID       string            `json:"uid,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
}

// view brings together what the API says of one host; progress is nil while the mind has not met it.
func view(h *metal3.BareMetalHost, progress *v1alpha1.HostProgress) hostView {
	v := hostView{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "HostStatus"},
		Metadata:   viewMeta{Name: h.Name, Namespace: h.Namespace, UID: string(h.UID), Labels: h.Labels},
		BMC:        h.Spec.BMC.Address,
		BootMAC:    h.Spec.BootMACAddress,
		Power:      power(h),
		State:      string(h.Status.Provisioning.State),
		Stalled:    meta.IsStatusConditionTrue(h.Status.Conditions, v1alpha1.StalledCondition),
		Error:      h.Status.ErrorMessage,
		Pool:       h.Labels[v1alpha1.PoolLabel],
		NodeReady:  meta.IsStatusConditionTrue(h.Status.Conditions, v1alpha1.JoinedCondition),
		Ready:      meta.IsStatusConditionTrue(h.Status.Conditions, metal3.ReadyCondition),
		Conditions: h.Status.Conditions,
	}
	v.hold(pausedWhy(h.Annotations))
	if progress != nil {
		p := progress.Status
		v.Since, v.Waiting, v.Epoch, v.Phases = p.Since, p.Waiting, p.Epoch, p.Phases
		v.Error = cmp.Or(v.Error, p.LastError)
		if p.Deployment != nil {
			v.Image = p.Deployment.Image
			v.Pool = cmp.Or(p.Deployment.Pool, v.Pool)
			v.Disk = diskOf(p.Deployment.Install)
		}
		v.Leaving, v.Erase = p.Leaving, p.Erase
		// A Node that left Ready stays shown, with its state: a host that was joined once has it for good.
		if v.NodeReady || p.Join != nil && p.Join.Approved != "" {
			v.Node = h.Name
		}
	} else if v.NodeReady {
		v.Node = h.Name
	}
	return v
}

// hold notes a pause.
func (v *hostView) hold(why string) { v.Paused, v.PausedBy = why != "", why }

// power is what the BMC last said. Before its first answer the API's false means nothing.
func power(h *metal3.BareMetalHost) string {
	switch {
	case h.Status.GoodCredentials.Version == "" && h.Status.GoodCredentials.Reference == nil && !h.Status.PoweredOn:
		return "Unknown"
	case h.Status.PoweredOn:
		return "On"
	}
	return "Off"
}

func sortHosts(hosts []metal3.BareMetalHost) {
	slices.SortFunc(hosts, func(a, b metal3.BareMetalHost) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
}

// until says how much of a wait is left: "4m", or "over by 2m".
func until(deadline *metav1.Time, now time.Time) string {
	if deadline == nil {
		return ""
	}
	left := deadline.Sub(now)
	if left < 0 {
		return "over by " + short(-left)
	}
	return "in " + short(left)
}

func since(t *metav1.Time, now time.Time) string {
	if t == nil {
		return ""
	}
	return short(now.Sub(t.Time))
}
