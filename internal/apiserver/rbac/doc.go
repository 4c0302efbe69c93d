// SPDX-License-Identifier: Apache-2.0

// Package rbac decides who may do what at the users' door: Kubernetes' roles and bindings, read from the inventory and in force
// with the next request; who may write them; the reviews behind `kubectl auth can-i`; the ready roles of roles.yaml; and
// Secrets that some may write and not read.
//
// It must not know how somebody came in, nor any kind of metald's: those are named in roles.yaml alone.
//
// Start reading at Access in access.go, then grants.go (what is granted to whom), rule.go (what one rule means) and escalate.go
// (nobody grants what they lack).
package rbac
