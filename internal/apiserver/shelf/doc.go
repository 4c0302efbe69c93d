// SPDX-License-Identifier: Apache-2.0

// Package shelf keeps custom resources in memory as the JSON that they are served as, where the stock watch cache keeps the
// maps that they decode to: those take six times the memory, which the garbage collector walks through again and again, and
// are made into the same JSON for each reader.
//
// It stands where the stock store with its watch cache stands, and both are still there: Store is a storage.Interface whose
// writes go to the stock store as they always did, and whose lists and watches come from a stock watch cache of Objects. What
// a read means (versions, pages, bookmarks, a slow watcher's end) is the stock cache's affair.
//
// Serve goes around the handlers. A plain request for JSON passes all of them, but the store hands the answer to Serve and
// gives the handlers an empty one to write, in whose place Serve writes the JSON. Every other reader (a Table, YAML, a
// subresource) is given a decoded copy.
//
// The package knows nothing of metald's kinds and decides nothing about who may read what. Start reading at store.go.
package shelf
