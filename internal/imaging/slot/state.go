// SPDX-License-Identifier: Apache-2.0

package slot

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Fstab is the table of a machine whose state lies on the partition with the given unique GUID. systemd makes the file
// system where there is none yet: whoever installs the machine leaves the partition's beginning empty, and what must be
// below /var on a new one systemd-tmpfiles makes at each boot.
func Fstab(state string) string {
	return "# Written at this boot: the machine was started from its disk.\n" +
		Device(state) + " /var ext4 noatime,nosuid,nodev,x-systemd.makefs,x-systemd.device-timeout=90s 0 2\n" +
		"tmpfs /tmp tmpfs mode=1777,nosuid,nodev,size=20% 0 0\n"
}

// journal lets the journal stay on the disk. Its name sorts behind the image's own file, which keeps it in memory.
const journal = "[Journal]\nStorage=persistent\nSystemMaxUse=512M\n"

// Settle makes the mounted root at target use the state partition: a table of its own, bound over the image's, and a
// journal that stays. Both lie in run, which goes with the machine into its OS.
func Settle(target, run, state string) error {
	for path, text := range map[string]string{
		"metald/fstab": Fstab(state), "systemd/journald.conf.d/20-metald-disk.conf": journal,
	} {
		path = filepath.Join(run, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("preparing the state partition: %w", err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return fmt.Errorf("preparing the state partition: %w", err)
		}
	}
	if err := unix.Mount(filepath.Join(run, "metald/fstab"), filepath.Join(target, "etc/fstab"), "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("placing the table of file systems over the image's: %w", err)
	}
	return nil
}
