// SPDX-License-Identifier: Apache-2.0

package diskless

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// MachineID derives a machine-id(5) from what names the machine for good, its system UUID: a diskless host keeps its id
// from boot to boot though it stores nothing. The UUID itself does not show in it.
func MachineID(systemUUID string) string {
	sum := sha256.Sum256([]byte("metald machine-id\x00" + systemUUID))
	sum[6] = sum[6]&0x0f | 0x40
	sum[8] = sum[8]&0x3f | 0x80
	return hex.EncodeToString(sum[:16])
}

// Settle gives the mounted root at target the one file of /etc that differs from host to host before its init runs: its
// machine id, by a bind mount from /run. Everything else that is written lies on the image's own tmpfs mounts.
func Settle(target, machineID string) error {
	const file = "/run/machine-id"
	if err := os.WriteFile(file, []byte(machineID+"\n"), 0o444); err != nil {
		return fmt.Errorf("writing the machine id: %w", err)
	}
	if err := unix.Mount(file, filepath.Join(target, "etc/machine-id"), "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("placing the machine id: %w", err)
	}
	return nil
}

// Switch makes target the root and runs init there in place of this process, with /proc, /sys, /dev and /run carried
// over and the initramfs emptied. It returns only when it could not.
func Switch(target, init string, args, env []string) error {
	for _, dir := range []string{"proc", "sys", "dev", "run"} {
		if err := unix.Mount("/"+dir, filepath.Join(target, dir), "", unix.MS_MOVE, ""); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("moving /%s into the root: %w", dir, err)
		}
	}
	if err := empty("/"); err != nil {
		return fmt.Errorf("emptying the initramfs: %w", err)
	}
	if err := unix.Chdir(target); err != nil {
		return fmt.Errorf("entering the root: %w", err)
	}
	if err := unix.Mount(target, "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("moving the root into place: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("entering the root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("entering the root: %w", err)
	}
	return fmt.Errorf("starting %s: %w", init, unix.Exec(init, append([]string{init}, args...), env))
}

// empty removes what lies below root on root's own file system, and only when that is an initramfs: its memory would be
// lost for as long as the host runs. Mount points stay.
func empty(root string) error {
	var statfs unix.Statfs_t
	if err := unix.Statfs(root, &statfs); err != nil {
		return err
	}
	if statfs.Type != unix.RAMFS_MAGIC && statfs.Type != unix.TMPFS_MAGIC {
		return nil
	}
	device, err := deviceOf(root)
	if err != nil {
		return err
	}
	return removeBelow(root, device)
}

func removeBelow(dir string, device uint64) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		p := filepath.Join(dir, e.Name())
		if dev, err := deviceOf(p); errors.Is(err, fs.ErrNotExist) || err == nil && dev != device {
			continue
		} else if err != nil {
			return err
		}
		if e.IsDir() {
			if err := removeBelow(p, device); err != nil {
				return err
			}
		}
		// A directory with a mount point below it is not empty, and stays.
		if err := os.Remove(p); err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	return nil
}

func deviceOf(path string) (uint64, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return 0, err
	}
	return info.Sys().(*syscall.Stat_t).Dev, nil
}
