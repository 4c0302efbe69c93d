// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"metald.io/metald/test/lab/rack"
)

func TestUnknownConfigKey(t *testing.T) {
	text, err := os.ReadFile(lab.ConfigFile())
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "metald.yaml")
	if err := os.WriteFile(config, append(text, "wake_on_lan: true\n"...), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, complaint, err := try(exec.CommandContext(ctx, lab.Metald(), "serve", "--config", config, "--data-dir", t.TempDir()))
	if err == nil || ctx.Err() != nil {
		t.Fatal("metald starts with a key that it does not know")
	}
	if !strings.Contains(complaint, "wake_on_lan") {
		t.Errorf("the error does not name the key: %s", complaint)
	}
}

func TestSecondDaemon(t *testing.T) {
	first, ok := lab.Running("metald")
	if !ok {
		t.Fatal("metald does not run")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	start := time.Now()
	_, complaint, err := try(lab.Inside(ctx, lab.Metald(), "serve", "--config", lab.ConfigFile(), "--data-dir", lab.Data()))
	took := time.Since(start)
	if err == nil || ctx.Err() != nil {
		t.Fatal("a second metald runs on the same data directory")
	}
	if !strings.Contains(complaint, fmt.Sprint(first)) {
		t.Errorf("the error does not name the holder, process %d: %s", first, complaint)
	}
	if took > 4*time.Second {
		t.Errorf("it took %s to say so", took)
	}
	if now, ok := lab.Running("metald"); !ok || now != first {
		t.Errorf("the first metald did not survive: process %d, running %t", now, ok)
	}
}

func TestImportRefusesUnknownColumn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts.csv")
	if err := os.WriteFile(path, []byte("name,bmc_address,bmc_username,bmc_password,boot_mac,colour\nx,redfish://192.0.2.1,u,p,02:00:00:00:00:01,blue\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, complaint, err := try(lab.MetaldCommand(t.Context(), "import", path))
	if err == nil || !strings.Contains(out+complaint, "colour") {
		t.Errorf("import with an unknown column: %v\n%s%s", err, out, complaint)
	}
	if list := bmh(t, "get", "bmh", "-A", "-o", "name"); list != "" {
		t.Errorf("hosts were made all the same: %s", list)
	}
}

// A host is imported with a wrong password; the BMC then hangs; then the password is right and the BMC answers. Each must
// show its cause, and the last must heal it without anybody touching metald.
func TestWrongPasswordThenHungBMC(t *testing.T) {
	path, err := lab.HostsFile(func(string) (string, error) { return "not-the-password", nil }, host)
	if err != nil {
		t.Fatal(err)
	}
	metald(t, "import", path)
	follow(t, func(h rack.Host) bool { return mentions(h, "credential", "password", "login", "unauthorized") })

	// Accounts get locked: a refused login is not tried again until the Secret changes.
	before := refusedLogins(t)
	if before == 0 {
		t.Error("the BMC has refused nobody")
	}
	time.Sleep(20 * time.Second)
	if after := refusedLogins(t); after != before {
		t.Errorf("%d more logins were refused within 20 s although the Secret did not change", after-before)
	}
	if before > 2 {
		t.Errorf("%d logins were refused before metald stopped trying, want at most 2", before)
	}

	if err := lab.Signal(host+".bmc", syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	hung := true
	defer func() {
		if hung {
			lab.Signal(host+".bmc", syscall.SIGCONT)
		}
	}()
	if err := lab.Import(t.Context(), host); err != nil { // the right password now
		t.Fatal(err)
	}
	follow(t, func(h rack.Host) bool {
		return mentions(h, "unreachable", "did not answer", "no answer", "deadline", "timeout", "timed out")
	})
	if err := lab.Signal(host+".bmc", syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	hung = false
	follow(t, func(h rack.Host) bool { return h.Progress.State != "" && h.Progress.State != "registering" })
}

func refusedLogins(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(lab.Log(host + ".bmc"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(text), "status=401")
}

// mentions looks for a word in all that metald says of the host's trouble.
func mentions(h rack.Host, words ...string) bool {
	text := h.Error + "\n" + h.Progress.LastError
	if h.Progress.Waiting != nil {
		text += "\n" + h.Progress.Waiting.For + "\n" + h.Progress.Waiting.Action
	}
	for _, c := range h.Conditions {
		text += "\n" + c.Reason + " " + c.Message
	}
	text = strings.ToLower(text)
	for _, w := range words {
		if strings.Contains(text, strings.ToLower(w)) {
			return true
		}
	}
	return false
}
