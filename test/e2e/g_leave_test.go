// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/imaging/disk"
	"metald.io/metald/test/lab/rack"
)

// A byte of the hash tree's superblock rots on a disk. The machine refuses what it holds, status says why and what to type,
// and typing it brings the host back.
func TestRottenDiskIsRefusedAndReinstalled(t *testing.T) {
	followHost(t, redfishHost, func(h rack.Host) bool { return h.Ready() })
	before := imageWrites(t, redfishHost)
	rebootHost(t, redfishHost, func() error {
		b := make([]byte, 1)
		if err := lab.ReadDisk(redfishHost, disk.RootAHash, 0, b); err != nil {
			return err
		}
		b[0] ^= 1
		return lab.WriteDisk(redfishHost, disk.RootAHash, 0, b)
	})
	h := followHost(t, redfishHost, func(h rack.Host) bool { return mentions(h, "ImageRefused") || mentions(h, "refuses") })
	if h.Ready() {
		t.Error("metald calls a host Ready that refused its image")
	}
	page := metald(t, "status", redfishHost)
	t.Logf("metald status %s:\n%s", redfishHost, page)
	if !strings.Contains(page, "metald host reinstall "+redfishHost) {
		t.Errorf("it does not say what to type")
	}
	if !strings.Contains(page, "verity") && !strings.Contains(page, "superblock") {
		t.Errorf("it does not say what is wrong")
	}
	if now := imageWrites(t, redfishHost); now != before {
		t.Errorf("the disk was written %d times although nobody asked", now-before)
	}
	metald(t, "host", "reinstall", redfishHost, "--yes", "--reason", "e2e: a byte of its disk rotted")
	followHost(t, redfishHost, func(h rack.Host) bool { return imageWrites(t, redfishHost) > before && h.Ready() })
	if now := imageWrites(t, redfishHost); now != before+1 {
		t.Errorf("the disk was written %d times, want once", now-before)
	}
}

// pattern is what the tenant of a host leaves on its disk.
const pattern = "e2e: what the last tenant wrote, 6d6574616c64"

// planter writes the pattern to the host's disk, as any pod with a volume could.
const planter = `
apiVersion: v1
kind: Pod
metadata: {name: planter}
spec:
  restartPolicy: Never
  nodeName: %[1]s
  containers:
  - name: planter
    image: %[2]s
    imagePullPolicy: Never
    securityContext: {privileged: true}
    command: [/host/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2, --library-path, /host/usr/lib/x86_64-linux-gnu, /host/usr/sbin/chroot, /host, /bin/sh, -c]
    args: ['i=0; while [ $i -lt 2000 ]; do echo "%[3]s"; i=$((i+1)); done >/var/lib/planted && sync']
    volumeMounts: [{name: host, mountPath: /host}]
  volumes:
  - name: host
    hostPath: {path: /}
`

// The pool shrinks by one. The host that goes is drained, its Node deleted, its disk erased and read back, and it can be
// claimed again; the other stays as it is.
func TestHostLeaves(t *testing.T) {
	for _, name := range installed {
		followHost(t, name, func(h rack.Host) bool { return h.Ready() })
	}
	apply(t, fmt.Sprintf(planter, ipmiHost, localImage, pattern))
	awaitPod(t, "planter", "Succeeded")
	eventually(t, "the pattern to reach the disk", time.Minute, func() (bool, string) {
		return planted(t, ipmiHost) > 0, "not there"
	})
	t.Logf("the pattern is on the disk of %s in %d places", ipmiHost, planted(t, ipmiHost))
	start := time.Now()
	bmh(t, "patch", "nodepool", rack.Installed, "--type=merge", "-p", `{"spec":{"replicas":1}}`)
	h := followHost(t, ipmiHost, func(h rack.Host) bool { return h.Progress.State == "available" })
	t.Logf("available %s after the pool shrank", time.Since(start).Round(time.Second))
	if left := kubectl(t, "get", "node", ipmiHost, "--ignore-not-found", "-o", "name"); left != "" {
		t.Errorf("its Node is still there: %s", left)
	}
	if left := kubectl(t, "get", "pod", "sleeper-"+ipmiHost, "--ignore-not-found", "-o", "name"); left != "" {
		t.Errorf("its pod was not evicted: %s", left)
	}
	if n := planted(t, ipmiHost); n != 0 {
		t.Errorf("the pattern is still on the disk in %d places", n)
	}
	if _, err := lab.Table(ipmiHost); err == nil {
		t.Error("its disk still has a partition table")
	}
	e := h.Progress.Erase
	if e == nil || !e.OK || e.Mode != v1alpha1.EraseFull || len(e.Drives) != 1 {
		t.Fatalf("the record of the erase is %+v, want a full one of one drive", e)
	}
	spec, err := lab.SpecOf(ipmiHost)
	if err != nil {
		t.Fatal(err)
	}
	d := e.Drives[0]
	t.Logf("erased: %+v", d)
	if d.SerialNumber != spec.DiskSerial() || d.Method == "" || d.Verified == "" || !d.OK || d.Ended == nil {
		t.Errorf("the drive's record lacks something: %+v", d)
	}
	if c := h.Condition(v1alpha1.ErasedCondition); c == nil || c.Status != "True" {
		t.Errorf("condition Erased is %+v", c)
	}
	followHost(t, redfishHost, func(h rack.Host) bool { return h.Ready() })
}

func planted(t *testing.T, name string) int {
	t.Helper()
	places, err := lab.FindPattern(name, []byte(pattern))
	if err != nil {
		t.Fatal(err)
	}
	return len(places)
}
