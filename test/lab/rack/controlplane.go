// SPDX-License-Identifier: Apache-2.0

package rack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// nodeRoles is what kubeadm's later phases would bind: the API server may call kubelets (logs, exec), and kubelets may renew
// their certificates. What a first join needs is metald's to bind and to approve, for one host at a time.
const nodeRoles = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "lab:apiserver-kubelet-client"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:kubelet-api-admin"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: "kube-apiserver-kubelet-client"}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "lab:node-certificate-renewal"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:nodes"}]
`

// controlPlane starts etcd, the API server, the controller manager and the scheduler, and waits until they are healthy.
func (r *Rack) controlPlane(ctx context.Context) error {
	if err := r.certificates(ctx); err != nil {
		return err
	}
	dir := r.Path("kubernetes")
	pki := func(name string) string { return filepath.Join(dir, "pki", name) }
	conf := func(name string) string { return filepath.Join(dir, name+".conf") }
	plane := []process{
		// The lab's cluster does not outlive the lab, so its store need not survive a power cut.
		{name: "etcd", argv: []string{r.Program("etcd"), "--data-dir=" + filepath.Join(dir, "etcd"), "--unsafe-no-fsync", "--log-level=warn",
			"--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
			"--listen-peer-urls=http://127.0.0.1:2380"}},
		{name: "kube-apiserver", argv: []string{r.Program("kube-apiserver"),
			"--advertise-address=" + Gateway, "--secure-port=6443", "--etcd-servers=http://127.0.0.1:2379",
			"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--enable-bootstrap-token-auth=true",
			"--allow-privileged=true", "--service-cluster-ip-range=" + ServiceCIDR,
			"--client-ca-file=" + pki("ca.crt"), "--tls-cert-file=" + pki("apiserver.crt"), "--tls-private-key-file=" + pki("apiserver.key"),
			"--kubelet-client-certificate=" + pki("apiserver-kubelet-client.crt"), "--kubelet-client-key=" + pki("apiserver-kubelet-client.key"),
			"--kubelet-preferred-address-types=InternalIP",
			"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
			"--service-account-key-file=" + pki("sa.pub"), "--service-account-signing-key-file=" + pki("sa.key"),
			"--requestheader-client-ca-file=" + pki("front-proxy-ca.crt"), "--requestheader-allowed-names=front-proxy-client",
			"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
			"--requestheader-extra-headers-prefix=X-Remote-Extra-",
			"--proxy-client-cert-file=" + pki("front-proxy-client.crt"), "--proxy-client-key-file=" + pki("front-proxy-client.key")}},
		{name: "kube-controller-manager", argv: []string{r.Program("kube-controller-manager"),
			"--kubeconfig=" + conf("controller-manager"), "--authentication-kubeconfig=" + conf("controller-manager"),
			"--authorization-kubeconfig=" + conf("controller-manager"), "--bind-address=127.0.0.1", "--leader-elect=false",
			"--client-ca-file=" + pki("ca.crt"), "--root-ca-file=" + pki("ca.crt"),
			"--cluster-signing-cert-file=" + pki("ca.crt"), "--cluster-signing-key-file=" + pki("ca.key"),
			"--service-account-private-key-file=" + pki("sa.key"), "--use-service-account-credentials=true",
			"--controllers=*,bootstrapsigner,tokencleaner",
			"--allocate-node-cidrs=true", "--cluster-cidr=" + PodCIDR, "--service-cluster-ip-range=" + ServiceCIDR}},
		{name: "kube-scheduler", argv: []string{r.Program("kube-scheduler"),
			"--kubeconfig=" + conf("scheduler"), "--authentication-kubeconfig=" + conf("scheduler"),
			"--authorization-kubeconfig=" + conf("scheduler"), "--bind-address=127.0.0.1", "--leader-elect=false"}},
	}
	for _, p := range plane[:2] {
		if err := r.start(p); err != nil {
			return err
		}
	}
	if err := r.awaitAPIServer(ctx); err != nil {
		return err
	}
	for _, p := range plane[2:] {
		if err := r.start(p); err != nil {
			return err
		}
	}
	apply := r.Kubectl(ctx, "apply", "-f", "-")
	apply.Stdin = strings.NewReader(nodeRoles)
	if _, err := output(apply); err != nil {
		return fmt.Errorf("binding the roles of nodes: %w", err)
	}
	return r.awaitServiceAccount(ctx)
}

// certificates makes the cluster's keys with kubeadm's own phases, outside the namespace, once.
func (r *Rack) certificates(ctx context.Context) error {
	dir := r.Path("kubernetes")
	if _, err := os.Stat(r.AdminKubeconfig()); err == nil {
		return nil
	}
	common := []string{"--cert-dir=" + filepath.Join(dir, "pki"), "--apiserver-advertise-address=" + Gateway, "--kubernetes-version=" + Kubernetes}
	phases := [][]string{{"certs", "all", "--service-cidr=" + ServiceCIDR}}
	for _, user := range []string{"super-admin", "controller-manager", "scheduler"} {
		phases = append(phases, []string{"kubeconfig", user, "--kubeconfig-dir=" + dir})
	}
	for _, phase := range phases {
		args := append(append([]string{"init", "phase"}, phase...), common...)
		if _, err := output(exec.CommandContext(ctx, r.Program("kubeadm"), args...)); err != nil {
			return err
		}
	}
	// kubeadm's plain administrator needs a role binding that its later phases make; the lab makes do with the other.
	return os.Rename(filepath.Join(dir, "super-admin.conf"), r.AdminKubeconfig())
}

func (r *Rack) awaitAPIServer(ctx context.Context) error {
	return r.await(ctx, "the API server", 2*time.Minute, func(ctx context.Context) error {
		for _, name := range []string{"etcd", "kube-apiserver"} {
			if _, ok := r.Running(name); !ok {
				return fatal(fmt.Errorf("%s ended: %s", name, r.lastLine(name)))
			}
		}
		_, err := output(r.Kubectl(ctx, "get", "--raw", "/readyz"))
		return err
	})
}

// awaitServiceAccount waits for what every pod of the default namespace needs; it also shows that the controllers work.
func (r *Rack) awaitServiceAccount(ctx context.Context) error {
	return r.await(ctx, "the controllers", 2*time.Minute, func(ctx context.Context) error {
		for _, name := range []string{"kube-controller-manager", "kube-scheduler"} {
			if _, ok := r.Running(name); !ok {
				return fatal(fmt.Errorf("%s ended: %s", name, r.lastLine(name)))
			}
		}
		_, err := output(r.Kubectl(ctx, "get", "serviceaccount", "default"))
		return err
	})
}

// Kubectl is the real kubectl as the cluster's administrator.
func (r *Rack) Kubectl(ctx context.Context, args ...string) *exec.Cmd {
	return r.Inside(ctx, append([]string{r.Program("kubectl"), "--kubeconfig=" + r.AdminKubeconfig()}, args...)...)
}

// MetaldKubectl is the real kubectl at metald's own door.
func (r *Rack) MetaldKubectl(ctx context.Context, args ...string) *exec.Cmd {
	return r.Inside(ctx, append([]string{r.Program("kubectl"), "--kubeconfig=" + r.MetaldKubeconfig()}, args...)...)
}

type fatalError struct{ error }

// fatal marks what waiting longer cannot mend.
func fatal(err error) error { return fatalError{err} }

// await tries until it works, and says every few seconds that it still waits.
func (r *Rack) await(ctx context.Context, what string, limit time.Duration, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	start, said := time.Now(), time.Now()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		var over fatalError
		if errors.As(err, &over) {
			return fmt.Errorf("waiting for %s: %w", what, over.error)
		}
		if time.Since(said) > 10*time.Second {
			said = time.Now()
			r.say("    ... %s, waiting for %s", time.Since(start).Round(time.Second), what)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s for %s: %w", what, time.Since(start).Round(time.Second), err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}
