// SPDX-License-Identifier: Apache-2.0

// Package engine keeps versioned keys in one bbolt file and answers as etcd does.
//
// Every key carries the revision that made it, the one that last changed it, how often it changed, and a lease. All
// writes go through one goroutine, which puts as many waiting transactions as it finds into one bbolt transaction: a
// write is acknowledged after that transaction is on disk, and its events are published after that, in the order of
// their revisions. Only the newest value of a key is stored; older ones live in a bounded history in memory, which serves
// watches and reads of the recent past. Past its end, and after a restart, the answer is etcd's "compacted", on which
// every client lists again.
//
// The package must not know what the values mean: no Kubernetes types, no JSON, no keys of its own.
//
// Every row carries a checksum, and all rows together a tally; Open walks the whole file before it trusts it. What a disk has
// changed is refused, never served.
//
// Start reading at Open, then commit.go (how a write becomes durable), txn.go (what a write does) and watch.go (how others
// hear of it). log.go is a chained log that goes with the writes, sum.go and verify.go find damage, backup.go copies it all
// while it is written to, client.go hands it out as an etcd client.
package engine
