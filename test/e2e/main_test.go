// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"metald.io/metald/test/lab/rack"
)

// lab is the rack that all tests share; host is its first machine, which runs from memory. Tests that are about one machine
// are about that one.
var (
	lab  *rack.Rack
	host string
)

var started = time.Now()

func TestMain(m *testing.M) { os.Exit(run(m)) }

// run brings the rack up to a serving metald that knows no host yet, and takes it down whatever happens.
func run(m *testing.M) (code int) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	name := "e2e"
	if text := os.Getenv("E2E_RACK"); text != "" { // another rack beside one that runs
		name = text
	}
	if lab, err = rack.New(name, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	host = lab.Spec(0).Name
	defer func() {
		if code != 0 {
			keepLogs()
		}
		if err := lab.Down(context.WithoutCancel(ctx)); err != nil {
			fmt.Fprintln(os.Stderr, "e2e: cleaning up:", err)
			code = 1
		}
	}()
	// What a run that was killed has left goes first.
	if err := lab.Down(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	if err := lab.RunSetup(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer leaveNothing(ctx)()
	return m.Run()
}

// leaveNothing takes the rack down too where the run does not come to its end: at an interrupt, and a little before the
// testing package's own limit, which ends the process without a word to anybody.
func leaveNothing(ctx context.Context) (calm func()) {
	limit := time.Duration(1 << 62)
	if f := flag.Lookup("test.timeout"); f != nil {
		if d := f.Value.(flag.Getter).Get().(time.Duration); d > 2*time.Minute {
			limit = d - time.Since(started) - time.Minute
		}
	}
	over := make(chan struct{})
	go func() {
		select {
		case <-over:
			return
		case <-ctx.Done():
			fmt.Println("e2e: interrupted")
		case <-time.After(limit):
			fmt.Println("e2e: the time is up")
		}
		keepLogs()
		if err := lab.Down(context.WithoutCancel(ctx)); err != nil {
			fmt.Fprintln(os.Stderr, "e2e: cleaning up:", err)
		}
		os.Exit(1)
	}()
	return func() { close(over) }
}

// keepLogs saves what the processes said before the rack is taken down.
func keepLogs() {
	kept := filepath.Join(lab.Cache, "e2e-failed")
	os.RemoveAll(kept)
	if err := os.CopyFS(kept, os.DirFS(lab.Path("log"))); err != nil {
		fmt.Fprintln(os.Stderr, "e2e: keeping the logs:", err)
		return
	}
	fmt.Printf("e2e: the logs are kept in %s\n", kept)
}

// must runs a command and returns what it printed.
func must(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, complaint, err := try(cmd)
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", strings.Join(cmd.Args, " "), err, out, complaint)
	}
	return out
}

func try(cmd *exec.Cmd) (out, complaint string, err error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	return stdout.String(), stderr.String(), err
}

// kubectl asks the Kubernetes cluster, bmh asks metald's own API with the same stock kubectl.
func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	return must(t, lab.Kubectl(t.Context(), args...))
}

func bmh(t *testing.T, args ...string) string {
	t.Helper()
	return must(t, lab.MetaldKubectl(t.Context(), args...))
}

func metald(t *testing.T, args ...string) string {
	t.Helper()
	return must(t, lab.MetaldCommand(t.Context(), args...))
}

// hostStatus is what `metald status -o json` prints of one host, as far as the tests look.
type hostStatus struct {
	Metadata struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Power     string `json:"power"`
	State     string `json:"state"`
	Error     string `json:"error"`
	Node      string `json:"node"`
	NodeReady bool   `json:"nodeReady"`
	Ready     bool   `json:"ready"`
	Waiting   *struct {
		For    string `json:"for"`
		Action string `json:"action"`
	} `json:"waiting"`
	Conditions []struct {
		Type, Status, Reason, Message string
	} `json:"conditions"`
}

func status(t *testing.T) hostStatus { t.Helper(); return statusOf(t, host) }

func statusOf(t *testing.T, name string) hostStatus {
	t.Helper()
	var list struct {
		Items []hostStatus `json:"items"`
	}
	text := metald(t, "status", "-o", "json")
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		t.Fatalf("reading metald status -o json: %v\n%s", err, text)
	}
	for _, h := range list.Items {
		if h.Metadata.Name == name {
			return h
		}
	}
	t.Fatalf("metald status does not list %s:\n%s", name, text)
	return hostStatus{}
}

// follow waits until done, telling each change, and ends when nothing moves any more.
func follow(t *testing.T, done func(rack.Host) bool) rack.Host {
	t.Helper()
	return followHost(t, host, done)
}

func followHost(t *testing.T, name string, done func(rack.Host) bool) (last rack.Host) {
	t.Helper()
	followHosts(t, []string{name}, func(h rack.Host) bool {
		last = h
		return done(h)
	})
	return last
}

// followHosts waits until done has said so of each host.
func followHosts(t *testing.T, names []string, done func(rack.Host) bool) {
	t.Helper()
	if err := lab.FollowAll(t.Context(), names, func(h rack.Host) (bool, error) { return done(h), nil }); err != nil {
		t.Fatal(err)
	}
}

// seed is what a run's moments follow from. E2E_SEED=N repeats one.
func seed(t *testing.T) uint64 {
	t.Helper()
	if text := os.Getenv("E2E_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("E2E_SEED: %v", err)
		}
		return seed
	}
	return uint64(time.Now().UnixNano())
}

// eventually tries until it holds; the limit is for things that take no machine's boot.
func eventually(t *testing.T, what string, limit time.Duration, holds func() (bool, string)) {
	t.Helper()
	var said string
	limit = lab.Scale(limit)
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(500 * time.Millisecond) {
		ok, now := holds()
		if ok {
			return
		}
		said = now
	}
	t.Fatalf("waiting for %s for %s; last: %s", what, limit, said)
}

// needReady skips nothing and guesses nothing: a test that needs the Node fails where there is none.
func needReady(t *testing.T) {
	t.Helper()
	follow(t, func(h rack.Host) bool { return h.Ready() })
}
