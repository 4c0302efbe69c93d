// SPDX-License-Identifier: Apache-2.0

// Package slot is the running machine's side of slots: which slot of its disk it was started from, where that slot's
// partitions are, and how an entry of the boot loader is called good or bad. Package disk writes what is read here, and
// holds the names.
//
// systemd-boot counts boots in an entry's file name: metald-a+3.efi has three tries left, metald-a+2-1.efi two after one
// boot, metald-a+0-3.efi none and comes last, metald-a.efi is known to be good. Who blesses an entry takes the counter
// away; who condemns it sets it to none.
//
// It must not know the daemon, the agent's wire or what an image is: the agent links it and has to stay small.
//
// Start reading at Booted, then Find, Bless and Turn.
package slot
