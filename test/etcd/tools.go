// SPDX-License-Identifier: Apache-2.0

//go:build tools

// Package etcd pins the etcd that the long tests of an inventory on etcd run against: of the version of metald's own client. It
// must not know metald: it is a module of its own so that none of this reaches the daemon's go.mod. Start reading at go.mod's
// require line.
package etcd

import _ "go.etcd.io/etcd/server/v3"
