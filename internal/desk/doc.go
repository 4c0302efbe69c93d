// SPDX-License-Identifier: Apache-2.0

// Package desk is the agents' door: it hears a machine's hello, makes its TPM prove who it is, opens a session for
// (host, epoch, boot), hands over orders by long poll, and writes what the agent reports into the host's HostInventory.
//
// It stores facts and decides nothing. Who a machine is, whether it is expected now and what it shall do next are asked
// of others (Registrar, Orders); it must not know about power, boot, images or clusters. Nothing an unproved machine says
// is believed, and an answer to it holds nothing secret.
//
// Start reading at Desk and the five handlers in door.go, then challenge.go (what is proved, and how), session.go (what
// is kept in memory: a restarted daemon has no sessions and agents say hello again) and record.go (what goes to disk).
package desk
