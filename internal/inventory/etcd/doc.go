// SPDX-License-Identifier: Apache-2.0

// Package etcd keeps the inventory in a real etcd, under one prefix, and answers as package engine does over a file: the same
// client for the stores above, the same chained log in the transaction of each write, the same raw records.
//
// One daemon at a time writes. It holds a key with a lease, and each of its transactions compares that key: a daemon that has
// lost its hold cannot write any more, however late its request arrives. Each transaction that adds to the log compares the
// log's head too, so that the chain cannot fork.
//
// What etcd does by itself is not in the log: keys whose lease has ended go without a word, as they do in package engine.
// Whoever writes to etcd past metald is beyond this package; a log that somebody changed is noticed at the next write.
//
// The package must not know what the values mean: no Kubernetes types, no JSON but its own, no keys of its own below those
// that it is asked for.
//
// Start reading at Open, then transact.go (how a write becomes one transaction), hold.go (who may write) and wire.go (how keys
// get their prefix).
package etcd
