// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"metald.io/metald/api/v1alpha1"
)

var seed = v1alpha1.JoinSeed{
	ClusterCA: "a CA",
	NodeName:  "r1n01", BootstrapKubeconfig: "a kubeconfig", KubeletConfig: "a config", NodeIP: "172.22.0.100",
	NodeLabels: map[string]string{"topology.kubernetes.io/zone": "z1", "metald.io/pool": "p1"},
	Taints:     []v1alpha1.Taint{{Key: "gpu", Value: "yes", Effect: "NoSchedule"}, {Key: "new", Effect: "NoExecute"}},
}

// fake is a machine whose systemd does what unit says when the kubelet is started.
func fake(t *testing.T, unit func(Kubelet) error) (Kubelet, *[]string) {
	t.Helper()
	calls := &[]string{}
	dir := t.TempDir()
	k := Kubelet{
		Dir: filepath.Join(dir, "run"), Certificate: filepath.Join(dir, "client.pem"),
		SetHostname: func(name string) error { *calls = append(*calls, "hostname "+name); return nil },
	}
	k.Systemctl = func(_ context.Context, arguments ...string) (string, error) {
		*calls = append(*calls, strings.Join(arguments[:1], " "))
		if arguments[0] == "show" {
			return "ActiveState=activating\nResult=exit-code\n", nil
		}
		return "", unit(k)
	}
	return k, calls
}

func certify(k Kubelet) error { return os.WriteFile(k.Certificate, []byte("pem"), 0o600) }

func TestJoin(t *testing.T) {
	k, calls := fake(t, certify)
	if err := k.Join(t.Context(), seed); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"bootstrap.kubeconfig": "a kubeconfig",
		"kubelet.yaml":         "a config",
		"cluster-ca.crt":       "a CA",
		"kubelet.env": "KUBELET_ARGS=--hostname-override=r1n01 --client-ca-file=" + filepath.Join(k.Dir, "cluster-ca.crt") + " --node-ip=172.22.0.100 " +
			"--node-labels=metald.io/pool=p1,topology.kubernetes.io/zone=z1 --register-with-taints=gpu=yes:NoSchedule,new=:NoExecute\n",
	} {
		got, err := os.ReadFile(filepath.Join(k.Dir, name))
		if diff := cmp.Diff(want, string(got)); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", name, err, diff)
		}
	}
	info, err := os.Stat(filepath.Join(k.Dir, "bootstrap.kubeconfig"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the bootstrap credential has mode %v, %v", info.Mode(), err)
	}
	// Again: the kubelet is in, and must not lose its pods to a restart.
	if err := k.Join(t.Context(), seed); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"hostname r1n01", "restart", "hostname r1n01", "start"}, *calls); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Where /var lies on a disk, a kubelet finds what it had at an earlier boot: it must join by the new seed all the same, and
// keep what the join of this boot gave it.
func TestJoinAfterAnEarlierBoot(t *testing.T) {
	k, calls := fake(t, certify)
	old := filepath.Join(t.TempDir(), "kubeconfig")
	k.Credentials = []string{k.Certificate, old, filepath.Join(filepath.Dir(old), "absent")}
	for _, file := range []string{k.Certificate, old} {
		if err := os.WriteFile(file, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := k.Join(t.Context(), seed); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(k.Certificate); err != nil || string(got) != "pem" {
			t.Errorf("the certificate is %q, %v, want this boot's", got, err)
		}
		if _, err := os.Stat(old); err == nil {
			t.Error("the old kubeconfig is left")
		}
	}
	if diff := cmp.Diff([]string{"hostname r1n01", "restart", "hostname r1n01", "start"}, *calls); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestJoinThatFails(t *testing.T) {
	k, _ := fake(t, func(Kubelet) error { return errors.New("unit not found") })
	if err := k.Join(t.Context(), seed); err == nil || !strings.Contains(err.Error(), "unit not found") {
		t.Errorf("a unit that does not start: got %v", err)
	}
	k, _ = fake(t, func(Kubelet) error { return nil })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := k.Join(ctx, seed); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "Result=exit-code") {
		t.Errorf("a kubelet that never gets in: got %v, want the unit's state", err)
	}
	for name, change := range map[string]func(*v1alpha1.JoinSeed){
		"no name":          func(s *v1alpha1.JoinSeed) { s.NodeName = "" },
		"no credential":    func(s *v1alpha1.JoinSeed) { s.BootstrapKubeconfig = "" },
		"no configuration": func(s *v1alpha1.JoinSeed) { s.KubeletConfig = "" },
		"another argument": func(s *v1alpha1.JoinSeed) { s.NodeIP = "1.2.3.4 --anonymous-auth=true" },
		"a variable":       func(s *v1alpha1.JoinSeed) { s.NodeLabels = map[string]string{"a": "$HOME"} },
	} {
		k, calls := fake(t, certify)
		broken := seed
		change(&broken)
		if err := k.Join(t.Context(), broken); err == nil || len(*calls) != 0 {
			t.Errorf("%s: got %v after %v", name, err, *calls)
		}
	}
}
