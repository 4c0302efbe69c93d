// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"metald.io/metald/test/lab/rack"
)

// The rack's machines with disks: one boots by PXE under a Redfish BMC, the other under an IPMI one.
const (
	redfishHost = "r1n01"
	ipmiHost    = "r1n02"
)

var installed = []string{redfishHost, ipmiHost}

// One of the two runs something when somebody lists it by mistake. It is looked at, and nothing else, until it is taken.
func TestRunningMachineIsOnlyRead(t *testing.T) {
	needReady(t)
	if err := lab.Button(t.Context(), redfishHost, "on"); err != nil {
		t.Fatal(err)
	}
	before, ok := lab.Running(redfishHost + ".qemu")
	if !ok {
		t.Fatal("the machine does not run")
	}
	commands := bmcCommands(t, redfishHost)
	if err := lab.Import(t.Context(), installed...); err != nil {
		t.Fatal(err)
	}
	followHost(t, redfishHost, func(h rack.Host) bool { return mentions(h, "metald host take "+redfishHost) })
	if page := metald(t, "status", redfishHost); !strings.Contains(page, "LAB0001") {
		t.Errorf("it was not even read: no serial number in\n%s", page)
	}
	plan, _, err := try(lab.MetaldCommand(t.Context(), "plan", redfishHost))
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 4 || !strings.Contains(plan, "HELD BACK") {
		t.Errorf("metald plan says that something may be done (%v):\n%s", err, plan)
	}
	time.Sleep(20 * time.Second)
	if now, ok := lab.Running(redfishHost + ".qemu"); !ok || now != before {
		t.Errorf("the machine that ran as process %d runs as %d, %t", before, now, ok)
	}
	if now := bmcCommands(t, redfishHost); now != commands {
		t.Errorf("its BMC met %d commands", now-commands)
	}
	metald(t, "host", "take", redfishHost, "--reason", "e2e: nobody needs what runs there")
}

// bmcCommands counts what a Redfish BMC was told to do, beyond logging in and out.
func bmcCommands(t *testing.T, name string) int {
	t.Helper()
	text, err := os.ReadFile(lab.Log(name + ".bmc"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "redfish request") && !strings.Contains(line, "method=GET") && !strings.Contains(line, "/SessionService/Sessions") {
			n++
		}
	}
	return n
}

// Both machines go from there to Ready Nodes. On the way metald is killed at three moments that the seed decides, and one
// machine loses power in the middle of its image. No disk is written twice without need.
func TestDisksAreInstalled(t *testing.T) {
	needReady(t)
	seed := seed(t)
	random := rand.New(rand.NewPCG(seed, 1))
	var moments []time.Duration // the whole way takes about two minutes, and longer on a busy machine
	for n := range 3 {
		moments = append(moments, time.Duration(n)*35*time.Second+time.Duration(random.Int64N(int64(30*time.Second))))
	}
	t.Logf("E2E_SEED=%d: kill -9 of metald after %v", seed, moments)
	start, cut := time.Now(), false
	var begun time.Time
	followHosts(t, installed, func(h rack.Host) bool {
		// The cut machine comes last: where it is quicker than a moment, that moment is now.
		if len(moments) > 0 && (time.Since(start) > moments[0] || h.Name == redfishHost && h.Ready()) {
			moments = moments[1:]
			t.Logf("killing metald after %s; %s: %s", time.Since(start).Round(time.Second), h.Name, h.Line())
			if err := lab.KillMetald(); err != nil {
				t.Fatal(err)
			}
			if err := lab.StartMetald(t.Context()); err != nil {
				t.Fatal(err)
			}
			return false
		}
		if h.Name == ipmiHost && begun.IsZero() && writing(h) {
			begun = time.Now()
		}
		if h.Name == ipmiHost && writeTook == 0 && !begun.IsZero() && written(h) {
			writeTook = time.Since(begun)
		}
		if h.Name == redfishHost && !cut && writing(h) && h.Doing.Done > 0 {
			cut = true
			if err := lab.Cut(h.Name); err != nil {
				t.Fatal(err)
			}
			verdict, err := lab.JudgeDisk(t.Context(), h.Name)
			t.Logf("%s lost power while %s, at byte %d of %d; its disk: %s", h.Name, h.Doing.Doing, h.Doing.Done, h.Doing.Total, verdict)
			if err != nil {
				t.Error(err)
			}
		}
		return h.Ready()
	})
	t.Logf("both Ready %s after the import", time.Since(start).Round(time.Second))
	if len(moments) > 0 {
		t.Errorf("metald was never killed at these moments: %v", moments)
	}
	if !cut {
		t.Fatalf("%s was never seen while its image was written", redfishHost)
	}
	for name, want := range map[string]int{redfishHost: 2, ipmiHost: 1} {
		if got := imageWrites(t, name); got != want {
			t.Errorf("the image was written to %s %d times, want %d", name, got, want)
		}
		if verdict, err := lab.JudgeDisk(t.Context(), name); err != nil || verdict != rack.HoldsImage {
			t.Errorf("the disk of %s: %s, %v; want %s", name, verdict, err, rack.HoldsImage)
		}
	}
}

