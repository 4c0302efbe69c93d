// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"net/netip"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"
)

// kubeletConfiguration is the part of kubelet.config.k8s.io/v1beta1 that differs from the kubelet's defaults on a host
// whose root is read-only and in memory.
type kubeletConfiguration struct {
	APIVersion     string `json:"apiVersion"`
	Kind           string `json:"kind"`
	Authentication struct {
		Anonymous enabled `json:"anonymous"`
		Webhook   enabled `json:"webhook"`
	} `json:"authentication"`
	Authorization struct {
		Mode string `json:"mode"`
	} `json:"authorization"`
	RotateCertificates          bool              `json:"rotateCertificates"`
	TLSMinVersion               string            `json:"tlsMinVersion"`
	CgroupDriver                string            `json:"cgroupDriver"`
	ContainerRuntimeEndpoint    string            `json:"containerRuntimeEndpoint"`
	ClusterDNS                  []string          `json:"clusterDNS,omitempty"`
	ClusterDomain               string            `json:"clusterDomain"`
	ResolvConf                  string            `json:"resolvConf"`
	FailSwapOn                  bool              `json:"failSwapOn"`
	VolumePluginDir             string            `json:"volumePluginDir"`
	EvictionHard                map[string]string `json:"evictionHard"`
	ImageGCHighThresholdPercent int               `json:"imageGCHighThresholdPercent"`
	ImageGCLowThresholdPercent  int               `json:"imageGCLowThresholdPercent"`
	SystemReserved              map[string]string `json:"systemReserved"`
}

type enabled struct {
	Enabled bool `json:"enabled"`
}

// KubeletConfig is a KubeletConfiguration in YAML for a host that runs an image of metald's. It names no file of the
// agent's: where the cluster's CA lies on the host is for whoever starts the kubelet to say (--client-ca-file), as is its
// address.
func KubeletConfig(dns []string, domain string) (string, error) {
	for _, a := range dns {
		if ip, err := netip.ParseAddr(a); err != nil || ip.Zone() != "" {
			return "", fmt.Errorf("writing kubelet configuration: cluster DNS %q is not an IP address", a)
		}
	}
	if domain == "" {
		domain = "cluster.local"
	}
	if problems := validation.IsDNS1123Subdomain(domain); len(problems) > 0 {
		return "", fmt.Errorf("writing kubelet configuration: cluster domain %q: %s", domain, strings.Join(problems, ", "))
	}
	k := kubeletConfiguration{
		APIVersion:               "kubelet.config.k8s.io/v1beta1",
		Kind:                     "KubeletConfiguration",
		RotateCertificates:       true,
		TLSMinVersion:            "VersionTLS12",
		CgroupDriver:             "systemd",
		ContainerRuntimeEndpoint: "unix:///run/containerd/containerd.sock",
		ClusterDNS:               dns,
		ClusterDomain:            domain,
		ResolvConf:               "/etc/resolv.conf",
		// The kubelet's default lies under /usr, which is read-only here.
		VolumePluginDir: "/var/lib/kubelet/volumeplugins",
		// The file systems are memory, and their sizes are limits rather than space: a full one takes what the pods need. A
		// node that names one threshold must name all, the others would be off.
		EvictionHard: map[string]string{
			"memory.available": "100Mi", "nodefs.available": "5%", "nodefs.inodesFree": "5%", "imagefs.available": "5%", "imagefs.inodesFree": "5%",
		},
		// An image that came with the host's own image cannot be pulled again, so clean up late.
		ImageGCHighThresholdPercent: 94,
		ImageGCLowThresholdPercent:  85,
		SystemReserved:              map[string]string{"memory": "256Mi"},
	}
	k.Authentication.Webhook.Enabled = true
	k.Authorization.Mode = "Webhook"
	out, err := yaml.Marshal(k)
	if err != nil {
		return "", fmt.Errorf("writing kubelet configuration: %w", err)
	}
	return string(out), nil
}
