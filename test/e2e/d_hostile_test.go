// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/test/lab/rack"
)

func TestControlPlaneAway(t *testing.T) {
	needReady(t)
	if err := lab.Signal("kube-apiserver", syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	stopped := true
	defer func() {
		if stopped {
			lab.Signal("kube-apiserver", syscall.SIGCONT)
		}
	}()
	reachable := func() string {
		return bmh(t, "get", "kubernetescluster", "lab", "-o", `jsonpath={.status.conditions[?(@.type=="Reachable")].status} {.status.conditions[?(@.type=="Reachable")].message}`)
	}
	eventually(t, "condition Reachable to be false", 3*time.Minute, func() (bool, string) {
		now := reachable()
		return strings.HasPrefix(now, "False ") && len(now) > len("False "), now
	})
	if err := lab.Signal("kube-apiserver", syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	stopped = false
	eventually(t, "condition Reachable to be true again", 3*time.Minute, func() (bool, string) {
		now := reachable()
		return strings.HasPrefix(now, "True"), now
	})
	needReady(t)
}

func TestChangedBMCCertificate(t *testing.T) {
	needReady(t)
	before := bmh(t, "get", "hostinventory", host, "-o", "jsonpath={.status.identity.bmcCertificateSHA256}")
	if len(before) != 64 {
		t.Fatalf("the pinned certificate is %q, want a sha256", before)
	}
	restore, err := lab.ReplaceBMCCertificate(t.Context(), host)
	if err != nil {
		t.Fatal(err)
	}
	follow(t, func(h rack.Host) bool { return mentions(h, "certificate") })
	if sent := credentialsSent(t); sent != 0 {
		t.Errorf("%d requests with credentials reached a BMC that shows another certificate", sent)
	}
	if now := bmh(t, "get", "hostinventory", host, "-o", "jsonpath={.status.identity.bmcCertificateSHA256}"); now != before {
		t.Errorf("the pin moved from %s to %s by itself", before, now)
	}
	if err := restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	follow(t, func(h rack.Host) bool { return !mentions(h, "certificate") && h.Ready() })
}

// credentialsSent counts the requests beyond the open service root that the BMC has met since it was last started.
func credentialsSent(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(lab.Log(host + ".bmc"))
	if err != nil {
		t.Fatal(err)
	}
	log := string(text)
	log = log[strings.LastIndex(log, "bmc serves"):]
	return strings.Count(log, "redfish request") - strings.Count(log, "path=/redfish/v1 ") - strings.Count(log, "path=/redfish/v1/ ")
}

// A board with the same MAC, serial number and UUID but another TPM boots. It must get neither seed nor credential.
func TestOtherTPM(t *testing.T) {
	needReady(t)
	restore := reboot(t, func() (func() error, error) { return lab.SwapTPM(host) })
	pinned := inventory(t).Status.Identity.EKSHA256
	tokens := watchTokens(t)
	follow(t, func(h rack.Host) bool { return refused(t, "TPMChanged") })
	time.Sleep(15 * time.Second) // it goes on asking; nothing may be given later either
	if seen := tokens(); len(seen) > 0 {
		t.Errorf("bootstrap tokens were made for a stranger: %v", seen)
	}
	facts := inventory(t)
	if facts.Status.Identity.EKSHA256 != pinned {
		t.Error("the stranger's key was pinned")
	}
	if facts.Status.Agent.Refusal.EKSHA256 == pinned || facts.Status.Agent.Refusal.EKSHA256 == "" {
		t.Errorf("the refusal names key %q, want the stranger's", facts.Status.Agent.Refusal.EKSHA256)
	}
	if page := metald(t, "status", host); !strings.Contains(page, "TPM") {
		t.Errorf("metald status %s does not say so:\n%s", host, page)
	}
	if h := status(t); h.Ready {
		t.Error("metald calls the host Ready")
	}
	// The Node of the earlier boot is called Ready until its cluster's grace period is over.
	eventually(t, "no Node to be Ready", 2*time.Minute, func() (bool, string) {
		ready := kubectl(t, "get", "nodes", "-o", `jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}`)
		return !strings.Contains(ready, "True"), ready
	})
	if h := status(t); h.Ready {
		t.Error("metald calls the host Ready")
	}
	reboot(t, func() (func() error, error) { return nil, restore() })
	needReady(t)
}

// The daemon dies while firmware takes its boot file. Firmware falls into its shell and asks no more, so metald must see
// that the file never arrived, and boot the machine again.
func TestKilledWhileSendingBootFile(t *testing.T) {
	needReady(t)
	reboot(t, func() (func() error, error) { return nil, nil })
	follow(t, func(h rack.Host) bool { return mentions(h, "to fetch its boot file") })
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		// Bytes that wait for the machine: the transfer is on its way.
		queues := must(t, lab.Inside(t.Context(), "ss", "-Htn", "state", "established", "sport", "=", ":80"))
		if fields := strings.Fields(queues); len(fields) > 1 && fields[1] != "0" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no transfer was seen; last: %s", queues)
		}
	}
	if err := lab.KillMetald(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(5 * time.Second)
	if err := lab.StartMetald(t.Context()); err != nil {
		t.Fatal(err)
	}
	follow(t, func(h rack.Host) bool { return mentions(h, "the transfer broke off") })
	needReady(t)
}

// reboot pulls the first machine's plug while metald is away, changes something, and lets metald find the host off.
func reboot(t *testing.T, change func() (func() error, error)) (restore func() error) {
	t.Helper()
	rebootHost(t, host, func() (err error) {
		restore, err = change()
		return err
	})
	return restore
}

func rebootHost(t *testing.T, name string, change func() error) {
	t.Helper()
	if err := lab.Stop("metald", 20*time.Second); err != nil {
		t.Fatal(err)
	}
	if err := lab.Button(t.Context(), name, "off"); err != nil {
		t.Fatal(err)
	}
	if err := change(); err != nil {
		t.Fatal(err)
	}
	if err := lab.StartMetald(t.Context()); err != nil {
		t.Fatal(err)
	}
	followHost(t, name, func(h rack.Host) bool { return !h.Ready() })
}

// refused says whether the machine was turned away, or turned its image away, for that reason.
func refused(t *testing.T, reason string) bool {
	t.Helper()
	agent := inventory(t).Status.Agent
	return agent != nil && agent.Refusal != nil && agent.Refusal.Reason == reason
}

func inventory(t *testing.T) v1alpha1.HostInventory {
	t.Helper()
	var facts v1alpha1.HostInventory
	if err := lab.Read(t.Context(), "/apis/metald.io/v1alpha1/namespaces/default/hostinventories/"+host, &facts); err != nil {
		t.Fatal(err)
	}
	return facts
}

// watchTokens notes each bootstrap token that the cluster meets from now on.
func watchTokens(t *testing.T) func() []string {
	t.Helper()
	cmd := lab.Kubectl(t.Context(), "get", "secrets", "-n", "kube-system", "--field-selector=type=bootstrap.kubernetes.io/token", "--watch-only", "-o", "name")
	file, err := os.CreateTemp(t.TempDir(), "tokens")
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = file
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() []string {
		cmd.Process.Kill()
		cmd.Wait()
		text, err := os.ReadFile(file.Name())
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(string(text))
	}
}

// An image whose file differs from its description by one byte is not taken in.
func TestFlippedByteIsNotImported(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(lab.ImageDir())); err != nil {
		t.Fatal(err)
	}
	flip(t, filepath.Join(dir, "root.img"))
	// An empty store, since the one of the rack has the right bytes already and would not look at these.
	out, complaint, err := try(lab.Inside(t.Context(), lab.Metald(), "image", "import", dir, "--data-dir", t.TempDir(), "--kubeconfig", lab.MetaldKubeconfig()))
	if err == nil {
		t.Fatalf("an image with a flipped byte was imported:\n%s", out)
	}
	image, err := lab.Image()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(complaint, "root.img") || !strings.Contains(complaint, image.Spec.Root.SHA256) {
		t.Errorf("the error names neither file nor digest: %s", complaint)
	}
}