// writeTook is how long an image took from its first byte on the disk to its verification, on this machine today.
var writeTook time.Duration

// writing says that an agent writes an image, or verifies what it wrote.
func writing(h rack.Host) bool {
	return h.Doing != nil && (strings.HasPrefix(h.Doing.Doing, "writing") || strings.HasPrefix(h.Doing.Doing, "verifying"))
}

func written(h rack.Host) bool {
	d := h.Progress.Deployment
	return d != nil && d.Install != nil && d.Install.Written != nil
}

// imageWrites counts how often a host began to write its disk: each time it fetches the boot loader, and at no other.
func imageWrites(t *testing.T, name string) int {
	t.Helper()
	text, err := os.ReadFile(lab.Log("metald"))
	if err != nil {
		t.Fatal(err)
	}
	n, address := 0, regexp.MustCompile(` ip=(\S+)`)
	lent := map[string]string{} // address -> host that had it last
	for line := range strings.Lines(string(text)) {
		ip := address.FindStringSubmatch(line)
		switch {
		case ip == nil:
		case strings.Contains(line, " host=default/"):
			_, after, _ := strings.Cut(line, " host=default/")
			lent[ip[1]] = strings.Fields(after)[0]
		case strings.Contains(line, "sent boot file") && strings.Contains(line, "name=loader.efi") && lent[ip[1]] == name:
			n++
		}
	}
	return n
}

func TestThreeNodesAreReady(t *testing.T) {
	want := lab.Names()
	for _, name := range want {
		followHost(t, name, func(h rack.Host) bool { return h.Ready() })
	}
	nodes := kubectl(t, "get", "nodes", "-o", `jsonpath={range .items[*]}{.metadata.name}={.status.conditions[?(@.type=="Ready")].status} {end}`)
	if got, all := nodes, strings.Join(want, "=True ")+"=True "; got != all {
		t.Fatalf("the cluster has %q, want %q", got, all)
	}
	for _, name := range want {
		apply(t, fmt.Sprintf(sleeperOn, name, localImage))
	}
	for _, name := range want {
		awaitPod(t, "sleeper-"+name, "Running")
	}
}

// sleeperOn is a pod that stays on one Node.
const sleeperOn = `
apiVersion: v1
kind: Pod
metadata: {name: sleeper-%[1]s}
spec:
  automountServiceAccountToken: false
  nodeSelector: {kubernetes.io/hostname: %[1]s}
  containers:
  - name: sleeper
    image: %[2]s
    imagePullPolicy: Never
`

// The BMC that nobody listed was seen, by reads of its service root without credentials, and became a Sighting.
func TestUnlistedBMCIsOnlyRead(t *testing.T) {
	eventually(t, "the unlisted BMC to be a Sighting", 3*time.Minute, func() (bool, string) {
		now := metald(t, "host", "sightings")
		return strings.Contains(now, rack.StrangerBMC), now
	})
	met, err := lab.StrangerMet()
	if err != nil {
		t.Fatal(err)
	}
	if len(met) == 0 {
		t.Error("it was never asked, and yet is a Sighting")
	}
	for _, line := range met {
		if !strings.Contains(line, "method=GET path=/redfish/v1/ credentials=false") {
			t.Errorf("the unlisted BMC met: %s", line)
		}
	}
}
