// SPDX-License-Identifier: Apache-2.0

// Package gpu sees accelerators, DPUs, network cards and the PCI functions around them. Here it reads what the kernel
// shows in sysfs, with no vendor driver: ids, classes, NUMA nodes and the trained and the possible link of each function.
//
// It must not know who asks: no daemon, no inventory, no host. Everything is read below a root directory, so that a
// directory tree stands for a machine in a test. It judges nothing: a slow link is a fact, whether it is a fault is for
// the profile of the host.
//
// Start reading at PCI, then kindOf.
package gpu