// The root's bytes rot in the store after they were taken in. The machine must refuse them and say so, not run them.
func TestFlippedByteIsNotRun(t *testing.T) {
	needReady(t)
	image, err := lab.Image()
	if err != nil {
		t.Fatal(err)
	}
	var blob string
	filepath.WalkDir(filepath.Join(lab.Data(), "images"), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && strings.Contains(entry.Name(), image.Spec.Root.SHA256) {
			blob = path
		}
		return nil
	})
	if blob == "" {
		t.Fatalf("the store holds no file for %s", image.Spec.Root.SHA256)
	}
	reboot(t, func() (func() error, error) { flip(t, blob); return nil, nil })
	follow(t, func(h rack.Host) bool { return refused(t, "ImageRefused") })
	if h := status(t); h.Ready || h.NodeReady {
		t.Errorf("metald calls a host Ready that refused its image: %+v", h)
	}
	if page := metald(t, "status", host); !strings.Contains(page, image.Spec.Root.SHA256) {
		t.Errorf("metald status %s does not name the digest that was wanted:\n%s", host, page)
	}
	reboot(t, func() (func() error, error) { flip(t, blob); return nil, nil })
	needReady(t)
}

// flip turns one bit in the middle of a file, in place.
func flip(t *testing.T, path string) {
	t.Helper()
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	if _, err := file.ReadAt(b, info.Size()/2); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := file.WriteAt(b, info.Size()/2); err != nil {
		t.Fatal(err)
	}
}
