// SPDX-License-Identifier: Apache-2.0

// Command deps keeps the module pins alive until the rooms use them.
package main

import (
	_ "github.com/bmc-toolbox/bmclib/v2"
	_ "github.com/cavaliergopher/cpio"
	_ "github.com/containerd/go-dmverity/pkg/verity"
	_ "github.com/coreos/go-systemd/v22/daemon"
	_ "github.com/google/go-cmp/cmp"
	_ "github.com/google/go-tpm/tpm2"
	_ "github.com/google/go-tpm/tpm2/transport/linuxtpm"
	_ "github.com/google/renameio/v2"
	_ "github.com/insomniacslk/dhcp/dhcpv4"
	_ "github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	_ "github.com/insomniacslk/dhcp/dhcpv4/server4"
	_ "github.com/klauspost/compress/zstd"
	_ "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	_ "github.com/pin/tftp/v3"
	_ "github.com/prometheus/procfs/sysfs"
	_ "github.com/rogpeppe/go-internal/testscript"
	_ "github.com/siderolabs/go-smbios/smbios"
	_ "github.com/spf13/cobra"
	_ "github.com/stmcginnis/gofish"
	_ "github.com/vishvananda/netlink"
	_ "go.etcd.io/bbolt"
	_ "go.etcd.io/etcd/client/v3"
	_ "go.etcd.io/etcd/client/v3/kubernetes"
	_ "golang.org/x/term"
	_ "golang.org/x/time/rate"
	_ "k8s.io/apiextensions-apiserver/pkg/apiserver"
	_ "k8s.io/apiserver/pkg/server"
	_ "k8s.io/apiserver/pkg/server/options"
	_ "k8s.io/apiserver/pkg/storage/etcd3"
	_ "k8s.io/apiserver/pkg/storage/testing"
	_ "k8s.io/cli-runtime/pkg/printers"
	_ "k8s.io/client-go/kubernetes"
	_ "k8s.io/client-go/util/certificate"
	_ "k8s.io/cluster-bootstrap/token/util"
	_ "k8s.io/component-base/version"
	_ "sigs.k8s.io/yaml"
)

func main() {}
