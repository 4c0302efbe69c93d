// SPDX-License-Identifier: Apache-2.0

// Package e2e holds the end-to-end tests: a rack of its own (see test/lab/rack), in its own network namespace, with real
// firmware, a real TPM's protocol and a real Kubernetes control plane, and metald as a person would start it. They run with
// `make e2e`, need root, and leave nothing behind.
//
// The package must not reach into metald: it types commands, reads the APIs, and does to machines what the world does to
// them. Nothing here ends on a fixed time alone: waiting ends when nothing moves any more.
//
// Start reading at TestFirstLight, which is the whole story; the tests below it in first_light_test.go need its Node. They
// run in the order of the files' names.
package e2e
