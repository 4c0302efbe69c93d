// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"fmt"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
)

// writeStatus makes a BareMetalHost's status from the view and from how the last step went. It is the only place that does.
func writeStatus(v View, out outcome, now time.Time) {
	st := &v.Host.Status
	state := v.state()
	st.Provisioning.State = state
	if st.Provisioning.ID == "" && state != metal3.StateNone && state != metal3.StateUnmanaged {
		st.Provisioning.ID = string(v.Host.UID)
	}
	if d := v.Progress.Status.Deployment; d != nil {
		st.Provisioning.CustomDeploy, st.Provisioning.Image = nil, metal3.Image{}
		if d.Method != "" {
			st.Provisioning.CustomDeploy = &metal3.CustomDeploy{Method: d.Method}
		} else if v.Host.Spec.Image != nil && d.Install != nil && d.Install.Written != nil {
			st.Provisioning.Image = *v.Host.Spec.Image
		}
		if d.Install != nil {
			st.Provisioning.RootDeviceHints = v.Host.Spec.RootDeviceHints
		}
		st.Provisioning.BootMode = metal3.UEFI
	} else {
		st.Provisioning.CustomDeploy, st.Provisioning.Image, st.Provisioning.RootDeviceHints = nil, metal3.Image{}, nil
	}
	switch {
	case out.err != nil:
		st.OperationalStatus, st.ErrorType = metal3.OperationalStatusError, out.errType
		st.ErrorMessage = out.err.Error()
		st.ErrorCount = max(v.Progress.Status.Attempts, 1)
	case state == metal3.StateUnmanaged:
		st.OperationalStatus = metal3.OperationalStatusDiscovered
		clearError(st)
	default:
		st.OperationalStatus = metal3.OperationalStatusOK
		clearError(st)
	}
	writeHistory(v)
	all := conditions(v, out, now)
	if v.looksFirst() {
		all = append(all, unseen(v))
	} else {
		meta.RemoveStatusCondition(&st.Conditions, v1alpha1.ObservedCondition)
	}
	for _, c := range all {
		c.ObservedGeneration = v.Host.Generation
		if c.LastTransitionTime.IsZero() {
			c.LastTransitionTime = metav1.NewTime(now)
		}
		meta.SetStatusCondition(&st.Conditions, c)
	}
}

func clearError(st *metal3.BareMetalHostStatus) {
	st.ErrorType, st.ErrorMessage, st.ErrorCount = "", "", 0
}

// writeHistory repeats the timed phases in Metal3's four operations.
func writeHistory(v View) {
	h := &v.Host.Status.OperationHistory
	for _, ph := range v.Progress.Status.Phases {
		var op *metal3.OperationMetric
		switch State(ph.Name) {
		case metal3.StateRegistering:
			op = &h.Register
		case metal3.StateInspecting:
			op = &h.Inspect
		case metal3.StateProvisioning:
			op = &h.Provision
		case metal3.StateDeprovisioning:
			op = &h.Deprovision
		default:
			continue
		}
		op.Start, op.End = ph.Start, metav1.Time{}
		if ph.End != nil {
			op.End = *ph.End
		}
	}
}

// condition is one condition before its time is known.
func condition(kind string, status bool, reason, message string) metav1.Condition {
	c := metav1.Condition{Type: kind, Status: metav1.ConditionFalse, Reason: reason, Message: message}
	if status {
		c.Status = metav1.ConditionTrue
	}
	return c
}

// conditions says of a host what Metal3's users look for, and three things of our own.
func conditions(v View, out outcome, now time.Time) []metav1.Condition {
	state := v.state()
	waitText := ""
	if w := v.Progress.Status.Waiting; w != nil {
		waitText = "waits for " + w.For
		if w.Action != "" {
			waitText += "; next: " + w.Action
		}
	}
	return []metav1.Condition{
		manageable(v, out, waitText),
		provisionedCondition(state, waitText),
		ready(v, out),
		available(state),
		progressing(state, waitText),
		condition(metal3.HealthyCondition, false, metal3.UnknownHealthReason, "health is not judged yet"),
		stalledCondition(v, now, waitText),
		attested(v),
		erased(v),
		joined(v),
	}
}

func manageable(v View, out outcome, waitText string) metav1.Condition {
	switch {
	case v.state() == metal3.StateNone, v.state() == metal3.StateUnmanaged:
		return condition(metal3.ManageableCondition, false, metal3.NotManagedReason, waitText)
	case out.err != nil && out.errType == metal3.RegistrationError:
		return condition(metal3.ManageableCondition, false, metal3.RegistrationFailedReason, waitText)
	case out.err != nil && out.errType == metal3.PowerManagementError:
		return condition(metal3.ManageableCondition, false, metal3.PowerFailureReason, waitText)
	case v.state() == metal3.StateRegistering:
		return condition(metal3.ManageableCondition, false, metal3.RegisteringReason, waitText)
	}
	return condition(metal3.ManageableCondition, true, metal3.ManageableReason, "")
}

