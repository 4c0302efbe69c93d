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
	ended    <-chan error // closed when it has
	log      bytes.Buffer
}

// Start runs an etcd with an empty data directory, until the test ends. It syncs nothing to the disk unless more flags say so:
// what is killed in these tests is a process, and the kernel keeps what that has written.
func Start(t testing.TB, flags ...string) *Server {
	t.Helper()
	s, err := Launch(t.TempDir(), flags...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Kill(t) })
	return s
}

// Launch is Start for what outlives a test: End ends it.
func Launch(dir string, flags ...string) (*Server, error) {
	at, err := freeAddress()
	if err != nil {
		return nil, err
	}
	peer, err := freeAddress()
	if err != nil {
		return nil, err
	}
	s := &Server{Endpoint: "http://" + at, dir: filepath.Join(dir, "etcd")}
	s.args = append([]string{
		"--data-dir=" + s.dir, "--log-level=error", "--unsafe-no-fsync",
		"--listen-client-urls=" + s.Endpoint, "--advertise-client-urls=" + s.Endpoint, "--listen-peer-urls=http://" + peer,
		"--initial-advertise-peer-urls=http://" + peer, "--initial-cluster=default=http://" + peer,
	}, flags...)
	return s, s.run()
}

// Run starts it again where it was killed, and waits until it answers.
func (s *Server) Run(t testing.TB) {
	t.Helper()
	if err := s.run(); err != nil {
		t.Fatal(err)
	}
}

func (s *Server) run() error {
	path, err := program()
	if err != nil {
		return err
	}
	s.cmd = exec.Command(path, s.args...)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a test that panics leaves nothing behind
	started := make(chan error, 1)
	go func() {
		// The signal comes when the thread ends that started it, so that one is kept for as long as it runs.
		runtime.LockOSThread()
		err := s.cmd.Start()
		started <- err
		if err == nil {
			_ = s.cmd.Wait() // it is killed
		}
		close(started)
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("starting etcd: %w", err)
	}
	s.ended = started
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for ctx.Err() == nil { // a client that finds nobody waits a second before it tries again
		if c, err := net.Dial("tcp", strings.TrimPrefix(s.Endpoint, "http://")); err == nil {
			c.Close()
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	client, err := s.dial()
	if err == nil {
		_, err = client.Get(ctx, "/")
		client.Close()
	}
	if err != nil {
		s.End()
		return fmt.Errorf("starting etcd: %w: %s", err, s.log.String())
	}
	return nil
}

// Kill ends it as a power cut would: with no word.
func (s *Server) Kill(testing.TB) { s.End() }

// End ends it, once.
func (s *Server) End() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill() // it is running, or has ended
	<-s.ended
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
	c, err := s.dial()
	if err != nil {
		t.Fatalf("making an etcd client: %v", err)
	}
	return c
}

func (s *Server) dial() (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: []string{s.Endpoint}, DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
}

// freeAddress is one that nobody listened on a moment ago.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func program() (string, error) {
	path := os.Getenv("METALD_ETCD")
	if path == "" {
		root, err := repository()
		if err != nil {
			return "", err
		}
		path = filepath.Join(root, "build", "etcd")
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("this test needs an etcd and finds none: make one with `make etcd`, or name one in METALD_ETCD: %w", err)
	}
	return path, nil
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
