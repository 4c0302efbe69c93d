// SPDX-License-Identifier: Apache-2.0

// Package pxetest is the other end of package pxe: firmware, agents and operating systems that ask for an address and
// boot, on a network segment in memory. Everything waits on channels and timers only, so it also runs in fake time.
//
// It must not know how pxe decides: it speaks DHCP and HTTP as a machine does, with UEFI's retry schedule, and says what
// it was told.
//
// Start reading at Client, then Player, which runs clients from a script.
package pxetest
