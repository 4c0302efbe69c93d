// SPDX-License-Identifier: Apache-2.0

// Package tpmtest starts swtpm, a TPM 2.0 that nobody here wrote, for tests that need a real answer.
//
// It must not be used outside tests. Start reading at Start.
package tpmtest

import (
	"net"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2/transport"
)

// Start runs a TPM whose state lies in dir until the test ends or the connection is closed. Started again on the same
// directory it is the same TPM after a reset. A test that calls it needs the program swtpm and fails without it.
func Start(t *testing.T, dir string) transport.TPMCloser {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "tpm")
	process := exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+dir, "--server", "type=unixio,path="+socket,
		"--ctrl", "type=unixio,path="+socket+".ctrl", "--flags", "not-need-init,startup-clear")
	if err := process.Start(); err != nil {
		t.Fatalf("starting swtpm: %v", err)
	}
	running := &running{process: process}
	t.Cleanup(func() { running.stop() })
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			running.TPMCloser = transport.FromReadWriteCloser(conn)
			return running
		}
		if time.Now().After(deadline) {
			t.Fatalf("swtpm does not answer: %v", err)
		}
	}
}

type running struct {
	transport.TPMCloser
	process *exec.Cmd
}

// Close stops the TPM, so that its state can be used by another.
func (r *running) Close() error {
	err := r.TPMCloser.Close()
	r.stop()
	return err
}

func (r *running) stop() {
	_ = r.process.Process.Kill() // it may be gone already
	_ = r.process.Wait()
}
