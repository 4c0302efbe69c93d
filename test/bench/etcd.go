// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"metald.io/metald/internal/inventory"
)

// keeper is one store of keys that is measured, behind etcd's client.
type keeper struct {
	name   string
	client *clientv3.Client
	// cpu is the CPU time in seconds spent so far, by the store and by whoever asks it.
	cpu   func() float64
	close func() error
}

// openInventory opens metald's store in a new directory.
func openInventory(dir string) (*keeper, error) {
	path, err := os.MkdirTemp(dir, "metald-")
	if err != nil {
		return nil, err
	}
	store, err := inventory.Open(path, inventory.Options{})
	if err != nil {
		return nil, err
	}
	return &keeper{name: "metald", client: store.Etcd(), cpu: spent, close: store.Close}, nil
}

// peerEtcd is the etcd that `make etcd` builds.
var peerEtcd = filepath.Join("build", "etcd")

// startEtcd starts it with a new data directory on the same disk and its fsync on.
func startEtcd(ctx context.Context, dir string) (*keeper, error) {
	if _, err := os.Stat(peerEtcd); err != nil {
		return nil, fmt.Errorf("the peer is absent (make etcd): %w", err)
	}
	path, err := os.MkdirTemp(dir, "etcd-")
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	url, peer := "http://127.0.0.1:"+ports[0], "http://127.0.0.1:"+ports[1]
	var log bytes.Buffer
	cmd := exec.Command(peerEtcd, "--data-dir="+filepath.Join(path, "data"), "--log-level=error",
		"--listen-client-urls="+url, "--advertise-client-urls="+url, "--listen-peer-urls="+peer,
		"--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting etcd: %w", err)
	}
	end := func() error {
		err := cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		return err
	}
	for range 300 { // a client that dials too early complains on the terminal
		if c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://")); err == nil {
			c.Close()
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{url}, DialTimeout: 10 * time.Second})
	if err != nil {
		return nil, errors.Join(err, end())
	}
	ready, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if _, err := client.Get(ready, "/"); err != nil {
		return nil, errors.Join(fmt.Errorf("starting etcd: %w: %s", err, log.String()), client.Close(), end())
	}
	return &keeper{
		name: "etcd over gRPC", client: client,
		cpu:   func() float64 { return spent() + spentBy(cmd.Process.Pid) },
		close: func() error { return errors.Join(client.Close(), end()) },
	}, nil
}

// freePorts are ports of 127.0.0.1 that nobody listened on a moment ago.
func freePorts(n int) (ports []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		_, port, err := net.SplitHostPort(l.Addr().String())
		if err != nil {
			return nil, err
		}
		ports = append(ports, port)
	}
	return ports, nil
}

// spentBy is the CPU time of a running process in seconds, from proc(5)'s stat.
func spentBy(pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	var ticks float64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseFloat(f, 64)
		if err != nil {
			return 0
		}
		ticks += n
	}
	return ticks / 100 // USER_HZ, the same on every Linux
}
