// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/bmc"
	"metald.io/metald/internal/pxe"
)

// rack is the machine behind its BMC: firmware that asks the mind what to boot, and an agent that does as it is told.
type rack struct {
	*world
	mu       sync.Mutex
	password string
	pin      string
	uuid     string
	ek       string
	on       bool
	once     bmc.BootTarget
	boots    int // power-ons
	logins   int
	hang     bool
	dead     bool // refuses connections
	dials    int
	// deaf firmware never asks; mute agents never report.
	deaf, mute bool
	cut        atomic.Bool // the next transfer breaks off
	disk       disk
	refused    int // sessions that were refused
	offs       int
}

func (r *rack) Certificate(context.Context, bmc.Address) (string, *x509.Certificate, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dials++
	if r.dead {
		return "", nil, fmt.Errorf("connection refused: %w", bmc.ErrUnreachable)
	}
	return r.pin, nil, nil
}

func (r *rack) Sweep(context.Context, []netip.Prefix, func(bmc.Found)) error { return nil }

func (r *rack) Dial(ctx context.Context, t bmc.Target) (bmc.Controller, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.hang {
		r.mu.Unlock()
		<-ctx.Done()
		r.mu.Lock()
		return nil, fmt.Errorf("dialling: %w", bmc.ErrUnreachable)
	}
	if t.Pin != r.pin {
		return nil, &bmc.PinChangedError{Pinned: t.Pin, Shown: r.pin}
	}
	r.logins++
	if string(t.Password) != r.password {
		return nil, fmt.Errorf("logging in: %w", bmc.ErrCredentials)
	}
	return r, nil
}

func (r *rack) Close(context.Context) error { return nil }

func (r *rack) Identity(context.Context) (bmc.Identity, error) {
	return bmc.Identity{Manufacturer: "Acme", Model: "X1", SerialNumber: "S1", SystemUUID: r.uuid}, nil
}

func (r *rack) Power(context.Context) (bmc.PowerState, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.on {
		return bmc.On, nil
	}
	return bmc.Off, nil
}

// disk is the machine's one drive.
type disk struct {
	partitions int
	holds      string             // the ID of what is installed, empty where it does not boot
	raw        *v1alpha1.RawImage // what is installed is a user's own: no agent runs in it
	writes     int                // how often an image was written
	erases     int
	rotten     bool // what it holds does not verify
	unerasable bool // every erase fails
	unwritable bool // every write fails
	slow       time.Duration
}

// drive is the disk as it is now; changeDrive changes it under a running machine.
func (r *rack) drive() disk {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.disk
}

func (r *rack) changeDrive(change func(d *disk)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.disk)
}

// unplug takes the power away. running says whether it is there, and how often it came.
func (r *rack) unplug() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.on = false
}

func (r *rack) running() (on bool, boots int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.on, r.boots
}

func (r *rack) NetworkBoot(context.Context) (bmc.BootTarget, error) { return bmc.BootHTTP, nil }

func (r *rack) OneTimeBoot(context.Context) (bmc.BootTarget, error) { return r.once, nil }

func (r *rack) SetOneTimeBoot(_ context.Context, t bmc.BootTarget) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.once = t
	return nil
}

func (r *rack) Switch(_ context.Context, a bmc.PowerAction) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case a == bmc.ForceOff && r.on:
		r.on = false
		r.offs++
	case a == bmc.PowerOn && !r.on:
		r.on = true
		r.boots++
		go r.run(r.boots)
	}
	return nil
}

func (r *rack) alive(boot int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.on && r.boots == boot
}

