// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// callTimeout bounds one call; a control plane that is away must not hold up the work on its hosts. Watches have no bound.
const callTimeout = 15 * time.Second

// Cluster is a control plane.
type Cluster struct {
	client kubernetes.Interface
	// watching has the same credentials and no time limit.
	watching kubernetes.Interface
	// server and ca are what Nodes are told.
	server string
	ca     []byte
	now    func() time.Time
}

// Dial reads an administrator's kubeconfig and connects nowhere yet. server is the address that Nodes use, where it is
// another than the kubeconfig's.
//
// A kubeconfig comes from a Secret that a user wrote, so one that would make the daemon run a program or read a file of
// its own machine is refused, as is one that does not verify its server.
func Dial(kubeconfig []byte, server string) (*Cluster, error) {
	config, err := clientcmd.Load(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("reading kubeconfig: %w", err)
	}
	if err := selfContained(config); err != nil {
		return nil, fmt.Errorf("reading kubeconfig: %w", err)
	}
	cfg, err := clientcmd.NewDefaultClientConfig(*config, &clientcmd.ConfigOverrides{}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("reading kubeconfig: %w", err)
	}
	if len(cfg.CAData) == 0 {
		return nil, errors.New("reading kubeconfig: its cluster has no certificate-authority-data, which Nodes need")
	}
	if server == "" {
		server = cfg.Host
	}
	if u, err := url.Parse(server); err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("reading server %q: not an https URL", server)
	}
	cfg.QPS, cfg.Burst = 50, 100
	cfg.UserAgent = "metald"
	cfg.ContentType, cfg.AcceptContentTypes = "application/json", "application/json" // small volumes, and a person can read along
	watching := rest.CopyConfig(cfg)
	cfg.Timeout = callTimeout
	c := &Cluster{server: server, ca: cfg.CAData, now: time.Now}
	if c.client, err = kubernetes.NewForConfig(cfg); err != nil {
		return nil, fmt.Errorf("making client of %s: %w", cfg.Host, err)
	}
	if c.watching, err = kubernetes.NewForConfig(watching); err != nil {
		return nil, fmt.Errorf("making client of %s: %w", cfg.Host, err)
	}
	return c, nil
}

func selfContained(config *clientcmdapi.Config) error {
	var bad []string
	for name, user := range config.AuthInfos {
		if user.Exec != nil || user.AuthProvider != nil {
			bad = append(bad, fmt.Sprintf("user %q runs a program", name))
		}
		if user.ClientCertificate != "" || user.ClientKey != "" || user.TokenFile != "" {
			bad = append(bad, fmt.Sprintf("user %q names a file; embed it (kubectl config view --flatten)", name))
		}
	}
	for name, cluster := range config.Clusters {
		if cluster.CertificateAuthority != "" {
			bad = append(bad, fmt.Sprintf("cluster %q names a file; embed it (kubectl config view --flatten)", name))
		}
		if cluster.InsecureSkipTLSVerify {
			bad = append(bad, fmt.Sprintf("cluster %q does not verify its server", name))
		}
	}
	if len(bad) > 0 {
		return errors.New(strings.Join(bad, ", "))
	}
	return nil
}

// Server is the address that Nodes use.
func (c *Cluster) Server() string { return c.server }

// Version asks for the control plane's version, like v1.36.3. Its error is what says that the control plane is away, or
// that it refuses the credentials (apierrors.IsUnauthorized).
func (c *Cluster) Version(ctx context.Context) (string, error) {
	body, err := c.client.Discovery().RESTClient().Get().AbsPath("/version").Do(ctx).Raw()
	if err != nil {
		return "", fmt.Errorf("asking for the version of the control plane: %w", err)
	}
	var v version.Info
	if err := json.Unmarshal(body, &v); err != nil || v.GitVersion == "" {
		return "", fmt.Errorf("asking for the version of the control plane: %.80q is no version", body)
	}
	return v.GitVersion, nil
}
