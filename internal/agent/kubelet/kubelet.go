// SPDX-License-Identifier: Apache-2.0

// Package kubelet makes a machine a Node: it writes what the kubelet needs into one directory in memory, starts the
// kubelet's unit, and waits until the kubelet has got its certificate.
//
// It must not know where the seed came from. It acts on the machine that it runs on, through systemd.
//
// Start reading at Kubelet.Join.
package kubelet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"metald.io/metald/api/v1alpha1"
)

const (
	unit      = "kubelet.service"
	clusterCA = "cluster-ca.crt"
	// cleared is made, in memory, when what an earlier boot left is gone.
	cleared = "credentials-cleared"
	// lookEvery is how often the certificate is looked for.
	lookEvery = 250 * time.Millisecond
)

// Kubelet is where the kubelet's unit expects its files, and how it is started.
type Kubelet struct {
	// Dir gets bootstrap.kubeconfig, cluster-ca.crt, kubelet.yaml and kubelet.env.
	Dir string
	// Certificate appears when the control plane has let the kubelet in.
	Certificate string
	// Credentials are the kubelet's own files and folders that outlive a boot where /var lies on a disk, Certificate among
	// them: those of an earlier boot are removed, because a kubelet that has any does not ask for new ones.
	Credentials []string
	// Systemctl runs systemctl with arguments.
	Systemctl func(ctx context.Context, arguments ...string) (string, error)
	// SetHostname gives the machine its name.
	SetHostname func(name string) error
}

// Here is the kubelet of this machine.
func Here(dir string) Kubelet {
	return Kubelet{
		Dir:         dir,
		Certificate: "/var/lib/kubelet/pki/kubelet-client-current.pem",
		Credentials: []string{"/var/lib/kubelet/pki", "/var/lib/kubelet/kubeconfig"},
		Systemctl: func(ctx context.Context, arguments ...string) (string, error) {
			output, err := exec.CommandContext(ctx, "systemctl", arguments...).CombinedOutput()
			if err != nil {
				return string(output), fmt.Errorf("running systemctl %s: %w: %s", strings.Join(arguments, " "), err,
					strings.TrimSpace(string(output)))
			}
			return string(output), nil
		},
		SetHostname: func(name string) error { return unix.Sethostname([]byte(name)) },
	}
}

// Join starts the kubelet with a seed, and returns when it has its certificate. It may be repeated: a kubelet that is in
// already is left running, one that waits with an older token is started anew.
func (k Kubelet) Join(ctx context.Context, seed v1alpha1.JoinSeed) error {
	if err := k.write(seed); err != nil {
		return err
	}
	if err := k.clear(); err != nil {
		return err
	}
	if err := k.SetHostname(seed.NodeName); err != nil {
		return fmt.Errorf("setting the host name: %w", err)
	}
	verb := "restart"
	if k.in() {
		verb = "start"
	}
	if _, err := k.Systemctl(ctx, verb, unit); err != nil {
		return err
	}
	for !k.in() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the kubelet's certificate: %w; %s", ctx.Err(), k.state())
		case <-time.After(lookEvery):
		}
	}
	return nil
}

// clear removes the credentials of earlier boots, once a boot: the machine joins anew by the seed that it was given now.
func (k Kubelet) clear() error {
	mark := filepath.Join(k.Dir, cleared)
	if _, err := os.Stat(mark); err == nil {
		return nil
	}
	for _, path := range k.Credentials {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("removing the credentials of an earlier boot: %w", err)
		}
	}
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		return fmt.Errorf("removing the credentials of an earlier boot: %w", err)
	}
	return nil
}

func (k Kubelet) in() bool {
	_, err := os.Stat(k.Certificate)
	return err == nil
}

// state says in one line what has become of the unit.
func (k Kubelet) state() string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	output, err := k.Systemctl(ctx, "show", "--property=ActiveState,SubState,Result,ExecMainStatus,NRestarts", unit)
	if err != nil {
		return err.Error()
	}
	return unit + ": " + strings.Join(strings.Fields(output), " ") + " (the console's `journalctl -u kubelet` says more)"
}

// write writes the seed's files. The kubeconfig holds a secret; the directory is in memory and it is root's alone.
func (k Kubelet) write(seed v1alpha1.JoinSeed) error {
	arguments, err := k.environment(seed)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(k.Dir, 0o755); err != nil {
		return fmt.Errorf("making %s: %w", k.Dir, err)
	}
	for _, file := range []struct {
		name, text string
		mode       os.FileMode
	}{
		{"bootstrap.kubeconfig", seed.BootstrapKubeconfig, 0o600},
		{clusterCA, seed.ClusterCA, 0o644},
		{"kubelet.yaml", seed.KubeletConfig, 0o644},
		{"kubelet.env", arguments, 0o644},
	} {
		if file.text == "" && file.name == clusterCA {
			continue // a kubelet that is given no file does not look for one
		}
		if file.text == "" {
			return fmt.Errorf("the seed holds nothing for %s", file.name)
		}
		path := filepath.Join(k.Dir, file.name)
		if err := os.WriteFile(path+".new", []byte(file.text), file.mode); err != nil {
			return fmt.Errorf("writing %s: %w", file.name, err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			return fmt.Errorf("writing %s: %w", file.name, err)
		}
	}
	return nil
}

// environment is the unit's environment file: one variable with the arguments that differ from host to host.
func (k Kubelet) environment(seed v1alpha1.JoinSeed) (string, error) {
	if seed.NodeName == "" {
		return "", errors.New("the seed holds no node name")
	}
	arguments := []string{"--hostname-override=" + seed.NodeName}
	if seed.ClusterCA != "" {
		arguments = append(arguments, "--client-ca-file="+filepath.Join(k.Dir, clusterCA))
	}
	if seed.NodeIP != "" {
		arguments = append(arguments, "--node-ip="+seed.NodeIP)
	}
	if len(seed.NodeLabels) > 0 {
		var labels []string
		for _, key := range slices.Sorted(maps.Keys(seed.NodeLabels)) {
			labels = append(labels, key+"="+seed.NodeLabels[key])
		}
		arguments = append(arguments, "--node-labels="+strings.Join(labels, ","))
	}
	if len(seed.Taints) > 0 {
		var taints []string
		for _, taint := range seed.Taints {
			taints = append(taints, taint.Key+"="+taint.Value+":"+taint.Effect)
		}
		arguments = append(arguments, "--register-with-taints="+strings.Join(taints, ","))
	}
	for _, argument := range arguments {
		// systemd splits at white space and knows quotes and variables; no name, label or taint holds any of these.
		if strings.ContainsAny(argument, " \t\r\n\"'\\$`#;") {
			return "", fmt.Errorf("the seed's %q holds a character that has no place in it", argument)
		}
	}
	return "KUBELET_ARGS=" + strings.Join(arguments, " ") + "\n", nil
}
