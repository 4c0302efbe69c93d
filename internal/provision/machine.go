// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
)

// State is Metal3's word for where a host is in its life.
type State = metal3.ProvisioningState

// Event is what moves a host from one state to another; a past participle.
type Event string

// The events of a host's life.
const (
	Sighted   Event = "sighted"   // the host exists, but no BMC is named
	Enrolled  Event = "enrolled"  // a BMC and its credentials are named
	Verified  Event = "verified"  // the BMC is pinned, the credentials work, the identity is read
	Waived    Event = "waived"    // the same, and no inspection is wanted
	Adopted   Event = "adopted"   // the host runs something that metald leaves alone
	Inspected Event = "inspected" // the agent has reported what the host is
	Prepared  Event = "prepared"  // nothing is left to do before a claim
	Doubted   Event = "doubted"   // a person asks for a new inspection
	Claimed   Event = "claimed"   // a pool or a user says what to run
	Joined    Event = "joined"    // the host runs it, and the cluster calls it Ready
	Released  Event = "released"  // nobody says any more what to run
	Cleaned   Event = "cleaned"   // what the cleaning mode asks for is done
	Returned  Event = "returned"  // an adopted host is given over to metald
	Removed   Event = "removed"   // the object is being deleted
	Renewed   Event = "renewed"   // a person wants the host's disk written anew
	Stopped   Event = "stopped"   // the machine is off, or is given up on
)

// power is what a state wants of a machine's power.
type power string

const (
	untouched power = "untouched"
	on        power = "on"
	off       power = "off"
	asAsked   power = "as spec.online"
	asNeeded  power = "as its work needs"
)

// Boot answers: what a machine is told to boot. It gets a file for the first two when it asks the network.
const (
	bootNone    = "none"
	bootRamdisk = "ramdisk"
	bootImage   = "image"
	bootDisk    = "disk"
)

type stateRow struct {
	state State
	// limit is how long a host may stay before condition Stalled; 0 where a host may stay for ever.
	limit time.Duration
	power power
	// boots are the answers that the state's work may order, none where there is none.
	boots []string
	// work is what happens inside, for a person.
	work string
}

// states is every state with what it wants. A state that is missing here does not exist.
var states = []stateRow{
	{metal3.StateNone, time.Minute, untouched, nil, "seen for the first time"},
	{metal3.StateUnmanaged, 0, untouched, nil, "no BMC is named yet"},
	{metal3.StateRegistering, 15 * time.Minute, untouched, nil, "dial the BMC, pin its certificate, verify the credentials, read its identity"},
	{metal3.StateInspecting, 45 * time.Minute, on, []string{bootRamdisk}, "boot the ramdisk, prove the TPM, report the hardware"},
	{metal3.StatePreparing, 15 * time.Minute, untouched, nil, "settle what must hold before a claim"},
	{metal3.StateAvailable, 0, asAsked, []string{bootRamdisk}, "fit to be claimed"},
	{metal3.StateProvisioning, 60 * time.Minute, on, []string{bootRamdisk, bootImage, bootDisk}, "write the image to disk or boot it from the network, release the seed, join the cluster"},
	{metal3.StateProvisioned, 0, asAsked, []string{bootImage, bootDisk}, "running; condition Ready follows the node"},
	{metal3.StateExternallyProvisioned, 0, asAsked, nil, "adopted, untouched"},
	{metal3.StateDeprovisioning, 60 * time.Minute, asNeeded, []string{bootRamdisk}, "drain and remove the node, take back credentials, stop, erase"},
	{metal3.StatePoweringOffBeforeDelete, 10 * time.Minute, off, nil, "stop the machine before letting go"},
	{metal3.StateDeleting, 5 * time.Minute, untouched, nil, "let go"},
}

type transitionRow struct {
	from State
	on   Event
	to   State
	why  string
}

