// SPDX-License-Identifier: Apache-2.0

//go:build tools

// Package kubernetes pins the programs of the lab's control plane and of its OS image. It must not know metald: it is a
// module of its own so that none of this reaches the daemon's go.mod. Start reading at go.mod's require and replace lines;
// test/lab/rack/programs.go builds what is named here.
package kubernetes

import (
	_ "go.etcd.io/etcd/server/v3"
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kube-controller-manager"
	_ "k8s.io/kubernetes/cmd/kube-scheduler"
	_ "k8s.io/kubernetes/cmd/kubeadm"
	_ "k8s.io/kubernetes/cmd/kubectl"
	_ "k8s.io/kubernetes/cmd/kubelet"
)
