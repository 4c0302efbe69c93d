// SPDX-License-Identifier: Apache-2.0

// Package collect does behind the users' door what a cluster's controllers for garbage and for namespaces do: what nobody owns
// any more is deleted, foreground and orphan deletes are answered, and namespaces that are being deleted are emptied in an
// order in which hosts are let go of properly.
//
// It must not know what any kind means: it looks at metadata only, and changes things through the door alone.
//
// Start reading at Collector in collect.go, then act.go (what becomes of one object), empty.go (of one namespace) and graph.go
// (who belongs to whom).
package collect
