// SPDX-License-Identifier: Apache-2.0

package clients

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// configText makes a daemon that serves its API on loopback and touches nothing else.
const configText = `apiVersion: config.metald.io/v1alpha1
kind: MetaldConfiguration
api:
  listen: %s
log:
  level: warn
`

// metald is one daemon of a test, unprivileged and on loopback.
type metald struct {
	data, config string

	mu      sync.Mutex
	cmd     *exec.Cmd
	log     *bytes.Buffer
	ended   chan struct{}
	endedBy error
}

// startMetald starts a daemon on a data directory of its own and ends it with the test.
func startMetald(t *testing.T) *metald {
	t.Helper()
	dir := t.TempDir()
	m := &metald{data: filepath.Join(dir, "data"), config: filepath.Join(dir, "config.yaml")}
	if err := os.WriteFile(m.config, fmt.Appendf(nil, configText, freeAddress(t)), 0o644); err != nil {
		t.Fatal(err)
	}
	m.start(t)
	t.Cleanup(func() {
		if err := m.stop(syscall.SIGTERM); err != nil {
			t.Errorf("ending metald: %v\n%s", err, m.log)
		}
	})
	return m
}

// freeAddress is a port of 127.0.0.1 that nobody listens on. It stays the same when the daemon starts again, as in life; so it
// is below those that the kernel gives to connections, one of which might have it while the daemon is away.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(12_000))
		if listener, err := net.Listen("tcp", address); err == nil {
			listener.Close()
			return address
		}
	}
	t.Fatal("no port is free")
	return ""
}

// start runs the daemon and waits until its API answers.
func (m *metald) start(t *testing.T) {
	t.Helper()
	m.mu.Lock()
	m.log, m.ended = new(bytes.Buffer), make(chan struct{})
	m.cmd = exec.Command(*program, "serve", "--data-dir", m.data, "--config", m.config)
	m.cmd.Stdout, m.cmd.Stderr = m.log, m.log
	// Tests that end by their deadline clean up nothing.
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err := m.cmd.Start()
	m.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		m.endedBy = m.cmd.Wait()
		close(m.ended)
	}()
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if err = m.answers(t.Context()); err == nil {
			return
		}
		select {
		case <-m.ended:
			t.Fatalf("metald ended: %v\n%s", m.endedBy, m.log)
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("metald's API does not answer in a minute: %v", err)
		}
	}
}

// answers is nil once the API is ready.
func (m *metald) answers(ctx context.Context) error {
	config, err := clientcmd.BuildConfigFromFlags("", m.admin())
	if err != nil {
		return err
	}
	config.Timeout = 5 * time.Second
	client, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return err
	}
	return client.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
}

// stop sends the daemon a signal and waits for its end; being killed is no error to one who asked for it.
func (m *metald) stop(signal syscall.Signal) error {
	if err := m.cmd.Process.Signal(signal); err != nil {
		return err
	}
	select {
	case <-m.ended:
	case <-time.After(30 * time.Second):
		return errors.Join(errors.New("metald did not end in 30 s"), m.cmd.Process.Kill())
	}
	if signal == syscall.SIGKILL {
		return nil
	}
	return m.endedBy
}

// admin is the administrator's kubeconfig, which the daemon writes.
func (m *metald) admin() string { return filepath.Join(m.data, "admin.kubeconfig") }

// login has `metald kubeconfig` sign a login, and returns the file.
func (m *metald) login(t *testing.T, user string, groups ...string) string {
	t.Helper()
	args := []string{"kubeconfig", "--data-dir", m.data, "--user", user}
	for _, group := range groups {
		args = append(args, "--group", group)
	}
	out, err := exec.Command(*program, args...).Output()
	if err != nil {
		t.Fatalf("signing a login for %s: %v", user, err)
	}
	path := filepath.Join(t.TempDir(), user+".kubeconfig")
	if err := os.WriteFile(path, out, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// client is how a program reaches the daemon with a kubeconfig. It may ask as fast as it can: the daemon has limits of its own.
func (m *metald) client(t *testing.T, kubeconfig string) *rest.Config {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	return config
}
