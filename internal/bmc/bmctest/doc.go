// SPDX-License-Identifier: Apache-2.0

// Package bmctest is a baseboard controller to point tests at: a Redfish service over HTTPS, shaped by DMTF's published
// schemas, that switches a Machine. The machine may be a struct in memory (MemoryMachine) or a real emulated computer: the
// lab implements Machine on QEMU. Faults are rules that are added and removed while the service runs (see Rule).
//
// It must not know who talks to it, and it imports nothing of the house: a controller that shares code with its client
// proves nothing about that client.
//
// Start reading at New in bmc.go; tree.go lists the resources, system.go holds the one computer system, session.go the
// limited session table, fault.go the rules.
package bmctest
