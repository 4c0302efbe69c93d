// SPDX-License-Identifier: Apache-2.0

// Package inventory is what metald knows: versioned objects, watches on them, and raw records, in one file or in an etcd.
//
// Facts go up into it and orders come down out of it; rooms meet nowhere else. The users' door reads and writes it through
// apiserver's stock etcd3 store, over the client that Store.Etcd returns. The mind and the agents' door use Objects, which
// is the same store over the same keys with the same JSON, without HTTP between: a watch sees both. What must hold for both
// ways (durability, versions, one history) therefore lives here.
//
// The package must not know what a host goes through: no states, no policy, no validation of wishes. It opens one file in
// the directory it is given, or an etcd, and the key to the Secrets in it, with the record's key and its files beside, and
// nothing else.
//
// Every write is recorded in its own commit: who, what, why (recordnote.go). An act on the world is recorded before it is done
// and after (Store.Act); package audit has the form of it.
//
// Start reading at Store, then Objects; backend.go says what it asks of what keeps the keys: package engine, a file, or package
// etcd.
package inventory
