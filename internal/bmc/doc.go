// SPDX-License-Identifier: Apache-2.0

// Package bmc talks to one baseboard management controller: who the machine is, its power, its next boot, its parts; and
// it finds such controllers on a network. A controller is an enemy until proved otherwise: nothing is sent to it before its
// certificate matched the pin, its links lead nowhere else, its answers are bounded, and its successes are read back.
//
// It must not know why power is switched, what a host is for, or where credentials are kept; it decides nothing and stores
// nothing. The libraries gofish, bmclib and go-ipmi stay inside this room: no type of theirs is in its interface.
//
// Start reading at Dial in dial.go. wire.go is the one way to the network, call.go what is bound to one context;
// power.go, boot.go, identity.go and inventory.go are the four things that can be asked; sweep.go finds controllers. These are
// Redfish; ipmi.go and the files named after it are the same over IPMI, on a session of package lanplus.
package bmc
