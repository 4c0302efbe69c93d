// SPDX-License-Identifier: Apache-2.0

// Package audit is the form of metald's record: what was done, by whom, why, in a chain of hashes under signed checkpoints.
//
// A Record is what one entry of the inventory's log holds: who changed which object, or what metald did to the world. Every
// entry carries the hash of the one before, so that none can be changed, dropped or moved without changing all after it; and
// a Checkpoint, which is an entry's number and hash under the daemon's signature, says how far the record had come. A site
// that keeps one checkpoint elsewhere can show that nothing before it was touched since, also not by who has the machine.
//
// An export is lines of JSON: a header, one line an entry, one checkpoint. Each has one spelling only, so a verifier takes no
// byte on trust. docs/decisions/audit.md has the format, and what this does and does not prove.
//
// The package must not know what the objects mean, nor where the entries are kept. It opens no socket and needs no daemon.
//
// Start reading at Record, then Verify.
package audit
