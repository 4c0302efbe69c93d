// SPDX-License-Identifier: Apache-2.0

// Package cluster talks to one Kubernetes control plane: it grants a host the right to join, approves the one certificate
// request that the grant is for, watches Nodes, labels and removes them, and writes the kubelet's configuration.
//
// It must not know hosts, pools or inventories, and it decides nothing: when to grant, and what a Node's readiness means,
// is the mind's.
//
// Start reading at Cluster.Grant, then mismatches in csr.go, which is what stands between a stolen token and a Node.
package cluster
