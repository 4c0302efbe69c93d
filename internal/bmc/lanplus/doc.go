// SPDX-License-Identifier: Apache-2.0

// Package lanplus is one session of IPMI 2.0 over UDP (RMCP+). It takes the messages, the keys and the commands from go-ipmi, and
// does itself what that library's client leaves open: it checks the integrity of every answer, refuses a BMC that answers a
// request for encryption with less, obeys its context, starts no goroutine, and survives any answer. (The client of go-ipmi
// v0.9.1 decrypts in a goroutine of its own, where a short datagram from anybody is a panic that nobody can catch.)
//
// Two cipher suites are spoken: 17 (HMAC-SHA256, AES-128) and, where the BMC does not know it, 3 (HMAC-SHA1, AES-128). The
// others lack authentication, integrity or encryption, or rest on MD5 or RC4. Whoever hears a handshake can try passwords
// on it at home, which is IPMI's own weakness: BMC networks must be closed, and passwords long.
//
// It must not know what is asked of a BMC, or why. Start reading at Open in open.go; packet.go is what goes over the wire.
package lanplus
