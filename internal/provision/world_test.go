// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/bmc"
	"metald.io/metald/internal/inventory"
	"metald.io/metald/internal/pxe"
)

// world is one machine with its BMC, one control plane and a mind over a real store, in fake time.
type world struct {
	t     *testing.T
	store *inventory.Store
	dir   string               // the store's
	mind  atomic.Pointer[Mind] // a restart replaces it under a running agent
	down  atomic.Bool          // between two minds nobody answers firmware
	rack  *rack
	plane *plane
	cap   int // of destructive acts an hour; none unless a test says so
	stop  func()
	// bmcs and control stand before rack and plane where a test sets them, before a start; acted hears what the agent does.
	bmcs    BMCs
	control Cluster
	acted   func(verb, what string)
}

const (
	testMAC  = "52:54:00:00:00:10"
	testUUID = "11111111-2222-3333-4444-555555555555"
	hex64    = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
)

// pollLeast is what the agent waits at least between two orders to wait: one whose epoch is over is answered at once.
const pollLeast = time.Second

// inWorld runs a test in fake time.
func inWorld(t *testing.T, play func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		store, err := inventory.Open(dir, inventory.Options{NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		w := &world{t: t, store: store, dir: dir, plane: newPlane(), cap: -1}
		w.rack = &rack{world: w, password: "right", pin: "aa" + hex64[2:], uuid: testUUID, ek: "ee" + hex64[2:]}
		w.start()
		defer func() {
			w.rack.mu.Lock()
			w.rack.on = false
			w.rack.mu.Unlock()
			w.stop()
			time.Sleep(time.Minute) // the agent's last poll
			if err := w.store.Close(); err != nil {
				t.Error(err)
			}
		}()
		play(w)
	})
}

// start begins a mind over the store, as after a restart of the daemon.
func (w *world) start() {
	if w.bmcs == nil {
		w.bmcs, w.control, w.acted = w.rack, w.plane, func(string, string) {}
	}
	mind := New(Config{
		Store: w.store, Images: blobs{}, BMCs: w.bmcs,
		Connect: func([]byte, string) (Cluster, error) { return w.control, nil },
		Limits:  Limits{Boot: 5 * time.Minute, Join: 10 * time.Minute, Poll: 30 * time.Second, DestructivePerHour: w.cap},
		Logger:  slog.New(slog.DiscardHandler), Now: time.Now,
	})
	w.mind.Store(mind)
	w.down.Store(false)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- mind.Run(ctx) }()
	w.stop = func() {
		w.down.Store(true)
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			w.t.Errorf("the mind ended: %v", err)
		}
	}
}

// enrol makes a host with its Secret, as import does.
func (w *world) enrol(change ...func(*metal3.BareMetalHost)) {
	w.t.Helper()
	ctx := context.Background()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "n1-bmc"},
		Data: map[string][]byte{"username": []byte("admin"), "password": []byte("right")}}
	if _, err := w.store.Secrets().Create(ctx, secret); err != nil {
		w.t.Fatal(err)
	}
	h := &metal3.BareMetalHost{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "n1", Labels: map[string]string{v1alpha1.ZoneLabel: "z1"}},
		Spec: metal3.BareMetalHostSpec{BootMACAddress: testMAC,
			BMC: metal3.BMCDetails{Address: "redfish://10.0.0.1/redfish/v1/Systems/1", CredentialsName: "n1-bmc"}}}
	for _, c := range change {
		c(h)
	}
	if _, err := w.store.Hosts().Create(ctx, h); err != nil {
		w.t.Fatal(err)
	}
}

// pool makes an image, a cluster and a pool that wants one host.
func (w *world) pool(change ...func(*v1alpha1.NodePool)) {
	w.t.Helper()
	ctx := context.Background()
	_, err := w.store.Images().Create(ctx, &v1alpha1.Image{ObjectMeta: metav1.ObjectMeta{Name: "node"}, Spec: v1alpha1.ImageSpec{
		Loader:       &v1alpha1.File{SHA256: "44" + hex64[2:], SizeBytes: 1},
		Architecture: "amd64", KubernetesVersion: "v1.36.3", RootHash: hex64, UKI: v1alpha1.File{SHA256: "11" + hex64[2:], SizeBytes: 1},
		Root: v1alpha1.RootFile{File: v1alpha1.File{SHA256: "22" + hex64[2:], SizeBytes: 1}, Format: "erofs"}}})
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err = w.store.Secrets().Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "kc"},
		Data: map[string][]byte{"kubeconfig": []byte("x")}}); err != nil {
		w.t.Fatal(err)
	}
	if _, err = w.store.Clusters().Create(ctx, &v1alpha1.KubernetesCluster{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "prod"},
		Spec: v1alpha1.KubernetesClusterSpec{KubeconfigSecret: "kc"}}); err != nil {
		w.t.Fatal(err)
	}
	p := &v1alpha1.NodePool{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "workers"},
		Spec: v1alpha1.NodePoolSpec{Replicas: 1, Method: "diskless", Image: "node", Cluster: "prod"}}
	for _, c := range change {
		c(p)
	}
	if _, err = w.store.Pools().Create(ctx, p); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) host() *metal3.BareMetalHost {
	w.t.Helper()
	h, err := w.store.Hosts().Get(context.Background(), "default", "n1")
	if err != nil {
		w.t.Fatal(err)
	}
	return h
}

func (w *world) progress() v1alpha1.HostProgressStatus {
	w.t.Helper()
	p, err := w.store.Progresses().Get(context.Background(), "default", "n1")
	if err != nil {
		w.t.Fatal(err)
	}
	return p.Status
}

// until waits in fake time until a host is as it should be.
func (w *world) until(what string, limit time.Duration, ok func(*metal3.BareMetalHost) bool) {
	w.t.Helper()
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(time.Second) {
		if ok(w.host()) {
			return
		}
	}
	p := w.progress()
	w.t.Fatalf("waiting for %s: still %q after %s, waits for %+v, last error %q", what, p.State, limit, p.Waiting, p.LastError)
}

func inState(s State) func(*metal3.BareMetalHost) bool {
	return func(h *metal3.BareMetalHost) bool { return h.Status.Provisioning.State == s }
}

func waitsFor(reason string, w *world) func(*metal3.BareMetalHost) bool {
	return func(*metal3.BareMetalHost) bool {
		p, err := w.store.Progresses().Get(context.Background(), "default", "n1")
		return err == nil && p.Status.Waiting != nil && p.Status.Waiting.Reason == reason
	}
}

// blobs is an image store that holds everything.
type blobs struct{}

func (blobs) Ramdisk(string) (v1alpha1.File, error) {
	return v1alpha1.File{SHA256: "33" + hex64[2:], SizeBytes: 1}, nil
}
func (blobs) Verify(v1alpha1.File) error { return nil }

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
