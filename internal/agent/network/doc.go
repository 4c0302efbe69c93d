// SPDX-License-Identifier: Apache-2.0

// Package network brings a machine on the wire: every physical network device up, DHCP on all of them at once until the
// daemon's server answers one, the address set, and the lease kept for as long as the machine runs.
//
// It must not know what is fetched or said over the network. It acts on the machine that it runs on, so nothing but
// cmd/metald-agent calls it.
//
// Start reading at Acquire, then Apply and Keep.
package network
