// SPDX-License-Identifier: Apache-2.0

// Package etcdtest starts a real etcd on loopback for a test, and ends it with the test. It must not know who stores what in it.
//
// The program is the one that the variable METALD_ETCD names, else build/etcd of this repository, which `make etcd` makes.
// A test that finds neither fails: a suite that did not run proves nothing.
//
// Start reading at Start.
package etcdtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Server is an etcd of one member.
type Server struct {
	// Endpoint is where clients reach it.
	Endpoint string
	dir      string
	args     []string
	cmd      *exec.Cmd
	log      bytes.Buffer
}

// Start runs an etcd with an empty data directory. It syncs nothing to the disk unless more flags say so: what is killed in
// these tests is a process, and the kernel keeps what that has written.
func Start(t testing.TB, flags ...string) *Server {
	t.Helper()
	peer := "http://" + freeAddress(t)
	s := &Server{Endpoint: "http://" + freeAddress(t), dir: filepath.Join(t.TempDir(), "etcd")}
	s.args = append([]string{
		"--data-dir=" + s.dir, "--log-level=error", "--unsafe-no-fsync",
		"--listen-client-urls=" + s.Endpoint, "--advertise-client-urls=" + s.Endpoint, "--listen-peer-urls=" + peer,
		"--initial-advertise-peer-urls=" + peer, "--initial-cluster=default=" + peer,
	}, flags...)
	s.Run(t)
	t.Cleanup(func() { s.Kill(t) })
	return s
}

// Run starts it, or starts it again where it was killed, and waits until it answers.
func (s *Server) Run(t testing.TB) {
	t.Helper()
	s.cmd = exec.Command(program(t), s.args...)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a test that panics leaves nothing behind
	runtime.LockOSThread()                                               // the signal comes when the thread ends that started it
	defer runtime.UnlockOSThread()
	if err := s.cmd.Start(); err != nil {
		t.Fatalf("starting etcd: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for ctx.Err() == nil { // a client that finds nobody waits a second before it tries again
		if c, err := net.Dial("tcp", strings.TrimPrefix(s.Endpoint, "http://")); err == nil {
			c.Close()
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	client := s.Client(t)
	defer client.Close()
	if _, err := client.Get(ctx, "/"); err != nil {
		s.Kill(t)
		t.Fatalf("starting etcd: %v: %s", err, s.log.String())
	}
}

// Kill ends it as a power cut would: with no word.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	if s.cmd == nil {
		return
	}
	if err := s.cmd.Process.Kill(); err != nil {
		t.Errorf("killing etcd: %v", err)
	}
	_ = s.cmd.Wait() // it was killed
	s.cmd = nil
}

// Save keeps what etcd holds now, for a while with a restart. Each call of back puts it back, as an operator does with a
// snapshot.
func (s *Server) Save(t testing.TB) (back func()) {
	t.Helper()
	saved := filepath.Join(t.TempDir(), "saved")
	replace := func(from, to string) {
		t.Helper()
		s.Kill(t)
		if err := errors.Join(os.RemoveAll(to), os.CopyFS(to, os.DirFS(from))); err != nil {
			t.Fatal(err)
		}
		s.Run(t)
	}
	replace(s.dir, saved)
	return func() { replace(saved, s.dir) }
}

// Client sees all keys, as a person with etcdctl does. The caller closes it.
func (s *Server) Client(t testing.TB) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{s.Endpoint}, DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		t.Fatalf("making an etcd client: %v", err)
	}
	return c
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func program(t testing.TB) string {
	t.Helper()
	path := os.Getenv("METALD_ETCD")
	if path == "" {
		root, err := repository()
		if err != nil {
			t.Fatal(err)
		}
		path = filepath.Join(root, "build", "etcd")
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("this test needs an etcd and finds none: make one with `make etcd`, or name one in METALD_ETCD: %v", err)
	}
	return path
}

// repository is the directory above this one that holds the main module.
func repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("looking for the repository: no go.mod above here")
}