func provisionedCondition(state State, waitText string) metav1.Condition {
	switch state {
	case metal3.StateProvisioned, metal3.StateExternallyProvisioned:
		return condition(metal3.ProvisionedCondition, true, metal3.ProvisionedReason, "")
	case metal3.StateProvisioning:
		return condition(metal3.ProvisionedCondition, false, metal3.ProvisioningReason, waitText)
	}
	return condition(metal3.ProvisionedCondition, false, metal3.NotProvisionedReason, "")
}

// ready is true only when the host does its work: it is provisioned, and where it joined a cluster, its Node is Ready.
func ready(v View, out outcome) metav1.Condition {
	node := joined(v)
	switch {
	case out.err != nil:
		return condition(metal3.ReadyCondition, false, metal3.ErrorReason, out.err.Error())
	case v.state() == metal3.StateExternallyProvisioned:
		return condition(metal3.ReadyCondition, true, metal3.ProvisionedReason, "adopted")
	case v.state() != metal3.StateProvisioned:
		return condition(metal3.ReadyCondition, false, metal3.NotProvisionedReason, "state is "+name(v.state()))
	case node.Reason == "NoCluster" && v.Progress.Status.Waiting == nil:
		return condition(metal3.ReadyCondition, true, metal3.ProvisionedReason, node.Message)
	case node.Status != metav1.ConditionTrue:
		return condition(metal3.ReadyCondition, false, node.Reason, node.Message)
	}
	return condition(metal3.ReadyCondition, true, metal3.ProvisionedReason, node.Message)
}

func available(state State) metav1.Condition {
	switch state {
	case metal3.StateAvailable:
		return condition(metal3.AvailableForProvisioningCondition, true, metal3.AvailableReason, "")
	case metal3.StateInspecting:
		return condition(metal3.AvailableForProvisioningCondition, false, metal3.InspectingReason, "")
	case metal3.StateNone, metal3.StateUnmanaged, metal3.StateRegistering:
		return condition(metal3.AvailableForProvisioningCondition, false, metal3.NotManageableReason, "")
	}
	return condition(metal3.AvailableForProvisioningCondition, false, metal3.NotAvailableReason, "state is "+name(state))
}

var progressReasons = map[State]string{
	metal3.StateRegistering:             metal3.RegisteringReason,
	metal3.StateInspecting:              metal3.InspectingReason,
	metal3.StatePreparing:               metal3.PreparingReason,
	metal3.StateProvisioning:            metal3.ProvisioningReason,
	metal3.StateDeprovisioning:          metal3.DeprovisioningReason,
	metal3.StatePoweringOffBeforeDelete: metal3.PoweringOffBeforeDeleteReason,
	metal3.StateDeleting:                metal3.DeletingReason,
}

func progressing(state State, waitText string) metav1.Condition {
	if reason, ok := progressReasons[state]; ok {
		return condition(metal3.ProgressingCondition, true, reason, waitText)
	}
	return condition(metal3.ProgressingCondition, false, metal3.NotProgressingReason, waitText)
}

func stalledCondition(v View, now time.Time, waitText string) metav1.Condition {
	w := v.Progress.Status.Waiting
	switch {
	case v.stalled(now):
		return condition(v1alpha1.StalledCondition, true, "StateLimit",
			fmt.Sprintf("in %s since %s, longer than its limit of %s; %s", name(v.state()),
				v.since().UTC().Format(time.RFC3339), row(v.state()).limit, waitText))
	case w != nil && w.Until == nil && w.Action != "":
		return condition(v1alpha1.StalledCondition, true, w.Reason, waitText)
	}
	return condition(v1alpha1.StalledCondition, false, "OnItsWay", "")
}

// attested tells whether the machine that reports is the one that was pinned.
func attested(v View) metav1.Condition {
	a, id := v.agent(), v.identity()
	switch {
	case a.Refusal != nil:
		return condition(v1alpha1.AttestedCondition, false, a.Refusal.Reason, a.Refusal.Message)
	case a.Proof == "tpm" && id.EKSHA256 != "" && a.EKSHA256 == id.EKSHA256:
		return condition(v1alpha1.AttestedCondition, true, "TPM", fmt.Sprintf("TPM with endorsement key %.16s… proved itself", id.EKSHA256))
	case a.Proof == "position":
		return condition(v1alpha1.AttestedCondition, false, "NoTPM",
			"proved by position only; exempted: "+v.Host.Annotations[v1alpha1.NoTPMAnnotation])
	}
	return condition(v1alpha1.AttestedCondition, false, "NotYet", "no agent has proved itself")
}
