// SPDX-License-Identifier: Apache-2.0

package rack

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

func testRack(t *testing.T) *Rack {
	t.Helper()
	r, err := New("test", &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	r.Dir, r.Cache = t.TempDir(), t.TempDir()
	return r
}

func TestStartAndStop(t *testing.T) {
	r := testRack(t)
	if err := r.start(process{name: "sleeper", argv: []string{"sleep", "60"}, here: true}); err != nil {
		t.Fatal(err)
	}
	pid, ok := r.Running("sleeper")
	if !ok {
		t.Fatal("sleeper does not run after start")
	}
	if err := r.start(process{name: "sleeper", argv: []string{"false"}, here: true}); err != nil {
		t.Fatalf("starting what runs: %v", err)
	}
	if again, _ := r.Running("sleeper"); again != pid {
		t.Errorf("a second start made process %d beside %d", again, pid)
	}
	if got := r.Processes(); len(got) != 1 || got[0] != "sleeper" {
		t.Errorf("Processes() = %v, want [sleeper]", got)
	}
	if err := r.Stop("sleeper", 5*time.Second); err != nil {
		t.Fatal(err)
	}
	if _, ok := r.Running("sleeper"); ok {
		t.Error("sleeper runs after Stop")
	}
	if err := r.Stop("sleeper", time.Second); err != nil {
		t.Errorf("stopping what does not run: %v", err)
	}
}

func TestStopUsesForce(t *testing.T) {
	r := testRack(t)
	script := "trap '' TERM; echo ready; while :; do sleep 0.1; done"
	if err := r.start(process{name: "deaf", argv: []string{"sh", "-c", script}, here: true}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if text, _ := os.ReadFile(r.Log("deaf")); strings.Contains(string(text), "ready") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the process never got ready")
		}
	}
	if err := r.Stop("deaf", 100*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if _, ok := r.Running("deaf"); ok {
		t.Error("a process that ignores SIGTERM survived Stop")
	}
}

// A process id is handed out again after a while. A record of another life must neither count as running nor be signalled.
func TestStrangerIsLeftAlone(t *testing.T) {
	r := testRack(t)
	if err := os.MkdirAll(r.Path("run"), 0o755); err != nil {
		t.Fatal(err)
	}
	record := fmt.Sprintf("%d 1\n", os.Getpid())
	if err := os.WriteFile(r.Path("run", "stranger.pid"), []byte(record), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, ok := r.Running("stranger"); ok {
		t.Error("a process with another start time is taken for ours")
	}
	if err := r.Signal("stranger", syscall.SIGUSR1); err == nil {
		t.Error("a stranger was signalled")
	}
	if err := r.Stop("stranger", time.Second); err != nil {
		t.Fatal(err)
	}
}

func TestStartTellsWhy(t *testing.T) {
	r := testRack(t)
	err := r.start(process{name: "nothing", argv: []string{"/no/such/program"}, here: true})
	if err == nil || !strings.Contains(err.Error(), "starting nothing") {
		t.Errorf("starting a missing program: %v", err)
	}
}

func TestProgressFailure(t *testing.T) {
	r := testRack(t)
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "echo all well; echo the disk is on fire >&2; exit 3")
	err := r.progress(cmd, "lines")
	if err == nil || !strings.Contains(err.Error(), "the disk is on fire") {
		t.Errorf("the error does not hold the last words: %v", err)
	}
	log, err := os.ReadFile(r.buildLog())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(log), "all well") {
		t.Errorf("the log lacks the output: %q", log)
	}
}
