// SPDX-License-Identifier: Apache-2.0

// Package provision is the mind: it walks each host through its life, from first sight to Ready and back.
//
// What it does: reads facts from the inventory, decides by pure functions over one host's View what should be true, and
// takes one small step towards it that may be repeated. It alone writes the status of BareMetalHosts, HostProgresses,
// NodePools, KubernetesClusters and Images, and it alone switches power.
//
// What it must not know: sockets, disks, HTTP, how DHCP is spoken or how an image is built. It is handed a way to dial a
// BMC, a way to reach a cluster and a place to look up blobs, and is asked by the boot servers (Boot), by the desk
// (Identify, Epoch, Next) and by nobody else.
//
// Start reading at machine.go (the life of a host as two tables), then view.go and want.go (what should be true), then
// mind.go (the loop) and the file named after a state.
package provision
