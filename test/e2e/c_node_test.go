// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// localImage is in the OS image itself; there is no registry anywhere.
const localImage = "metald.local/pause:1"

// witness is a pod from the locally imported image that looks at its host: its program is the host's own shell, reached
// through a volume, since the image holds one program only.
const witness = `
apiVersion: v1
kind: Pod
metadata: {name: witness}
spec:
  restartPolicy: Never
  hostPID: true
  nodeName: %[1]s
  tolerations: [{operator: Exists}]
  containers:
  - name: witness
    image: %[2]s
    imagePullPolicy: Never
    securityContext: {privileged: true}
    command: [/host/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2, --library-path, /host/usr/lib/x86_64-linux-gnu, /host/usr/sbin/chroot, /host, /bin/sh, -c]
    args:
    - |
      while read -r device at kind options rest; do [ "$at" != / ] || echo "root: $kind $options"; done </proc/1/mounts
      for d in /sys/block/dm-*; do echo "mapped: $(cat $d/dm/name) over $(ls $d/slaves) read-only=$(cat $d/ro)"; done
      echo "kernel: $(dmesg | grep -m1 'device-mapper: verity')"
      echo "cmdline: $(cat /proc/cmdline)"
      if touch /usr/witness 2>/tmp/why; then echo "write: allowed"; else echo "write: $(cat /tmp/why)"; fi
      if [ -e /run/metald/seed.json ]; then echo "seed: left"; else echo "seed: none"; fi
    volumeMounts: [{name: host, mountPath: /host}]
  volumes:
  - name: host
    hostPath: {path: /}
`

// sleeper is the plain case: a scheduled pod, its own network, no privilege.
const sleeper = `
apiVersion: v1
kind: Pod
metadata: {name: sleeper}
spec:
  automountServiceAccountToken: false
  containers:
  - name: sleeper
    image: %s
    imagePullPolicy: Never
`

func apply(t *testing.T, text string) {
	t.Helper()
	cmd := lab.Kubectl(t.Context(), "apply", "-f", "-")
	cmd.Stdin = strings.NewReader(text)
	must(t, cmd)
}

func TestPodRuns(t *testing.T) {
	needReady(t)
	apply(t, fmt.Sprintf(sleeper, localImage))
	start := time.Now()
	awaitPod(t, "sleeper", "Running")
	t.Logf("a pod from %s runs %s after it was asked for", localImage, time.Since(start).Round(100*time.Millisecond))
	where := kubectl(t, "get", "pod", "sleeper", "-o", "jsonpath={.spec.nodeName} {.status.podIP}")
	if !strings.HasPrefix(where, host+" 10.244.") {
		t.Errorf("the pod runs at %q, want on %s with an address of its Node's range", where, host)
	}
}

func awaitPod(t *testing.T, name, phase string) {
	t.Helper()
	eventually(t, "pod "+name+" to be "+phase, 3*time.Minute, func() (bool, string) {
		now := kubectl(t, "get", "pod", name, "-o", "jsonpath={.status.phase}")
		if now == phase {
			return true, ""
		}
		if now == "Failed" {
			t.Fatalf("pod %s failed:\n%s", name, kubectl(t, "describe", "pod", name))
		}
		events, _, _ := try(lab.Kubectl(t.Context(), "get", "events", "--field-selector=involvedObject.name="+name, "-o", `jsonpath={range .items[*]}{.reason}: {.message}{"\n"}{end}`))
		return false, now + "\n" + events
	})
}

func TestRootIsReadOnlyAndVerified(t *testing.T) {
	needReady(t)
	apply(t, fmt.Sprintf(witness, host, localImage))
	awaitPod(t, "witness", "Succeeded")
	said := kubectl(t, "logs", "witness")
	image, err := lab.Image()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the host, seen from a pod:\n%s", said)
	for what, want := range map[string]string{
		"root is a read-only erofs":              "root: erofs ro",
		"kernel has made a dm-verity device":     "device-mapper: verity: sha256 using implementation",
		"root is that device, and read-only":     "mapped: metald-root over loop0 read-only=1",
		"command line pins the image's hash":     image.Spec.RootHash,
		"a write is refused by the file system":  "Read-only file system",
		"no seed was left on a host that joined": "seed: none",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("%s: %q is not there", what, want)
		}
	}
}