// firmware asks for a boot file and takes it. As EDK2 does, it asks for a while, and when the transfer breaks off it goes
// to its shell for good.
func (r *rack) firmware(boot int) (answer pxe.Answer, whole bool) {
	time.Sleep(3 * time.Second)
	mac, _ := net.ParseMAC(testMAC)
	for range 4 {
		if r.deaf || !r.alive(boot) {
			return answer, false
		}
		if mind := r.mind.Load(); !r.down.Load() {
			answer, known := mind.Boot(pxe.Machine{MAC: mac, Client: pxe.HTTPClient})
			if !known || answer.Digest == "" {
				return answer, false
			}
			mind.TransferBegan(answer.Host, answer.Digest)
			time.Sleep(4 * time.Second)
			whole := !r.cut.CompareAndSwap(true, false) && r.alive(boot) && r.mind.Load() == mind && !r.down.Load()
			mind.TransferEnded(answer.Host, answer.Digest, whole)
			return answer, whole
		}
		time.Sleep(4 * time.Second)
	}
	return answer, false
}

// run is one power-on: firmware, then the agent of what was offered.
func (r *rack) run(boot int) {
	r.mu.Lock()
	once := r.once
	r.mu.Unlock()
	if once == bmc.BootDisk {
		r.runDisk(boot)
		return
	}
	answer, whole := r.firmware(boot)
	if !whole {
		return
	}
	time.Sleep(time.Second)
	if r.mute || !r.alive(boot) {
		return
	}
	hello := v1alpha1.Hello{Mode: v1alpha1.RamdiskMode, BootID: fmt.Sprint("boot-", boot), SystemUUID: r.uuid, MACs: []string{testMAC}}
	if strings.HasPrefix(answer.File, "image") {
		hello.Mode, hello.RootHash = v1alpha1.OSMode, hex64
	}
	r.agent(boot, hello)
}

// runDisk starts what the disk holds.
func (r *rack) runDisk(boot int) {
	time.Sleep(5 * time.Second)
	drive := r.drive()
	if drive.holds == "" || drive.raw != nil || !r.alive(boot) {
		return
	}
	hello := v1alpha1.Hello{Mode: v1alpha1.OSMode, BootID: fmt.Sprint("boot-", boot), SystemUUID: r.uuid, MACs: []string{testMAC}, RootHash: hex64, Slot: "a"}
	if !drive.rotten {
		r.agent(boot, hello)
		return
	}
	hello.Mode = v1alpha1.InitrdMode
	if c := r.mind.Load().Identify(hello, r.ek); c.Known && c.Refuse == nil {
		r.say(c.Host, func(a *v1alpha1.AgentFacts) {
			a.Mode, a.Epoch = v1alpha1.InitrdMode, c.Epoch
			a.Refusal = &v1alpha1.Refusal{At: metav1.Now(), Reason: "ImageRefused", Message: "slot a: bad superblock"}
			a.Steps = []v1alpha1.StepResult{{Step: v1alpha1.RefuseStep, Epoch: c.Epoch, Message: "slot a: bad superblock"}}
		})
	}
	r.unplug()
}

