// SPDX-License-Identifier: Apache-2.0

package diskless

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/containerd/go-dmverity/pkg/dm"
	"github.com/containerd/go-dmverity/pkg/verity"
	"golang.org/x/sys/unix"
)

// Map names the root's device-mapper device.
const mapName = "metald-root"

// Memory mounts a tmpfs at dir that holds a root and nothing more, so that the root's size is accounted for by itself.
func Memory(dir string, root Root) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making room for the root: %w", err)
	}
	size := "size=" + strconv.FormatInt(root.SizeBytes+1<<20, 10) + ",mode=0700"
	if err := unix.Mount("metald-root", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, size); err != nil {
		return fmt.Errorf("making room for the root: %w", err)
	}
	return nil
}

// Map puts the root file at path under dm-verity and mounts it read-only at target. It needs the modules loop, dm-verity
// and the file system's. Whatever dm-verity or the file system refuses is a *MismatchError.
func Map(path string, root Root, target string) error {
	args, err := veritySettings(path, root.HashOffset, root)
	if err != nil {
		return err
	}
	loop, err := attach(path)
	if err != nil {
		return fmt.Errorf("attaching the root to a loop device: %w", err)
	}
	args.DataDevice, args.HashDevice = loop, loop
	return mount(args, root, target)
}

// MapDevices is Map of a root that lies on two block devices: the file system on data, the hash tree with its superblock
// in front on hash. Each may be longer than what it holds. Nothing of either is believed: the superblock must be the one
// that the image tool writes, and all that is read is checked against the command line's root hash.
func MapDevices(data, hash string, root Root, target string) error {
	args, err := veritySettings(hash, 0, root)
	if err != nil {
		return err
	}
	args.DataDevice, args.HashDevice = data, hash
	return mount(args, root, target)
}

func mount(args dm.OpenArgs, root Root, target string) error {
	device, err := activate(args)
	if err != nil {
		return fmt.Errorf("mapping the root under dm-verity: %w", err)
	}
	if err := os.MkdirAll(target, 0o755); err != nil {
		return fmt.Errorf("mounting the root: %w", err)
	}
	if err := unix.Mount(device, target, root.Format, unix.MS_RDONLY, ""); err != nil {
		if errors.Is(err, unix.EIO) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EUCLEAN) {
			return &MismatchError{What: "the root under dm-verity", Got: "refused by the kernel (" + err.Error() + ")", Want: "root hash " + root.RootHash}
		}
		return fmt.Errorf("mounting the root: %w", err)
	}
	// The first read goes through the tree once: a root that does not hold together is refused here and not by init.
	if _, err := os.ReadDir(target); err != nil {
		return &MismatchError{What: "the root's first read", Got: err.Error(), Want: "root hash " + root.RootHash}
	}
	return nil
}

// veritySettings reads the superblock at an offset of a file or device. In a file its numbers are as good as the digest,
// which Fetch checked, on a disk they may be anything; they must be those that the image tool writes.
func veritySettings(path string, offset int64, root Root) (dm.OpenArgs, error) {
	f, err := os.Open(path)
	if err != nil {
		return dm.OpenArgs{}, fmt.Errorf("reading the root's superblock: %w", err)
	}
	defer f.Close()
	if err := checkSuperblock(f, offset, root.Superblock); err != nil {
		return dm.OpenArgs{}, err
	}
	sb, err := verity.ReadSuperblock(f, uint64(offset))
	if err != nil {
		return dm.OpenArgs{}, &MismatchError{What: "the dm-verity superblock", Got: err.Error(), Want: "a readable one"}
	}
	hash, err := hex.DecodeString(root.RootHash)
	if err != nil {
		return dm.OpenArgs{}, fmt.Errorf("reading the root hash: %w", err)
	}
	if sb.DataBlockSize != BlockSize || sb.HashBlockSize != BlockSize || int64(sb.DataBlocks)*BlockSize != root.HashOffset {
		return dm.OpenArgs{}, &MismatchError{
			What: "the dm-verity superblock",
			Got:  fmt.Sprintf("%d blocks of %d bytes, hash blocks of %d", sb.DataBlocks, sb.DataBlockSize, sb.HashBlockSize),
			Want: fmt.Sprintf("%d blocks of %d bytes", root.HashOffset/BlockSize, BlockSize),
		}
	}
	return dm.OpenArgs{
		Version: sb.HashType, DataBlockSize: BlockSize, HashBlockSize: BlockSize, DataBlocks: sb.DataBlocks, HashName: "sha256",
		RootDigest: hash, Salt: sb.Salt[:sb.SaltSize],
		// The tree starts in the block after the superblock.
		HashStartBytes: uint64(offset) + BlockSize,
	}, nil
}

// checkSuperblock compares the superblock's block with the digest that the command line has of it: dm-verity itself would
// not see a flipped byte in what it does not use.
func checkSuperblock(r io.ReaderAt, offset int64, want string) error {
	if want == "" {
		return nil
	}
	block := make([]byte, BlockSize)
	if n, err := r.ReadAt(block, offset); n < len(block) {
		return &MismatchError{What: "the dm-verity superblock", Got: fmt.Sprintf("unreadable (%v)", err), Want: "SHA-256 " + want}
	}
	sum := sha256.Sum256(block)
	if got := hex.EncodeToString(sum[:]); got != want {
		return &MismatchError{What: "SHA-256 of the dm-verity superblock", Got: got, Want: want}
	}
	return nil
}

// activate makes the mapped device and waits for nothing: devtmpfs has its node when the ioctl returns.
func activate(args dm.OpenArgs) (string, error) {
	params, err := dm.BuildTargetParams(args)
	if err != nil {
		return "", err
	}
	control, err := dm.Open()
	if err != nil {
		return "", err
	}
	defer control.Close()
	dev, err := control.CreateDevice(mapName)
	if err != nil {
		return "", err
	}
	table := []dm.Target{{Length: args.DataBlocks * BlockSize / 512, Type: "verity", Params: params}}
	if err := control.LoadTable(mapName, table); err != nil {
		return "", errors.Join(err, control.RemoveDevice(mapName))
	}
	if err := control.SuspendDevice(mapName, false); err != nil {
		return "", errors.Join(err, control.RemoveDevice(mapName))
	}
	return filepath.Join("/dev", "dm-"+strconv.FormatUint(uint64(unix.Minor(dev)), 10)), nil
}

// attach gives a file a free loop device, read-only.
func attach(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer control.Close()
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return "", err
		}
		name := "/dev/loop" + strconv.Itoa(n)
		loop, err := os.OpenFile(name, os.O_RDONLY, 0)
		if err != nil {
			return "", err
		}
		err = unix.IoctlLoopConfigure(int(loop.Fd()), &unix.LoopConfig{
			Fd: uint32(f.Fd()), Size: BlockSize, Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_READ_ONLY},
		})
		loop.Close()
		// Somebody else was faster with this one: ask for another.
		if errors.Is(err, unix.EBUSY) {
			continue
		}
		return name, err
	}
}
