// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestKubeletConfig(t *testing.T) {
	got, err := KubeletConfig([]string{"10.96.0.10"}, "")
	if err != nil {
		t.Fatal(err)
	}
	want := `apiVersion: kubelet.config.k8s.io/v1beta1
authentication:
  anonymous:
    enabled: false
  webhook:
    enabled: true
authorization:
  mode: Webhook
cgroupDriver: systemd
clusterDNS:
- 10.96.0.10
clusterDomain: cluster.local
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
evictionHard:
  imagefs.available: 5%
  imagefs.inodesFree: 5%
  memory.available: 100Mi
  nodefs.available: 5%
  nodefs.inodesFree: 5%
failSwapOn: false
imageGCHighThresholdPercent: 94
imageGCLowThresholdPercent: 85
kind: KubeletConfiguration
resolvConf: /etc/resolv.conf
rotateCertificates: true
systemReserved:
  memory: 256Mi
tlsMinVersion: VersionTLS12
volumePluginDir: /var/lib/kubelet/volumeplugins
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
}

func TestKubeletConfigRefuses(t *testing.T) {
	for _, c := range []struct {
		name, domain, want string
		dns                []string
	}{
		{"DNS by name", "cluster.local", `"dns.example" is not an IP address`, []string{"10.96.0.10", "dns.example"}},
		{"domain with a line break", "a\nstaticPodPath: /tmp", "cluster domain", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := KubeletConfig(c.dns, c.domain)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want one with %q", err, c.want)
			}
		})
	}
}
