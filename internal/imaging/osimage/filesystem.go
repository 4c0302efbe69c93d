// SPDX-License-Identifier: Apache-2.0

package osimage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"strconv"

	"github.com/containerd/go-dmverity/pkg/verity"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/imaging/diskless"
)

// clusterSize is how much erofs compresses together, in bytes. Larger ones make the root an eighth smaller than single
// blocks do; every host fetches, digests and keeps it, and reads it from memory.
const clusterSize = 32 << 10

// fileSystem packs the tree at dir into an erofs file. Times are zero and the UUID comes from the seed, so that equal
// trees give equal bytes.
func fileSystem(ctx context.Context, dir, file, seed string) error {
	cmd := exec.CommandContext(ctx, "mkfs.erofs", "--quiet", "-zlz4hc", "-C"+strconv.Itoa(clusterSize), "-T0", "-U", uuidOf(seed), file, dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("packing the root: mkfs.erofs: %w: %s", err, tail(out))
	}
	return nil
}

// seal appends a dm-verity superblock and hash tree to the file system in file and returns what the command line must
// say of it. Salt and UUID come from the seed.
func seal(file, seed string) (diskless.Root, error) {
	info, err := os.Stat(file)
	if err != nil {
		return diskless.Root{}, fmt.Errorf("sealing the root: %w", err)
	}
	blocks := (info.Size() + diskless.BlockSize - 1) / diskless.BlockSize
	offset := blocks * diskless.BlockSize
	if err := os.Truncate(file, offset); err != nil {
		return diskless.Root{}, fmt.Errorf("sealing the root: %w", err)
	}
	salt := sha256.Sum256([]byte("metald verity salt\x00" + seed))
	params := verity.DefaultParams()
	params.DataBlockSize, params.HashBlockSize = diskless.BlockSize, diskless.BlockSize
	params.DataBlocks, params.HashAreaOffset = uint64(blocks), uint64(offset)
	params.Salt, params.SaltSize = salt[:], uint16(len(salt))
	params.UUID = [16]byte(uuidBytes("verity " + seed))
	hash, err := verity.Create(&params, file, file)
	if err != nil {
		return diskless.Root{}, fmt.Errorf("sealing the root: %w", err)
	}
	whole, err := describe(file)
	if err != nil {
		return diskless.Root{}, fmt.Errorf("sealing the root: %w", err)
	}
	superblock, err := superblockDigest(file, offset)
	if err != nil {
		return diskless.Root{}, fmt.Errorf("sealing the root: %w", err)
	}
	return diskless.Root{
		SHA256: whole.SHA256, SizeBytes: whole.SizeBytes, RootHash: hex.EncodeToString(hash), HashOffset: offset, Format: "erofs",
		Superblock: superblock,
	}, nil
}

func superblockDigest(file string, offset int64) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	block := make([]byte, diskless.BlockSize)
	if _, err := f.ReadAt(block, offset); err != nil {
		return "", err
	}
	return textDigest(block), nil
}

func describe(file string) (v1alpha1.File, error) {
	info, err := os.Stat(file)
	if err != nil {
		return v1alpha1.File{}, err
	}
	digest, err := fileDigest(file)
	return v1alpha1.File{SHA256: digest, SizeBytes: info.Size()}, err
}

// uuidBytes derives a version 8 UUID (RFC 9562) from a text.
func uuidBytes(text string) []byte {
	sum := sha256.Sum256([]byte("metald uuid\x00" + text))
	sum[6] = sum[6]&0x0f | 0x80
	sum[8] = sum[8]&0x3f | 0x80
	return sum[:16]
}

func uuidOf(text string) string {
	b := uuidBytes(text)
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
