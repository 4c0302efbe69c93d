// SPDX-License-Identifier: Apache-2.0

// Package pxe answers a booting machine: DHCPv4 for its address and for what it shall boot, TFTP for the loader of firmware that
// knows nothing better, then HTTP for the file.
//
// It must not know what a host is or why it boots something. BootPolicy says what a machine is answered, LeaseStore keeps
// the leases, Blobs holds the files, Lookout hears of machines that nobody listed. An unlisted machine gets silence, and so does
// every machine on an interface where another DHCP server answers.
//
// Start reading at Decide, which is the whole DHCP server without its sockets: a pure function of (packet, leases, answer,
// subnet, now). DHCP is the loop around it, DHCP.Guard the watch for other servers, TFTP serves loaders, NewFiles is the HTTP half.
package pxe
