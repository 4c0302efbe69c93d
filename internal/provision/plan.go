// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"cmp"
	"fmt"
	"strings"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"

	"metald.io/metald/api/v1alpha1"
)

// Act is one thing that metald would do to a host, or what keeps it from doing more.
type Act struct {
	// Kind is bmc, power, boot, write, erase, cluster, record, or hold: then nothing after it happens until somebody acts.
	Kind string `json:"kind"`
	What string `json:"what"`
	// Target is the disk, Node or BMC that it happens to.
	Target string `json:"target,omitempty"`
	// Destructive acts end something that runs, or overwrite something; they count against the cap.
	Destructive bool `json:"destructive,omitempty"`
}

// World is what a plan needs beyond the host itself; nil where there is none.
type World struct {
	Pool  *v1alpha1.NodePool
	Image *v1alpha1.Image
}

// Plan lists what would happen to a host next, in order, as far as what is known now decides it. It asks nobody: power is
// what was last read. It is a pure function over the same rules that the mind walks by.
func Plan(v View, w World) []Act {
	p := newPlanner(v, w)
	switch state := v.state(); {
	case p.held:
	case v.deleting():
		p.drain()
		p.removeNode()
		p.powerOff("the host is being deleted")
		p.add("record", "remove the host and what belongs to it", v.Host.Name, false)
	case state == metal3.StateExternallyProvisioned:
		p.hold("the host is adopted: it is only read")
	case state == metal3.StateDeprovisioning:
		p.release()
	case state == metal3.StateProvisioned:
		p.keep()
	default:
		p.advance()
	}
	return p.acts
}

// PlanRelease lists what would happen if nobody wanted the host any more.
func PlanRelease(v View, w World) []Act {
	p := newPlanner(v, w)
	p.release()
	return p.acts
}

// planner walks a host's way without taking it.
type planner struct {
	View
	World
	// on says that the machine has power by now, runs that it does somebody's work, ours that metald has started it.
	on, runs, ours bool
	held           bool
	acts           []Act
}

func newPlanner(v View, w World) *planner {
	p := &planner{View: v, World: w, on: v.Host.Status.PoweredOn, ours: v.mayTouch()}
	p.runs = v.epoch() == 0 || v.agent().Mode == v1alpha1.OSMode
	if v.paused() {
		p.hold("paused by " + cmp.Or(v.PausedBy, "a person: "+v.Host.Annotations[v1alpha1.PausedAnnotation]))
	}
	if v.looksFirst() {
		p.look()
	}
	return p
}

// look is the first thing after a restore from a backup; whether more follows is known only then.
func (p *planner) look() {
	if w := p.Progress.Status.Waiting; w != nil && w.Reason == RestoredHostRunning {
		p.hold(w.For + "; " + w.Action)
		return
	}
	p.add("bmc", "look at it again, since the inventory was restored: the pinned machine must answer, and be off or run what is known; else it is left alone",
		p.bmcName(), false)
}

func (p *planner) add(kind, what, target string, destructive bool) {
	if !p.held {
		p.acts = append(p.acts, Act{Kind: kind, What: what, Target: target, Destructive: destructive})
	}
}

func (p *planner) hold(why string) {
	p.add("hold", why, "", false)
	p.held = true
}

func (p *planner) bmcName() string { return p.Host.Spec.BMC.Address }

func (p *planner) powerOff(why string) {
	if !p.on {
		return
	}
	p.add("power", "ForceOff, "+why, p.bmcName(), p.runs)
	p.on, p.runs = false, false
}

// boot is one ordered boot: off, the one-time override, on, and the proof.
func (p *planner) boot(answer, what string) {
	if !p.ours && p.on {
		p.hold("the machine was found running and may be in use: metald host take " + p.Host.Name + " --reason TEXT")
		return
	}
	p.powerOff("to boot the " + answer)
	from := "the network"
	if answer == bootDisk {
		from = "its disk"
	}
	p.add("bmc", "set one-time boot from "+from+" and read it back", p.bmcName(), false)
	p.add("power", "On", p.bmcName(), false)
	p.add("boot", what, "", false)
	p.on, p.ours, p.runs = true, true, answer != bootRamdisk
}

// advance is the way from first sight to a running host.
func (p *planner) advance() {
	state := p.state()
	if state == metal3.StateNone || state == metal3.StateUnmanaged || state == metal3.StateRegistering {
		if p.Host.Spec.BMC.Address == "" {
			p.hold("no BMC is named: set spec.bmc")
			return
		}
		p.add("bmc", "pin the certificate where there is one, log in, read identity and power", p.bmcName(), false)
		if p.adopted() {
			p.add("record", "keep it as externally provisioned; nothing is switched", p.Host.Name, false)
			return
		}
		state = metal3.StateInspecting
		if p.inspectionWaived() {
			state = metal3.StatePreparing
		}
	}
	if state == metal3.StateInspecting {
		if order := p.Progress.Status.Boot; order == nil || order.Answer != bootRamdisk || order.Epoch != p.epoch() || !p.on {
			p.boot(bootRamdisk, "the ramdisk; its agent proves the TPM and reports the hardware; nothing is written")
		} else {
			p.add("boot", "the ramdisk is on its way; its agent proves the TPM and reports the hardware; nothing is written", "", false)
		}
	}
	p.deploy()
}

