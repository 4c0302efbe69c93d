// SPDX-License-Identifier: Apache-2.0

// Package e2e holds the end-to-end tests: a rack of its own (see test/lab/rack), in its own network namespace, with real
// firmware, a real TPM's protocol and a real Kubernetes control plane, and metald as a person would start it. They run with
// `make e2e`, need root, and leave nothing behind.
//
// The package must not reach into metald: it types commands, reads the APIs, and does to machines what the world does to
// them. Nothing here ends on a fixed time alone: waiting ends when nothing moves any more.
//
// Start reading at TestFirstLight, which is the whole story of one host, and at TestDisksAreInstalled, where the other two
// follow it to their disks. They run in the order of the files' names: a to e are about one machine that runs from memory,
// f to h about three. E2E_SEED=N repeats a run's moments, E2E_RACK=NAME runs beside another rack.
package e2e
