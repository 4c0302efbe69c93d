// SPDX-License-Identifier: Apache-2.0

// Package rack is a virtual rack of real parts on one Linux machine: a network namespace with a bridge, QEMU machines with
// UEFI firmware and a TPM, a BMC for each that alone switches it, and a Kubernetes control plane. The lab's command starts
// it for a person, the end-to-end tests for a machine.
//
// It must not know what metald decides: it starts `metald serve` as anybody would and looks at it through its API and its
// command line. Everything that it starts is written down in Dir/run with the start time of its process, so that ending it
// later cannot hit a stranger who got the same process id.
//
// Start reading at Rack (where things lie), then up.go (the order in which they start).
package rack
