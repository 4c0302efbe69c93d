// SPDX-License-Identifier: Apache-2.0

// Package agent is what runs on a host, in the ramdisk, in an image's initramfs and in the OS: it says hello to the
// daemon, proves by the machine's TPM who it is, asks for orders, carries them out and says how they ended. It gives up
// only when it is told to stop: a daemon that is away, a session that is over, a network that breaks are all met by
// trying again, and a person at the console is told what is going on.
//
// It must not know how the daemon is reached, how a lease or a mount is made, nor what an order is for: it has a Daemon, a
// Machine and a Console and decides nothing itself. So the same agent runs against the real daemon in fake time.
//
// Start reading at Agent.Run, then steps.go and long.go (what takes hours and must not be done twice); client.go is the
// wire. The packages below it do things to a real machine: facts sees it, tpm proves it, early is the first program's work,
// network brings it on the wire, erase empties its drives, kubelet makes it a Node.
package agent
