// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// crash ends a program by SIGABRT in dir where core dumps may be as large as this machine lets them be, once ready says so, and says whether the kernel
// wrote one, and what the program printed.
func crash(t *testing.T, dir string, ready func() bool, command ...string) (dumped bool, output []byte) {
	t.Helper()
	var printed bytes.Buffer
	cmd := exec.Command("sh", append([]string{"-c", `ulimit -c "$(ulimit -Hc)"; exec "$@"`, "sh"}, command...)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &printed, &printed
	cmd.Env = append(os.Environ(), "GOTRACEBACK=crash")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }() // how it ended is in its state
	for deadline := time.Now().Add(time.Minute); !ready(); time.Sleep(50 * time.Millisecond) {
		select {
		case <-ended:
			t.Fatalf("%v ended: %s", command, printed.Bytes())
		default:
		}
		if time.Now().After(deadline) {
			_ = cmd.Process.Kill()
			<-ended
			t.Fatalf("%v is not ready: %s", command, printed.Bytes())
		}
	}
	if err := cmd.Process.Signal(syscall.SIGABRT); err != nil {
		t.Fatal(err)
	}
	<-ended
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !status.Signaled() || status.Signal() != syscall.SIGABRT {
		t.Fatalf("%v ended by %v, not by SIGABRT: %s", command, cmd.ProcessState, printed.Bytes())
	}
	return status.CoreDump(), printed.Bytes()
}

// A daemon that crashes with passwords in its memory leaves no core dump, and its last words hold none of them.
func TestCrashTellsNoSecret(t *testing.T) {
	at := time.Now()
	if dumped, _ := crash(t, t.TempDir(), func() bool { return time.Since(at) > 100*time.Millisecond }, "sleep", "60"); !dumped {
		t.Log("this machine makes no core dumps, of anything: only the last words are judged")
	}
	dir, data := t.TempDir(), filepath.Join(t.TempDir(), "data")
	const canary = "canary-93d1-of-a-BMC"
	stored := func() bool {
		d, err := (&access{dataDir: data}).open()
		if err != nil {
			return false // it has not made its kubeconfig yet
		}
		secret := &corev1.Secret{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}, ObjectMeta: metav1.ObjectMeta{Name: "bmc"}, StringData: map[string]string{"password": canary}}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		err = d.core.Post().Namespace("default").Resource("secrets").Body(secret).Do(ctx).Error()
		return err == nil || apierrors.IsAlreadyExists(err) // whose answer was late is stored nevertheless
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	config := filepath.Join(dir, "metald.yaml")
	text := fmt.Sprintf("apiVersion: config.metald.io/v1alpha1\nkind: MetaldConfiguration\napi: {listen: %q}\n", free.Addr())
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	dumped, output := crash(t, dir, stored, "metald", "serve", "--data-dir", data, "--config", config)
	if dumped {
		t.Error("the kernel wrote a core dump of metald")
	}
	if !bytes.Contains(output, []byte("SIGABRT")) {
		t.Errorf("it did not crash as a Go program does: %s", output)
	}
	if bytes.Contains(output, []byte(canary)) {
		t.Error("its last words tell the password")
	}
	for _, root := range []string{dir, data} {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			content, err := os.ReadFile(path)
			if bytes.Contains(content, []byte(canary)) || strings.HasPrefix(entry.Name(), "core") {
				t.Errorf("%s is there, or tells the password", path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
