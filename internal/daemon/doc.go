// SPDX-License-Identifier: Apache-2.0

// Package daemon puts the rooms together: it reads the configuration, keeps the keys, opens the sockets and hands each room
// what the others offer it.
//
// It must not know how any room does its work, and decides nothing about a host: that is the mind's (package provision).
//
// Start reading at Run; Config says what a person can decide, EnsurePKI which keys there are.
package daemon
