// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"strings"
	"testing"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
)

func toDisk(p *v1alpha1.NodePool) { p.Spec.Method = "install" }

func isReady(h *metal3.BareMetalHost) bool {
	return meta.IsStatusConditionTrue(h.Status.Conditions, metal3.ReadyCondition)
}

func TestInstalledHostIsWrittenOnceAndBootsFromItsDisk(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool(toDisk)
		w.enrol()
		w.until("Ready", 10*time.Minute, isReady)
		p := w.progress()
		if i := p.Deployment.Install; i == nil || i.Written == nil || i.Disk.SerialNumber != "D1" || i.Epoch != 1 {
			t.Errorf("got installation %+v, want one written to D1 in epoch 1, by the ramdisk that inspected it", i)
		}
		if p.Boot == nil || p.Boot.Answer != bootDisk || p.Epoch != 2 {
			t.Errorf("got boot %+v in epoch %d, want the disk in epoch 2", p.Boot, p.Epoch)
		}
		w.rack.unplug()
		w.until("not Ready", 2*time.Minute, func(h *metal3.BareMetalHost) bool { return !isReady(h) })
		w.until("Ready again", 10*time.Minute, isReady)
		if w.rack.drive().writes != 1 {
			t.Errorf("the image was written %d times, want once", w.rack.drive().writes)
		}
	})
}

func TestRestartWhileInstallingWritesOnce(t *testing.T) {
	for second := 0; second < 75; second += 5 {
		inWorld(t, func(w *world) {
			w.rack.disk.slow = 20 * time.Second
			w.pool(toDisk)
			w.enrol()
			time.Sleep(time.Duration(second)*time.Second + 300*time.Millisecond)
			w.stop()
			time.Sleep(2 * time.Second)
			w.start()
			w.until("Ready", 20*time.Minute, isReady)
			if w.rack.drive().writes != 1 {
				t.Errorf("restart at second %d: the image was written %d times, want once", second, w.rack.drive().writes)
			}
		})
	}
}

func TestPowerLostWhileWritingWritesAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		w.rack.disk.slow = time.Minute
		w.pool(toDisk)
		w.enrol()
		w.until("the write", 10*time.Minute, waitsFor("Installing", w))
		w.rack.unplug()
		w.until("Ready", 20*time.Minute, isReady)
		if w.rack.drive().writes != 2 {
			t.Errorf("the image was written %d times, want twice", w.rack.drive().writes)
		}
	})
}

func TestRottenDiskIsRefusedUntilAPersonReinstalls(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool(toDisk)
		w.enrol()
		w.until("Ready", 10*time.Minute, isReady)
		w.rack.changeDrive(func(d *disk) { d.rotten = true })
		w.rack.unplug()
		w.until("refusal", 10*time.Minute, waitsFor("ImageRefused", w))
		_, boots := w.rack.running()
		time.Sleep(time.Hour)
		if _, now := w.rack.running(); now != boots || w.rack.drive().writes != 1 {
			t.Fatalf("%d more boots and %d writes though a person must decide", now-boots, w.rack.drive().writes)
		}
		if e := w.host().Status.ErrorMessage; !strings.Contains(e, "bad superblock") {
			t.Errorf("the error does not name the cause: %q", e)
		}
		w.plane.mu.Lock()
		w.plane.pods = []string{"shop/cart: is ending"} // for ever: no kubelet is there to say that it has ended
		w.plane.mu.Unlock()
		w.changeHost(func(h *metal3.BareMetalHost) {
			h.Annotations = map[string]string{v1alpha1.ReinstallAnnotation: "me: bad disk"}
		})
		w.until("Ready", 5*time.Minute, isReady)
		if _, still := w.host().Annotations[v1alpha1.ReinstallAnnotation]; still || w.rack.drive().writes != 2 {
			t.Errorf("annotation still there: %t; %d writes, want 2", still, w.rack.drive().writes)
		}
	})
}

func TestDisksInUseAreNotTouchedUntilTaken(t *testing.T) {
	for name, c := range map[string]struct {
		overwrite bool
		own       bool // a user's own image asks for the host
	}{"by a pool": {}, "by a pool that says so in advance": {overwrite: true}, "by a user": {own: true}} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.rack.disk.partitions = 3
				w.pool(toDisk, func(p *v1alpha1.NodePool) { p.Spec.OverwriteDisks = c.overwrite })
				w.enrol()
				if c.overwrite {
					w.until("Ready", 20*time.Minute, isReady)
					return
				}
				w.until("hold", 10*time.Minute, waitsFor("DisksInUse", w))
				if c.own {
					w.changeHost(func(h *metal3.BareMetalHost) {
						h.Spec.CustomDeploy, h.Spec.Online = &metal3.CustomDeploy{Method: v1alpha1.InstallMethod}, true
						h.Spec.ConsumerRef = &corev1.ObjectReference{Kind: "NodePool", Namespace: "default", Name: "workers"}
					})
				}
				time.Sleep(time.Hour)
				if w.rack.drive().writes != 0 {
					t.Fatal("a disk that holds partitions was written to")
				}
				w.changeHost(func(h *metal3.BareMetalHost) {
					h.Annotations = map[string]string{v1alpha1.TakenAnnotation: "me: old lab"}
				})
				w.until("Ready", 20*time.Minute, isReady)
			})
		})
	}
}

