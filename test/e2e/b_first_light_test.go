// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"metald.io/metald/test/lab/rack"
)

// TestFirstLight is the whole path of one host, with the daemon killed once on the way at a moment that the seed decides.
func TestFirstLight(t *testing.T) {
	seed := seed(t)
	// The way to Ready takes about a minute on an idle machine, and longer on a busy one.
	moment := time.Duration(rand.New(rand.NewPCG(seed, 0)).Int64N(int64(50 * time.Second)))
	t.Logf("E2E_SEED=%d: kill -9 of metald %s after the import", seed, moment.Round(time.Millisecond))
	if err := lab.Import(t.Context(), host); err != nil {
		t.Fatal(err)
	}
	start, killed := time.Now(), false
	err := lab.Follow(t.Context(), host, func(h rack.Host) (bool, error) {
		if !killed && (h.Ready() || time.Since(start) > moment) {
			killed = true
			t.Logf("killing metald %s after the import; the host: %s", time.Since(start).Round(time.Millisecond), h.Line())
			if err := lab.KillMetald(); err != nil {
				return false, err
			}
			return false, lab.StartMetald(t.Context())
		}
		return h.Ready(), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !killed {
		t.Fatal("metald was never killed")
	}
	t.Logf("Ready %s after the import", time.Since(start).Round(100*time.Millisecond))
}

func TestNodeIsReady(t *testing.T) {
	needReady(t)
	got := kubectl(t, "get", "node", host, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status} {.status.nodeInfo.kubeletVersion}`)
	if want := "True " + rack.Kubernetes; got != want {
		t.Errorf("the cluster says %q of the Node, want %q", got, want)
	}
	labels := kubectl(t, "get", "node", host, "-o", `jsonpath={.metadata.labels}`)
	image, err := lab.ImageName()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"topology.kubernetes.io/region":"lab"`, `"topology.kubernetes.io/zone":"lab-a"`,
		`"metald.io/host":"default.` + host + `"`, `"metald.io/image":"` + image + `"`, `"metald.io/site":"lab"`,
	} {
		if !strings.Contains(labels, want) {
			t.Errorf("the Node lacks %s: %s", want, labels)
		}
	}
}

// The one credential of the host's way is gone after use, and exactly one request was approved.
func TestCredentialIsSpent(t *testing.T) {
	needReady(t)
	eventually(t, "the removal of the bootstrap token", 30*time.Second, func() (bool, string) {
		left := bootstrapTokens(t)
		return left == "", left
	})
	approved := kubectl(t, "get", "csr", "-o", `jsonpath={range .items[?(@.spec.signerName=="kubernetes.io/kube-apiserver-client-kubelet")]}{.spec.username} {.status.conditions[*].type}{"\n"}{end}`)
	if n := strings.Count(approved, " Approved"); n != 1 {
		t.Errorf("%d kubelet certificate requests are approved, want 1:\n%s", n, approved)
	}
}

func bootstrapTokens(t *testing.T) string {
	t.Helper()
	return kubectl(t, "get", "secrets", "-n", "kube-system", "--field-selector=type=bootstrap.kubernetes.io/token", "-o", "name")
}

func TestStatusAgreesWithCluster(t *testing.T) {
	needReady(t)
	h := status(t)
	node := kubectl(t, "get", "nodes", "-o", `jsonpath={range .items[*]}{.metadata.name}={.status.conditions[?(@.type=="Ready")].status} {end}`)
	if want := host + "=True "; node != want {
		t.Fatalf("the cluster has %q, want %q", node, want)
	}
	if h.Node != host || !h.NodeReady || !h.Ready || h.Power != "On" || h.State != "provisioned" || h.Error != "" {
		t.Errorf("metald status disagrees with a Ready Node: %+v", h)
	}
}

func TestMetal3Columns(t *testing.T) {
	needReady(t)
	table := bmh(t, "get", "bmh", "-o", "wide")
	lines := strings.Split(strings.TrimSpace(table), "\n")
	want := []string{"NAME", "STATUS", "STATE", "CONSUMER", "BMC", "ONLINE", "ERROR", "AGE"}
	if got := strings.Fields(lines[0]); !contains(got, want) {
		t.Errorf("columns are %v, want Metal3's %v", got, want)
	}
	if len(lines) != 2 || !strings.HasPrefix(lines[1], host) || !strings.Contains(lines[1], "provisioned") {
		t.Errorf("the host's row:\n%s", table)
	}
	hardware := bmh(t, "get", "hardwaredata", host, "-o", `jsonpath={.spec.hardware.ramMebibytes} {.spec.hardware.cpu.count} {.spec.hardware.nics[0].mac}`)
	var ram, cpus int
	var mac string
	if _, err := fmt.Sscan(hardware, &ram, &cpus, &mac); err != nil || ram < 1500 || cpus != 2 || !strings.EqualFold(mac, lab.Spec(0).MAC) {
		t.Errorf("the hardware is %q, want about 2 GiB, 2 threads and %s", hardware, lab.Spec(0).MAC)
	}
}

// contains says whether all words of want are in got, in that order.
func contains(got, want []string) bool {
	for _, g := range got {
		if len(want) > 0 && g == want[0] {
			want = want[1:]
		}
	}
	return len(want) == 0
}
