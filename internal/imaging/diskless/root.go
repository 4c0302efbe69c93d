// SPDX-License-Identifier: Apache-2.0

// Package diskless is what a host does to run an image with nothing but its initramfs: fetch the root by its digest into
// memory, or take it from the partitions of a disk, map it under dm-verity, mount it read-only and start its init. It also holds the words on the kernel's command line that name the root, so that
// the one who builds an image and the one who boots it agree. It must not know the daemon, the agent's wire or how the
// network came up: the agent links it and has to stay small.
//
// Start reading at Root, then Fetch, Map, Settle and Switch, in the order in which a host runs them.
package diskless

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// BlockSize is the size in bytes of dm-verity's data and hash blocks, and of the file system's.
const BlockSize = 4096

// Root says which root file system an image's UKI was made for. Whoever trusts the command line trusts the root.
type Root struct {
	// SHA256 is the digest in hex of the whole file: file system and hash tree.
	SHA256 string
	// SizeBytes is the length of the whole file.
	SizeBytes int64
	// RootHash is the dm-verity root hash in hex.
	RootHash string
	// HashOffset is where the dm-verity superblock starts, in bytes.
	HashOffset int64
	// Superblock is the digest in hex of the block that the superblock begins: on a disk nothing else says whether it is whole.
	// Empty for an image that was built before there was one.
	Superblock string
	// Format is the file system: erofs or squashfs.
	Format string
}

// CommandLine is the root as words of the kernel's command line.
func (r Root) CommandLine() string {
	line := fmt.Sprintf("metald.root=%s metald.rootsize=%d metald.roothash=%s metald.hashoffset=%d metald.rootfstype=%s",
		r.SHA256, r.SizeBytes, r.RootHash, r.HashOffset, r.Format)
	if r.Superblock != "" {
		line += " metald.superblock=" + r.Superblock
	}
	return line
}

// ParseCommandLine finds the root in a kernel command line. The second result is false when none is named: then this is
// no OS image.
func ParseCommandLine(line string) (Root, bool, error) {
	r := Root{Format: "erofs"}
	var err error
	found := false
	number := func(key, value string) int64 {
		n, perr := strconv.ParseInt(value, 10, 64)
		if perr != nil || n <= 0 {
			err = fmt.Errorf("reading the command line: %s=%s is not a positive number", key, value)
		}
		return n
	}
	for _, word := range strings.Fields(line) {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "metald.root":
			found, r.SHA256 = true, value
		case "metald.rootsize":
			r.SizeBytes = number(key, value)
		case "metald.roothash":
			r.RootHash = value
		case "metald.hashoffset":
			r.HashOffset = number(key, value)
		case "metald.superblock":
			r.Superblock = value
		case "metald.rootfstype":
			r.Format = value
		}
	}
	if !found {
		return Root{}, false, nil
	}
	if err != nil {
		return Root{}, true, err
	}
	return r, true, r.check()
}

func (r Root) check() error {
	digests := map[string]string{"metald.root": r.SHA256, "metald.roothash": r.RootHash}
	if r.Superblock != "" {
		digests["metald.superblock"] = r.Superblock
	}
	for key, value := range digests {
		if b, err := hex.DecodeString(value); err != nil || len(b) != 32 {
			return fmt.Errorf("reading the command line: %s=%q is not a SHA-256 digest in hex", key, value)
		}
	}
	if r.HashOffset <= 0 || r.HashOffset%BlockSize != 0 || r.HashOffset >= r.SizeBytes {
		return fmt.Errorf("reading the command line: metald.hashoffset=%d does not fit a root of %d bytes", r.HashOffset, r.SizeBytes)
	}
	if r.Format != "erofs" && r.Format != "squashfs" {
		return fmt.Errorf("reading the command line: metald.rootfstype=%q is neither erofs nor squashfs", r.Format)
	}
	return nil
}

// MismatchError says that what was fetched or read is not what the command line promised. Trying again does not help:
// the host must refuse the image.
type MismatchError struct {
	What      string
	Got, Want string
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("%s is %s, want %s", e.What, e.Got, e.Want)
}
