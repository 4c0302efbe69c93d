// SPDX-License-Identifier: Apache-2.0

// Package v1alpha1 holds metald's nouns: the kinds of group metald.io that the API serves beside Metal3's, and the
// messages that an agent and the daemon exchange. It has no behaviour, and it imports apimachinery's meta types only, so
// a lifecycle tool and the small agent can both use it.
//
// Start reading at HostProgress (where a host is in its life), then HostInventory (what was seen of it), then agent.go
// (what goes over the agent's wire).
//
// +kubebuilder:object:generate=true
// +groupName=metald.io
package v1alpha1
