// SPDX-License-Identifier: Apache-2.0

// Package clients drives the real daemon with the tools of the Kubernetes world, as their own code: kubectl, a client-go
// informer, a controller-runtime manager, Cluster API's types, and the scheme package api/v1alpha1 from outside the tree.
//
// It must not know how metald does anything: it starts the program, asks it for logins, and speaks to its API. It is a module
// of its own, so that none of these tools reaches the daemon's go.mod. Start reading at daemon_test.go; the scripts in
// testdata/script are what a person would type.
package clients
