// SPDX-License-Identifier: Apache-2.0

package rack

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// programs are what test/lab/kubernetes pins, by their packages.
var programs = map[string]string{
	"etcd":                    "go.etcd.io/etcd/server/v3",
	"kube-apiserver":          "k8s.io/kubernetes/cmd/kube-apiserver",
	"kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
	"kube-scheduler":          "k8s.io/kubernetes/cmd/kube-scheduler",
	"kubeadm":                 "k8s.io/kubernetes/cmd/kubeadm",
	"kubectl":                 "k8s.io/kubernetes/cmd/kubectl",
	"kubelet":                 "k8s.io/kubernetes/cmd/kubelet",
}

// order keeps the progress lines and the builds the same each time.
var programOrder = []string{"kubelet", "kubectl", "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubeadm"}

// versionFlags are stamped into the programs: kubeadm and the API server compare them.
func versionFlags() string {
	minor := strings.Split(Kubernetes, ".")[1]
	return "-s -w -X k8s.io/component-base/version.gitVersion=" + Kubernetes +
		" -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=" + minor
}

// Programs builds the control plane's programs and kubelet where they are missing or of another version: 8 to 10 minutes
// with an empty build cache, nothing when up to date.
func (r *Rack) Programs(ctx context.Context) error {
	module := filepath.Join(r.Repo, "test", "lab", "kubernetes")
	stamp, err := r.programStamp(module)
	if err != nil {
		return err
	}
	stampFile := r.Program(".stamp")
	if old, err := os.ReadFile(stampFile); err == nil && string(old) == stamp && r.allBuilt() {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(stampFile), 0o755); err != nil {
		return fmt.Errorf("building the control plane: %w", err)
	}
	for n, name := range programOrder {
		r.say("    building %s %s (%d of %d; the first one takes minutes when Go's cache is empty)", name, Kubernetes, n+1, len(programOrder))
		cmd := exec.CommandContext(ctx, "go", "build", "-v", "-trimpath", "-ldflags", versionFlags(), "-o", r.Program(name), programs[name])
		cmd.Dir = module
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
		if err := r.progress(cmd, "packages compiled"); err != nil {
			return fmt.Errorf("building %s: %w", name, err)
		}
	}
	if err := os.WriteFile(stampFile, []byte(stamp), 0o644); err != nil {
		return fmt.Errorf("building the control plane: %w", err)
	}
	return nil
}

func (r *Rack) allBuilt() bool {
	for name := range programs {
		if _, err := os.Stat(r.Program(name)); err != nil {
			return false
		}
	}
	return true
}

func (r *Rack) programStamp(module string) (string, error) {
	sum := sha256.New()
	fmt.Fprintln(sum, runtime.Version(), runtime.GOARCH, versionFlags())
	for _, name := range []string{"go.mod", "go.sum", "tools.go"} {
		text, err := os.ReadFile(filepath.Join(module, name))
		if err != nil {
			return "", fmt.Errorf("reading the control plane's module: %w", err)
		}
		sum.Write(text)
	}
	return fmt.Sprintf("%x\n", sum.Sum(nil)), nil
}

// progress runs a command that prints a line for each thing done, and says every few seconds how far it is. What it
// printed last is in its error.
func (r *Rack) progress(cmd *exec.Cmd, unit string) error {
	out, err := os.OpenFile(r.buildLog(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("opening the build's log: %w", err)
	}
	defer out.Close()
	fmt.Fprintf(out, "\n$ %s\n", strings.Join(cmd.Args, " "))
	// Ask it to stop, as a Ctrl-C would: what it has mounted or half unpacked is its own to clear away.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	read, write := io.Pipe()
	cmd.Stdout, cmd.Stderr = write, write
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", cmd.Args[0], err)
	}
	lines := make(chan string)
	go func() {
		defer close(lines)
		for scan := bufio.NewScanner(io.TeeReader(read, out)); scan.Scan(); {
			lines <- scan.Text()
		}
		io.Copy(io.Discard, read)
	}()
	ended := make(chan error, 1)
	go func() {
		err := cmd.Wait()
		write.Close()
		ended <- err
	}()
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	start, count, last := time.Now(), 0, ""
	for lines != nil {
		select {
		case line, ok := <-lines:
			if !ok {
				lines = nil
				break
			}
			count, last = count+1, line
		case <-tick.C:
			if unit == "" {
				r.say("    ... %s, now: %.100s", time.Since(start).Round(time.Second), last)
			} else {
				r.say("    ... %s, %d %s, now: %.80s", time.Since(start).Round(time.Second), count, unit, last)
			}
		}
	}
	if err := <-ended; err != nil {
		return fmt.Errorf("running %s: %w: %s (log %s)", strings.Join(cmd.Args, " "), err, last, r.buildLog())
	}
	return nil
}

func (r *Rack) buildLog() string { return filepath.Join(r.Cache, "build.log") }
