// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/cluster"
	"metald.io/metald/test/lab/rack"
)

// seedImage builds the floor's image: the lab's, with all that joining needs inside its UKI.
func seedImage(ctx context.Context, r *rack.Rack, host string) (dir string, err error) {
	raw := make([]byte, 11)
	rand.Read(raw)
	id, secret := hex.EncodeToString(raw[:3]), hex.EncodeToString(raw[3:])
	token := fmt.Sprintf(`
apiVersion: v1
kind: Secret
type: bootstrap.kubernetes.io/token
metadata: {name: bootstrap-token-%s, namespace: kube-system}
stringData:
  token-id: %q
  token-secret: %q
  expiration: %q
  usage-bootstrap-authentication: "true"
`, id, id, secret, time.Now().Add(6*time.Hour).UTC().Format(time.RFC3339))
	if err := kubectlApply(ctx, r, token); err != nil {
		return "", err
	}
	ca, err := os.ReadFile(r.Path("kubernetes", "pki", "ca.crt"))
	if err != nil {
		return "", fmt.Errorf("reading the cluster's authority: %w", err)
	}
	kubelet, err := cluster.KubeletConfig(nil, "cluster.local")
	if err != nil {
		return "", err
	}
	seed := v1alpha1.JoinSeed{
		NodeName:      host,
		KubeletConfig: kubelet,
		BootstrapKubeconfig: fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: lab, cluster: {server: %q, certificate-authority-data: %s}}]
users: [{name: bootstrap, user: {token: %s.%s}}]
contexts: [{name: lab, context: {cluster: lab, user: bootstrap}}]
current-context: lab
`, rack.APIServer, base64.StdEncoding.EncodeToString(ca), id, secret),
	}
	text, err := json.Marshal(seed)
	if err != nil {
		return "", fmt.Errorf("encoding the seed: %w", err)
	}
	file := r.Path("seed.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return "", fmt.Errorf("writing the seed: %w", err)
	}
	dir = filepath.Join(r.Dir, "floor")
	return dir, r.BuildSeeded(ctx, file, dir)
}

// anyNode lets the cluster's own controller approve each node that comes with a token, as kubeadm's default does.
const anyNode = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "bench:approve-any-node"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:certificates.k8s.io:certificatesigningrequests:nodeclient"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:bootstrappers"}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "bench:node-bootstrapper"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:node-bootstrapper"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:bootstrappers"}]
`

func allowAnyNode(ctx context.Context, r *rack.Rack) error { return kubectlApply(ctx, r, anyNode) }

func forbidAnyNode(ctx context.Context, r *rack.Rack) {
	r.Kubectl(ctx, "delete", "clusterrolebinding", "bench:approve-any-node", "bench:node-bootstrapper").Run()
}

func kubectlApply(ctx context.Context, r *rack.Rack, text string) error {
	cmd := r.Kubectl(ctx, "apply", "-f", "-")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("preparing the cluster: %w: %s", err, out)
	}
	return nil
}