// agent opens a session as the desk would, and does what it is told.
func (r *rack) agent(boot int, hello v1alpha1.Hello) {
	c := r.mind.Load().Identify(hello, r.ek)
	if !c.Known || c.Refuse != nil || c.PinnedEK != "" && c.PinnedEK != r.ek {
		r.mu.Lock()
		r.refused++
		r.mu.Unlock()
		if c.Known {
			r.say(c.Host, func(a *v1alpha1.AgentFacts) {
				a.Refusal = &v1alpha1.Refusal{At: metav1.Now(), Reason: "TPMChanged", Message: "another TPM than the pinned one", EKSHA256: r.ek}
			})
		}
		return
	}
	r.say(c.Host, func(a *v1alpha1.AgentFacts) {
		*a = v1alpha1.AgentFacts{FirstSeen: ptrNow(), Slot: hello.Slot, Mode: hello.Mode, BootID: hello.BootID, Epoch: c.Epoch, Proof: "tpm", EKSHA256: r.ek, Facts: a.Facts, Inspected: a.Inspected}
	})
	mind := r.mind.Load()
	for r.alive(boot) {
		mind = r.helloAgain(mind, hello)
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		order, err := r.mind.Load().Next(ctx, Caller{Host: c.Host, Epoch: c.Epoch, Mode: hello.Mode, BootID: hello.BootID, IP: "172.22.0.9"})
		cancel()
		if err != nil {
			time.Sleep(time.Second)
			continue
		}
		if !r.alive(boot) {
			break
		}
		switch order.Step {
		case v1alpha1.InspectStep:
			r.say(c.Host, func(a *v1alpha1.AgentFacts) {
				a.Facts = &v1alpha1.HostFacts{System: v1alpha1.SystemFacts{UUID: r.uuid}, CPU: v1alpha1.CPUFacts{Architecture: "amd64", Threads: 4},
					Disks: []v1alpha1.DiskFacts{{Name: "nvme0n1", SerialNumber: "D1", SizeBytes: 8 << 30, Partitions: r.drive().partitions}}}
				a.Inspected = c.Epoch
			})
		case v1alpha1.InstallStep:
			if order.Install.ID != r.drive().holds {
				r.acted("write image", order.Install.ID)
				if raw := order.Install.Raw; raw != nil && len(raw.ConfigDrive) > 0 {
					r.acted("release config drive", order.Install.ID)
				}
				r.changeDrive(func(d *disk) { d.holds, d.writes = "", d.writes+1 })
				time.Sleep(5*time.Second + r.drive().slow)
				if !r.alive(boot) {
					return
				}
				if r.drive().unwritable {
					r.say(c.Host, func(a *v1alpha1.AgentFacts) {
						a.Steps = append(a.Steps, v1alpha1.StepResult{Step: order.Step, Epoch: c.Epoch, Message: "input/output error"})
					})
					continue
				}
				r.changeDrive(func(d *disk) { d.holds, d.partitions, d.rotten, d.raw = order.Install.ID, 6, false, order.Install.Raw })
			}
		case v1alpha1.EraseStep:
			r.acted("erase drives", order.Erase.Mode)
			time.Sleep(5 * time.Second)
			if !r.alive(boot) {
				return
			}
			record := v1alpha1.DriveErasure{Name: order.Erase.Drives[0].Name, SerialNumber: order.Erase.Drives[0].SerialNumber, Method: "overwrite", Verified: "all zero", OK: !r.drive().unerasable}
			r.changeDrive(func(d *disk) {
				if d.erases++; record.OK {
					d.holds, d.partitions = "", 0
				} else {
					record.Error = "input/output error"
				}
			})
			r.say(c.Host, func(a *v1alpha1.AgentFacts) {
				a.Steps = append(a.Steps, v1alpha1.StepResult{Step: order.Step, Epoch: c.Epoch, OK: record.OK, Erased: []v1alpha1.DriveErasure{record}})
			})
			continue
		case v1alpha1.JoinStep:
			r.acted("release join seed", order.Join.BootstrapKubeconfig)
			time.Sleep(10 * time.Second)
			r.plane.bootstrap(order.Join, hello.BootID)
		default:
			time.Sleep(pollLeast)
			continue
		}
		r.say(c.Host, func(a *v1alpha1.AgentFacts) {
			a.Steps = append(a.Steps, v1alpha1.StepResult{Step: order.Step, Epoch: c.Epoch, OK: true})
		})
	}
	r.plane.lose("n1")
}

func (r *rack) say(host v1alpha1.HostRef, change func(*v1alpha1.AgentFacts)) {
	_, err := r.store.Inventories().Update(context.Background(), host.Namespace, host.Name, func(i *v1alpha1.HostInventory) error {
		if i.Status.Agent == nil {
			i.Status.Agent = &v1alpha1.AgentFacts{}
		}
		change(i.Status.Agent)
		return nil
	})
	if err != nil {
		r.t.Logf("the agent's report was lost: %v", err)
	}
}

func ptrNow() *metav1.Time { now := metav1.Now(); return &now }
