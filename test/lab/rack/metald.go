// SPDX-License-Identifier: Apache-2.0

package rack

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const configText = `# The lab's metald, inside its network namespace.
apiVersion: config.metald.io/v1alpha1
kind: MetaldConfiguration
api:
  listen: ` + MetaldAPI + `
agents:
  listen: ` + MetaldAgents + `
boot:
  listen: ` + MetaldBoot + `
dhcp:
  interfaces:
  - name: ` + Bridge + `
    server: ` + Gateway + `
    subnet: ` + Prefix + `
    range: ` + RangeFirst + `-` + RangeLast + `
tftp:
  listen: ` + Gateway + `:69
bmc:
  pollInterval: 5s
  sweep: [` + BMCs + `]
  sweepInterval: 1m
limits:
  # The lab's disks are written and erased again and again.
  destructiveActsPerHour: 200
  # Two cores emulate two machines.
  bootsAtOnce: 2
`

// ConfigFile is the rack's configuration of metald.
func (r *Rack) ConfigFile() string { return r.Path("metald.yaml") }

// siteFiles are the site's certificate authority. It is kept when the rack goes down, since ramdisk and image carry it and
// would have to be built anew.
var siteFiles = []string{"site-ca.crt", "site-ca.key"}

// Authority is the site CA that ramdisk and image carry.
func (r *Rack) Authority() string { return filepath.Join(r.Data(), "pki", siteFiles[0]) }

// StartMetald starts `metald serve` in the namespace and waits until its API answers.
func (r *Rack) StartMetald(ctx context.Context) error {
	if err := os.WriteFile(r.ConfigFile(), []byte(configText), 0o644); err != nil {
		return fmt.Errorf("writing metald's configuration: %w", err)
	}
	site, pki := filepath.Join(r.Cache, "site"), filepath.Join(r.Data(), "pki")
	if err := copyMissing(pki, site); err != nil {
		return fmt.Errorf("reusing the site's authority: %w", err)
	}
	if err := r.start(process{name: "metald", argv: []string{r.Metald(), "serve", "--config", r.ConfigFile(), "--data-dir", r.Data()}}); err != nil {
		return err
	}
	if err := r.awaitMetald(ctx); err != nil {
		return err
	}
	return copyMissing(site, pki)
}

// AwaitMetald waits until metald's API answers.
func (r *Rack) awaitMetald(ctx context.Context) error {
	return r.await(ctx, "metald's API", time.Minute, func(ctx context.Context) error {
		if _, ok := r.Running("metald"); !ok {
			return fatal(fmt.Errorf("metald ended: %s", r.lastLine("metald")))
		}
		_, err := output(r.MetaldKubectl(ctx, "get", "--raw", "/readyz"))
		return err
	})
}

// KillMetald ends metald as a power cut would.
func (r *Rack) KillMetald() error {
	if err := r.Signal("metald", syscall.SIGKILL); err != nil {
		return err
	}
	return r.Stop("metald", 5*time.Second)
}

func copyMissing(to, from string) error {
	for _, name := range siteFiles {
		text, err := os.ReadFile(filepath.Join(from, name))
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := os.Stat(filepath.Join(to, name)); err == nil {
			continue
		}
		if err := os.MkdirAll(to, 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, name), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// MetaldCommand is metald's command line, inside the namespace, with the rack's kubeconfig.
func (r *Rack) MetaldCommand(ctx context.Context, args ...string) *exec.Cmd {
	cmd := r.Inside(ctx, append([]string{r.Metald()}, args...)...)
	cmd.Env = append(os.Environ(), "METALD_KUBECONFIG="+r.MetaldKubeconfig())
	return cmd
}

// clusterText and poolText are what a person would write to make Nodes of the rack's hosts.
const clusterText = `apiVersion: v1
kind: Secret
metadata:
  name: lab-kubeconfig
  namespace: default
data:
  kubeconfig: %s
---
apiVersion: metald.io/v1alpha1
kind: KubernetesCluster
metadata:
  name: lab
  namespace: default
spec:
  kubeconfigSecret: lab-kubeconfig
  server: ` + APIServer + `
  labels:
    metald.io/site: lab
`

const poolText = `---
apiVersion: metald.io/v1alpha1
kind: NodePool
metadata:
  name: %s
  namespace: default
spec:
  replicas: %d
  hostSelector:
    matchLabels:
      topology.kubernetes.io/zone: %s
  method: %s
  overwriteDisks: false
  drainTimeout: 1m
  image: %s
  cluster: lab
`

// pool tells metald which cluster there is and what its hosts shall be.
func (r *Rack) pool(ctx context.Context) error {
	kubeconfig, err := os.ReadFile(r.AdminKubeconfig())
	if err != nil {
		return fmt.Errorf("reading the cluster's kubeconfig: %w", err)
	}
	image, err := r.ImageName()
	if err != nil {
		return err
	}
	hosts := map[string]int{}
	for n := range r.Hosts {
		hosts[r.Spec(n).Pool]++
	}
	text := fmt.Sprintf(clusterText, base64.StdEncoding.EncodeToString(kubeconfig))
	for _, name := range slices.Sorted(maps.Keys(hosts)) {
		text += fmt.Sprintf(poolText, name, hosts[name], pools[name].zone, pools[name].method, image)
	}
	return r.Apply(ctx, text)
}

// Apply gives objects to metald.
func (r *Rack) Apply(ctx context.Context, text string) error {
	cmd := r.MetaldKubectl(ctx, "apply", "-f", "-")
	cmd.Stdin = strings.NewReader(text)
	_, err := output(cmd)
	return err
}

// HostsFile writes hosts.csv for some of the rack's machines, all where none is named; wrong passwords are for tests.
func (r *Rack) HostsFile(password func(name string) (string, error), names ...string) (string, error) {
	var text bytes.Buffer
	text.WriteString("name,bmc_address,bmc_username,bmc_password,boot_mac,zone,region,rack\n")
	if len(names) == 0 {
		names = r.Names()
	}
	for _, name := range names {
		s, err := r.SpecOf(name)
		if err != nil {
			return "", err
		}
		word, err := password(name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&text, "%s,%s,%s,%s,%s,%s,lab,r1\n", s.Name, s.Address(), s.Username, word, s.MAC, s.Zone)
	}
	path := r.Path("hosts.csv")
	if err := os.WriteFile(path, text.Bytes(), 0o600); err != nil {
		return "", fmt.Errorf("writing hosts.csv: %w", err)
	}
	return path, nil
}

// Import enrols machines as a person would; all of the rack's where none is named.
func (r *Rack) Import(ctx context.Context, names ...string) error {
	path, err := r.HostsFile(r.Password, names...)
	if err != nil {
		return err
	}
	text, err := output(r.MetaldCommand(ctx, "import", path))
	r.say("    %s", strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    "))
	return err
}
