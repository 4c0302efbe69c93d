// SPDX-License-Identifier: Apache-2.0

package inventory

// keptIn says where the store of a test is kept, by its data directory: in a file there, unless the suite runs on etcd
// (etcd_long_test.go).
var keptIn = func(dir string, o Options) (string, Options) { return dir, o }

// KeptIn is keptIn for the tests outside of the package.
func KeptIn(dir string, o Options) (string, Options) { return keptIn(dir, o) }
