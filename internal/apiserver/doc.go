// SPDX-License-Identifier: Apache-2.0

// Package apiserver is the users' door: a Kubernetes API over the inventory, so that kubectl, client-go and GitOps tools
// work against metald with no Kubernetes cluster behind it. Metal3's kinds, metald's own and users' are served from their
// CustomResourceDefinitions; Namespace, Secret, ConfigMap, Event and Lease, which cannot be one, are compiled in. Two
// servers of the stock library do the work: the one in front serves the compiled-in kinds and hands every other path to
// the one for custom resources.
//
// It stores wishes and shows facts; it never decides. It must not know what a host, a BMC or an agent is: no kind of
// metald's is named in its code, only in the YAML below crds/ and the rules below metal3/. It opens no socket: the listener
// is given to it.
//
// Start reading at New in server.go, then storage.go (how the stock store meets the inventory), native.go (the
// compiled-in kinds), definitions.go (how the CustomResourceDefinitions come up), collect.go (what a cluster's controllers
// for garbage and namespaces do), oidc.go (whose tokens let in), rbac/ (who may do what), limits.go (how much a client may ask).
package apiserver