// transitions is every way from one state to the next. An event that is not listed for a state is recorded, never obeyed.
var transitions = []transitionRow{
	{metal3.StateNone, Sighted, metal3.StateUnmanaged, "without a BMC there is nothing to do but wait"},
	{metal3.StateNone, Enrolled, metal3.StateRegistering, "a BMC is named"},
	{metal3.StateNone, Removed, metal3.StateDeleting, "nothing was ever touched"},
	{metal3.StateUnmanaged, Enrolled, metal3.StateRegistering, "a BMC is named at last"},
	{metal3.StateUnmanaged, Removed, metal3.StateDeleting, "nothing was ever touched"},
	{metal3.StateRegistering, Verified, metal3.StateInspecting, "we know whom we talk to"},
	{metal3.StateRegistering, Waived, metal3.StatePreparing, "inspection is disabled"},
	{metal3.StateRegistering, Adopted, metal3.StateExternallyProvisioned, "externallyProvisioned is set"},
	{metal3.StateRegistering, Removed, metal3.StateDeleting, "nothing was switched yet"},
	{metal3.StateInspecting, Inspected, metal3.StatePreparing, "the agent has reported"},
	{metal3.StateInspecting, Removed, metal3.StatePoweringOffBeforeDelete, "the ramdisk may be running"},
	{metal3.StatePreparing, Prepared, metal3.StateAvailable, "nothing is left to do"},
	{metal3.StatePreparing, Removed, metal3.StatePoweringOffBeforeDelete, "the ramdisk may be running"},
	{metal3.StateAvailable, Claimed, metal3.StateProvisioning, "customDeploy says how, and the host is online"},
	{metal3.StateAvailable, Doubted, metal3.StateInspecting, "inspect.metal3.io asks for it"},
	{metal3.StateAvailable, Adopted, metal3.StateExternallyProvisioned, "externallyProvisioned is set"},
	{metal3.StateAvailable, Removed, metal3.StatePoweringOffBeforeDelete, "the machine may be on"},
	{metal3.StateProvisioning, Joined, metal3.StateProvisioned, "the cluster calls the node Ready"},
	{metal3.StateProvisioning, Released, metal3.StateDeprovisioning, "the claim was taken back"},
	{metal3.StateProvisioning, Removed, metal3.StateDeprovisioning, "what was begun is undone first"},
	{metal3.StateProvisioned, Released, metal3.StateDeprovisioning, "the claim was taken back"},
	{metal3.StateProvisioned, Renewed, metal3.StateProvisioning, "a person wants its disk written anew"},
	{metal3.StateProvisioned, Removed, metal3.StateDeprovisioning, "what runs is stopped first"},
	{metal3.StateExternallyProvisioned, Returned, metal3.StateInspecting, "externallyProvisioned was cleared"},
	{metal3.StateExternallyProvisioned, Removed, metal3.StateDeleting, "an adopted machine is left running"},
	{metal3.StateDeprovisioning, Cleaned, metal3.StateAvailable, "the cleaning mode is satisfied"},
	{metal3.StateDeprovisioning, Removed, metal3.StatePoweringOffBeforeDelete, "credentials are taken back"},
	{metal3.StatePoweringOffBeforeDelete, Stopped, metal3.StateDeleting, "the machine is off, or its BMC is given up on"},
}

// orders answers whether a state's work may order this answer.
func (r stateRow) orders(answer string) bool { return slices.Contains(r.boots, answer) }

// row answers a state's row; an unknown state behaves like the first, which touches nothing.
func row(s State) stateRow {
	if s == metal3.StateReady {
		s = metal3.StateAvailable // Metal3's older word for it
	}
	for _, r := range states {
		if r.state == s {
			return r
		}
	}
	return states[0]
}

// follow answers where an event leads from a state, and false if it leads nowhere.
func follow(from State, e Event) (State, bool) {
	for _, t := range transitions {
		if t.from == from && t.on == e {
			return t.to, true
		}
	}
	return "", false
}

// Drawing is the life of a host as a Mermaid state diagram; ARCHITECTURE.md holds the same text.
func Drawing() string {
	name := func(s State) string {
		if s == metal3.StateNone {
			return "[*]"
		}
		return strings.ReplaceAll(string(s), " ", "_")
	}
	var b strings.Builder
	b.WriteString("stateDiagram-v2\n")
	for _, r := range states[1:] {
		limit := "may stay"
		if r.limit > 0 {
			limit = fmt.Sprintf("at most %s", strings.TrimSuffix(r.limit.String(), "0s"))
		}
		fmt.Fprintf(&b, "    %s: %s (%s; power %s; boot %s)\n", name(r.state), r.state, limit, r.power, cmp.Or(strings.Join(r.boots, " or "), bootNone))
	}
	for _, t := range transitions {
		fmt.Fprintf(&b, "    %s --> %s: %s\n", name(t.from), name(t.to), t.on)
	}
	fmt.Fprintf(&b, "    %s --> [*]\n", name(metal3.StateDeleting))
	return b.String()
}
