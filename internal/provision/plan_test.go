// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
)

// planned is a plan as lines: "kind: what [target]", destructive ones with a star.
func planned(acts []Act) []string {
	var lines []string
	for _, a := range acts {
		line := fmt.Sprintf("%s: %s", a.Kind, a.What)
		if a.Target != "" {
			line += " [" + a.Target + "]"
		}
		if a.Destructive {
			line = "* " + line
		}
		lines = append(lines, line)
	}
	return lines
}

func plannedView(change func(v *View)) View {
	v := View{Host: &metal3.BareMetalHost{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "n1"}}, Progress: &v1alpha1.HostProgress{}, Inventory: &v1alpha1.HostInventory{}}
	v.Host.Spec.BMC.Address = "ipmi://10.0.0.1"
	change(&v)
	return v
}

func inspected(v *View, partitions int) {
	v.Progress.Status.State, v.Progress.Status.Epoch = "available", 1
	v.Inventory.Status.Agent = &v1alpha1.AgentFacts{Mode: v1alpha1.RamdiskMode, Epoch: 1, Inspected: 1, Facts: &v1alpha1.HostFacts{
		Disks: []v1alpha1.DiskFacts{{Name: "sda", SerialNumber: "S1", SizeBytes: 100 << 30, Partitions: partitions}}}}
}

func TestPlan(t *testing.T) {
	pool := &v1alpha1.NodePool{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "workers"},
		Spec: v1alpha1.NodePoolSpec{Method: "install", Image: "node", Cluster: "prod"}}
	const network, disk = "bmc: set one-time boot from the network and read it back [ipmi://10.0.0.1]", "bmc: set one-time boot from its disk and read it back [ipmi://10.0.0.1]"
	const on = "power: On [ipmi://10.0.0.1]"
	const join = "cluster: make one bootstrap credential, approve one certificate request, label the Node [n1 in default/prod]"
	for name, c := range map[string]struct {
		view View
		plan func(View, World) []Act
		want []string
	}{
		"found running": {plannedView(func(v *View) {
			v.Host.Status.PoweredOn, v.Progress.Status.State = true, "inspecting"
		}), Plan, []string{"hold: the machine was found running and may be in use: metald host take n1 --reason TEXT"}},
		"new, for a pool that installs": {plannedView(func(*View) {}), Plan, []string{
			"bmc: pin the certificate where there is one, log in, read identity and power [ipmi://10.0.0.1]",
			network, on, "boot: the ramdisk; its agent proves the TPM and reports the hardware; nothing is written",
			"* write: image node: GPT, EFI system partition, slot a; slot b and state are laid out empty [the disk that spec.rootDeviceHints mean, once an inspection has seen the disks]",
			"power: ForceOff, to boot the disk [ipmi://10.0.0.1]", disk, on, "boot: the machine starts from its disk", join,
		}},
		"disks in use": {plannedView(func(v *View) { inspected(v, 2) }), Plan, []string{
			"hold: its disks hold partitions that metald did not make (/dev/sda (serial S1) (2 partitions)): metald host take n1 --reason TEXT"}},
		"paused": {plannedView(func(v *View) { inspected(v, 0); v.PausedBy = "all of metald" }), Plan, []string{"hold: paused by all of metald"}},
		"restored": {plannedView(func(v *View) { inspected(v, 0); v.Unseen = time.Unix(1, 0) }), Plan, []string{
			"bmc: look at it again, since the inventory was restored: the pinned machine must answer, and be off or run what is known; else it is left alone [ipmi://10.0.0.1]",
			network, on, "boot: the ramdisk",
			"* write: image node: GPT, EFI system partition, slot a; slot b and state are laid out empty [/dev/sda (serial S1)]",
			"power: ForceOff, to boot the disk [ipmi://10.0.0.1]", disk, on, "boot: the machine starts from its disk", join,
		}},
		"restored before it was registered": {plannedView(func(v *View) { v.Host.Spec.BMC.Address = ""; v.Unseen = time.Unix(1, 0) }), Plan, []string{
			"hold: no BMC is named: set spec.bmc"}},
		"inspected": {plannedView(func(v *View) { inspected(v, 0) }), Plan, []string{
			network, on, "boot: the ramdisk",
			"* write: image node: GPT, EFI system partition, slot a; slot b and state are laid out empty [/dev/sda (serial S1)]",
			"power: ForceOff, to boot the disk [ipmi://10.0.0.1]", disk, on, "boot: the machine starts from its disk", join,
		}},
		"released": {plannedView(func(v *View) {
			inspected(v, 0)
			v.Inventory.Status.Agent.Mode = v1alpha1.OSMode
			v.Host.Status.PoweredOn = true
			v.Progress.Status.State = "provisioned"
			v.Progress.Status.Join = &v1alpha1.JoinGrant{}
			v.Progress.Status.Deployment = &v1alpha1.Deployment{Cluster: "default/prod", Cleaning: v1alpha1.EraseFull}
		}), PlanRelease, []string{
			"cluster: cordon, then evict all pods but those of DaemonSets [n1]",
			"* power: ForceOff, the host was released [ipmi://10.0.0.1]",
			"cluster: take back the bootstrap credential, delete the Node [n1]",
			network, on, "boot: the ramdisk, to erase", "* erase: full [/dev/sda (serial S1)]",
			"power: ForceOff, it is available [ipmi://10.0.0.1]", "record: the host is available [n1]",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, planned(c.plan(c.view, World{Pool: pool}))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// What a plan says of a fresh host is what then happens to it.
func TestPlanIsWhatHappens(t *testing.T) {
	inWorld(t, func(w *world) {
		w.enrol()
		w.until("available", 1e12, inState(metal3.StateAvailable))
		v, ok := w.mind.Load().glance("default/n1")
		if !ok {
			t.Fatal("the host is not known")
		}
		pool := &v1alpha1.NodePool{Spec: v1alpha1.NodePoolSpec{Method: "install", Image: "node", Cluster: "prod"}}
		var writes int
		for _, a := range Plan(v, World{Pool: pool}) {
			if a.Kind == "write" && strings.Contains(a.Target, "D1") {
				writes++
			}
		}
		w.pool(toDisk)
		w.until("Ready", 1e12, isReady)
		if writes != 1 || w.rack.drive().writes != writes {
			t.Errorf("the plan named %d writes to disk D1, %d happened", writes, w.rack.drive().writes)
		}
	})
}