// deploy is what a claim leads to.
func (p *planner) deploy() {
	d := p.Progress.Status.Deployment
	own := p.Host.Spec.Image != nil && p.Host.Spec.CustomDeploy == nil
	switch used := p.disksInUse(); {
	case d == nil && !p.claimed() && p.Pool == nil:
		p.hold("nobody claims the host: no NodePool selects it, and spec.customDeploy and spec.image are empty")
		return
	case d == nil && len(used) > 0 && !(p.Pool != nil && p.Pool.Spec.OverwriteDisks):
		p.hold(fmt.Sprintf("its disks hold partitions that metald did not make (%s): metald host take %s --reason TEXT", strings.Join(used, "; "), p.Host.Name))
		return
	}
	if own || p.installs(d) {
		p.write(d, own)
		p.boot(bootDisk, "the machine starts from its disk")
	} else {
		p.boot(bootImage, "image "+p.imageName(d)+", into memory; its agent proves the TPM and the root hash")
	}
	if !own {
		p.join(d)
	}
}

func (p *planner) installs(d *v1alpha1.Deployment) bool {
	switch {
	case d != nil:
		return d.Install != nil
	case p.Host.Spec.CustomDeploy != nil:
		return p.Host.Spec.CustomDeploy.Method == v1alpha1.InstallMethod
	}
	return p.Pool != nil && p.Pool.Spec.Method == "install"
}

func (p *planner) imageName(d *v1alpha1.Deployment) string {
	switch {
	case d != nil && d.Image != "":
		return d.Image
	case p.Image != nil:
		return p.Image.Name
	case p.Pool != nil:
		return p.Pool.Spec.Image
	}
	return "(none)"
}

// write is the install step, where it is still to come.
func (p *planner) write(d *v1alpha1.Deployment, own bool) {
	what := "image " + p.imageName(d) + ": GPT, EFI system partition, slot a; slot b and state are laid out empty"
	if own {
		what = "the user's image " + p.Host.Spec.Image.URL
	}
	var disk v1alpha1.DiskTarget
	switch {
	case d != nil && d.Install != nil && d.Install.Written != nil && !p.reinstallAsked():
		return
	case d != nil && d.Install != nil:
		disk = d.Install.Disk
	case p.agent().Facts == nil:
		p.add("write", what, "the disk that spec.rootDeviceHints mean, once an inspection has seen the disks", true)
		return
	default:
		need := int64(0)
		if p.Image != nil {
			need = diskNeeds(p.Image)
		}
		var err error
		if disk, err = chooseDisk(p.disks(), p.Host.Spec.RootDeviceHints, need); err != nil {
			p.hold(err.Error() + ": correct spec.rootDeviceHints")
			return
		}
	}
	if !p.reporting(v1alpha1.RamdiskMode) || !p.on {
		p.boot(bootRamdisk, "the ramdisk")
	}
	p.add("write", what, diskName(disk), true)
}

func (p *planner) join(d *v1alpha1.Deployment) {
	cluster := "(none)"
	switch {
	case d != nil:
		cluster = d.Cluster
	case p.Pool != nil:
		cluster = p.Pool.Namespace + "/" + p.Pool.Spec.Cluster
	}
	p.add("cluster", "make one bootstrap credential, approve one certificate request, label the Node", p.nodeName()+" in "+cluster, false)
}

// keep is what happens to a running host.
func (p *planner) keep() {
	d := p.Progress.Status.Deployment
	switch {
	case d == nil || p.changedMind(d):
		p.release()
	case p.reinstallAsked():
		p.drain()
		p.powerOff("to write its disk anew")
		p.removeNode()
		p.deploy()
	case !p.Host.Spec.Online:
		p.powerOff("spec.online is false")
	case !p.on:
		p.deploy()
	}
}

func (p *planner) hasNode() bool {
	d := p.Progress.Status.Deployment
	return d != nil && d.Cluster != "" && p.Progress.Status.Join != nil
}

func (p *planner) drain() {
	if l := p.Progress.Status.Leaving; p.hasNode() && (l == nil || l.Drained == nil) {
		p.add("cluster", "cordon, then evict all pods but those of DaemonSets", p.nodeName(), false)
	}
}

func (p *planner) removeNode() {
	if l := p.Progress.Status.Leaving; p.hasNode() && (l == nil || l.Removed == nil) {
		p.add("cluster", "take back the bootstrap credential, delete the Node", p.nodeName(), false)
	}
}

// release is the whole way out: drain, stop, erase.
func (p *planner) release() {
	p.drain()
	p.powerOff("the host was released")
	p.removeNode()
	mode := p.cleaning()
	if l := p.Progress.Status.Leaving; l != nil {
		mode = l.Cleaning
	}
	switch {
	case mode == cleaningDisabled:
		p.add("record", "nothing is erased: the cleaning mode is disabled; condition Erased says so", "", false)
	case p.agent().Facts != nil && len(p.disks()) == 0:
		p.add("record", "the host has no drives to erase", "", false)
	default:
		p.boot(bootRamdisk, "the ramdisk, to erase")
		for _, d := range p.disks() {
			p.add("erase", mode, diskName(target(d)), true)
		}
		p.powerOff("it is available")
	}
	p.add("record", "the host is available", p.Host.Name, false)
}