func TestPauseOfPoolAndOfAll(t *testing.T) {
	ctx := context.Background()
	inWorld(t, func(w *world) {
		if _, err := w.store.Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.OwnNamespace,
			Annotations: map[string]string{v1alpha1.PausedAnnotation: "me: works"}}}); err != nil {
			t.Fatal(err)
		}
		w.pool(toDisk, func(p *v1alpha1.NodePool) { p.Annotations = map[string]string{v1alpha1.PausedAnnotation: "me: later"} })
		w.enrol()
		w.until("pause", time.Minute, waitsFor("Paused", w))
		time.Sleep(10 * time.Minute)
		if w.rack.logins != 0 {
			t.Error("the BMC was logged into though all of metald is paused")
		}
		if _, err := w.store.Namespaces().Update(ctx, "", v1alpha1.OwnNamespace, func(n *corev1.Namespace) error { n.Annotations = nil; return nil }); err != nil {
			t.Fatal(err)
		}
		w.until("available", 10*time.Minute, inState(metal3.StateAvailable))
		time.Sleep(10 * time.Minute)
		if h := w.host(); h.Spec.ConsumerRef != nil {
			t.Error("a paused pool claimed a host")
		}
		if _, err := w.store.Pools().Update(ctx, "default", "workers", func(p *v1alpha1.NodePool) error { p.Annotations = nil; return nil }); err != nil {
			t.Fatal(err)
		}
		w.until("Ready", 20*time.Minute, isReady)
	})
}

func TestChooseDisk(t *testing.T) {
	yes := true
	disks := []v1alpha1.DiskFacts{
		{Name: "sdb", SizeBytes: 4 << 40, Rotational: true, Model: "EXOS", SerialNumber: "H1", HCTL: "0:0:1:0", WWN: "0x5000c500a1b2c3d4"},
		{Name: "nvme1n1", SizeBytes: 1 << 40, Model: "PM9A3", SerialNumber: "N2", PCIAddress: "0000:02:00.0", Links: []string{"/dev/disk/by-path/pci-0000:02:00.0-nvme-1"}},
		{Name: "nvme0n1", SizeBytes: 2 << 40, Model: "PM9A3", Vendor: "Samsung", SerialNumber: "N1"},
		{Name: "sda", SizeBytes: 2 << 30, Model: "SATADOM", SerialNumber: "S1"},
	}
	for name, c := range map[string]struct {
		hints *metal3.RootDeviceHints
		need  int64
		want  string
		err   string
	}{
		"no hints: the smallest flash disk that is big enough": {nil, 8 << 30, "nvme1n1", ""},
		"device name":            {&metal3.RootDeviceHints{DeviceName: "/dev/sdb"}, 0, "sdb", ""},
		"by path":                {&metal3.RootDeviceHints{DeviceName: "/dev/disk/by-path/pci-0000:02:00.0-nvme-1"}, 0, "nvme1n1", ""},
		"serial":                 {&metal3.RootDeviceHints{SerialNumber: "N1"}, 0, "nvme0n1", ""},
		"part of the model":      {&metal3.RootDeviceHints{Model: "PM9"}, 0, "nvme0n1", ""},
		"vendor":                 {&metal3.RootDeviceHints{Vendor: "samsung"}, 0, "nvme0n1", ""},
		"rotational":             {&metal3.RootDeviceHints{Rotational: &yes}, 0, "sdb", ""},
		"HCTL":                   {&metal3.RootDeviceHints{HCTL: "0:0:1:0"}, 0, "sdb", ""},
		"WWN":                    {&metal3.RootDeviceHints{WWN: "0x5000c500a1b2c3d4"}, 0, "sdb", ""},
		"least size":             {&metal3.RootDeviceHints{MinSizeGigabytes: 3000}, 0, "sdb", ""},
		"all must fit":           {&metal3.RootDeviceHints{Model: "PM9A3", SerialNumber: "H1"}, 0, "", `serial number is "N1", wanted "H1"`},
		"too small":              {&metal3.RootDeviceHints{SerialNumber: "S1"}, 8 << 30, "", "2147483648 bytes, 8589934592 are needed"},
		"nothing of that serial": {&metal3.RootDeviceHints{SerialNumber: "X"}, 0, "", "no disk fits"},
	} {
		got, err := chooseDisk(disks, c.hints, c.need)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: got %v, want an error with %q", name, err, c.err)
			}
			continue
		}
		if err != nil || got.Name != c.want {
			t.Errorf("%s: got %q, %v; want %s", name, got.Name, err, c.want)
		}
	}
	if _, err := chooseDisk(nil, nil, 0); err == nil || !strings.Contains(err.Error(), "no disk at all") {
		t.Errorf("without disks: %v", err)
	}
}
