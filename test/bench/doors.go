// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"metald.io/metald/internal/apiserver/crds"
	"metald.io/metald/internal/daemon"
	"metald.io/metald/test/lab/rack"
)

// apiDoor is a running API server with Metal3's kinds, its programs and a client for it.
type apiDoor struct {
	name     string
	client   *rest.RESTClient
	programs []*exec.Cmd
}

// startDoor starts metald with an empty data directory, and nothing but its API.
func startDoor(ctx context.Context, r *rack.Rack, dir string) (*apiDoor, error) {
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "metald")
	config := filepath.Join(dir, "metald.yaml")
	text := fmt.Sprintf("apiVersion: %s\nkind: %s\napi: {listen: \"127.0.0.1:%s\"}\nlog: {level: error}\n", daemon.ConfigVersion, daemon.ConfigKind, ports[0])
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	d := &apiDoor{name: "metald"}
	if err := d.start(r.Metald(), "serve", "--config", config, "--data-dir", data); err != nil {
		return nil, err
	}
	return d, d.connect(ctx, daemon.AdminKubeconfig(data))
}

// notLoopback is an address of nobody's, for where kubeadm and kube-apiserver want one that others could reach.
const notLoopback = "192.0.2.10"

// startPeer starts kube-apiserver over etcd as the lab builds them, with etcd's fsync on, and Metal3's kinds in it.
func startPeer(ctx context.Context, r *rack.Rack, dir string) (*apiDoor, error) {
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	pki := filepath.Join(dir, "pki")
	for _, phase := range [][]string{
		{"certs", "all", "--service-cidr=10.96.0.0/16", "--apiserver-cert-extra-sans=127.0.0.1"},
		{"kubeconfig", "super-admin", "--kubeconfig-dir=" + dir, "--control-plane-endpoint=127.0.0.1:" + ports[0]},
	} {
		args := append(append([]string{"init", "phase"}, phase...), "--cert-dir="+pki, "--apiserver-advertise-address="+notLoopback, "--kubernetes-version="+rack.Kubernetes)
		if _, err := command(ctx, r.Program("kubeadm"), args...); err != nil {
			return nil, err
		}
	}
	d := &apiDoor{name: "kube-apiserver and etcd"}
	url, peer := "http://127.0.0.1:"+ports[1], "http://127.0.0.1:"+ports[2]
	if err := d.start(peerEtcd, "--data-dir="+filepath.Join(dir, "etcd"), "--log-level=error",
		"--listen-client-urls="+url, "--advertise-client-urls="+url, "--listen-peer-urls="+peer,
		"--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer); err != nil {
		return nil, err
	}
	key := func(name string) string { return filepath.Join(pki, name) }
	if err := d.start(r.Program("kube-apiserver"), "--bind-address=127.0.0.1", "--advertise-address="+notLoopback, "--secure-port="+ports[0],
		"--etcd-servers="+url, "--authorization-mode=RBAC", "--service-cluster-ip-range=10.96.0.0/16",
		"--client-ca-file="+key("ca.crt"), "--tls-cert-file="+key("apiserver.crt"), "--tls-private-key-file="+key("apiserver.key"),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file="+key("sa.pub"), "--service-account-signing-key-file="+key("sa.key")); err != nil {
		return nil, errors.Join(err, d.stop())
	}
	if err := d.connect(ctx, filepath.Join(dir, "super-admin.conf")); err != nil {
		return nil, errors.Join(err, d.stop())
	}
	files, err := crds.All()
	if err != nil {
		return nil, errors.Join(err, d.stop())
	}
	for _, f := range files {
		err := d.client.Post().AbsPath("/apis/apiextensions.k8s.io/v1/customresourcedefinitions").
			SetHeader("Content-Type", "application/yaml").Body(f.YAML).Do(ctx).Error()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("adding %s to the peer: %w", f.Name, err), d.stop())
		}
	}
	return d, nil
}

func (d *apiDoor) start(program string, args ...string) error {
	cmd := exec.Command(program, args...)
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", filepath.Base(program), err)
	}
	d.programs = append(d.programs, cmd)
	return nil
}

func (d *apiDoor) stop() error {
	var err error
	for _, cmd := range d.programs {
		err = errors.Join(err, cmd.Process.Kill())
		_ = cmd.Wait() // it was killed
	}
	return err
}

// connect waits until the API answers and serves BareMetalHosts, or, where they are yet to be added, its own kinds.
func (d *apiDoor) connect(ctx context.Context, kubeconfig string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
		if err == nil {
			config.QPS = -1 // the bench paces itself
			config.Timeout = time.Minute
			config.GroupVersion = &schema.GroupVersion{Version: "v1"}
			config.NegotiatedSerializer = serializer.NewCodecFactory(runtime.NewScheme()).WithoutConversion()
			if d.client, err = rest.UnversionedRESTClientFor(config); err == nil {
				err = d.client.Get().AbsPath("/readyz").Do(ctx).Error()
			}
		}
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("waiting for %s: %w", d.name, err), d.stop())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// memory is what the programs hold in RAM, in MiB.
func (d *apiDoor) memory() (mib float64, err error) {
	for _, cmd := range d.programs {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
		if err != nil {
			return 0, err
		}
		_, rest, _ := strings.Cut(string(text), "VmRSS:")
		kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
		if err != nil {
			return 0, err
		}
		mib += kib / 1024
	}
	return mib, nil
}
