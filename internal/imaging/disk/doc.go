// SPDX-License-Identifier: Apache-2.0

// Package disk writes an OS image, or a user's own disk image, to a disk such that power may be lost at any moment: the
// disk holds what was asked for, verified, or it does not boot. It must not know the daemon, the agent's session or how a
// disk was chosen: the agent links it and has to stay small.
//
// Start reading at Install, then image.go for the order of writes and wipe.go for the moment from which a disk can be booted;
// stream.go is how bytes get there.
package disk
