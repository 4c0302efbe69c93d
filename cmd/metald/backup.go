// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"metald.io/metald/internal/daemon"
)

func newBackupCommand(a *access) *cobra.Command {
	return &cobra.Command{
		Use: "backup FILE|-", Short: "Copy the whole inventory while the daemon runs",
		Long: `Copy the whole inventory while the daemon runs: every object, DHCP lease and the record, as they are at one moment, with a digest
at the end. The file is there whole or not at all, for your eyes alone, and replaces nothing.

The Secrets in it are encrypted. Keep a copy of the data directory's pki/ and encryption.yaml apart from it: without them a restored
daemon knows neither its Secrets nor its certificates, and with them the backup tells every password. Of the record it holds the newest
entries; older ones lie in the data directory's audit/, which should be copied beside it.`,
		Example: "  metald backup /backup/metald-$(date +%F).backup\n  metald backup - | ssh vault 'cat > metald.backup'",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if args[0] != "-" {
				if err := vacant(args[0]); err != nil {
					return err
				}
			}
			d, err := a.open()
			if err != nil {
				return err
			}
			copied, err := d.core.Get().AbsPath(daemon.BackupPath).Stream(c.Context())
			if err != nil {
				return fmt.Errorf("asking for a backup: %w", err)
			}
			defer copied.Close()
			if args[0] == "-" {
				_, err := io.Copy(c.OutOrStdout(), copied)
				return err
			}
			n, err := writeBackup(args[0], copied)
			if err != nil {
				return fmt.Errorf("writing %s: %w", args[0], err)
			}
			fmt.Fprintf(c.ErrOrStderr(), "%s: %d bytes\n", args[0], n)
			return nil
		},
	}
}

// writeBackup gives a file its name once it is whole and on disk, for its owner's eyes alone. It takes no name that something has.
func writeBackup(path string, from io.Reader) (n int64, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // with mode 0600
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	n, err = io.Copy(f, from)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return 0, err
	}
	if err := nameOnce(f.Name(), path); err != nil {
		return 0, err
	}
	dir, err := os.Open(filepath.Dir(path)) // the name must last as well
	if err != nil {
		return 0, err
	}
	return n, errors.Join(dir.Sync(), dir.Close())
}

// nameOnce gives a file a name that nothing has yet, or fails. Not each file system has second names; there, whoever takes the
// name in the same moment loses it.
func nameOnce(file, name string) error {
	err := os.Link(file, name)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := vacant(name); err != nil {
		return err
	}
	return os.Rename(file, name)
}

// vacant refuses a name that something has.
func vacant(path string) error {
	switch _, err := os.Lstat(path); {
	case err == nil:
		return refusedErrorf("%s is there already, and a backup replaces nothing: choose another name", path)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return nil
}

func newRestoreCommand(a *access) *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "restore FILE|-", Short: "Put a backup in the place of the inventory, while the daemon is stopped",
		Long: `Put a backup in the place of the inventory in --data-dir, while the daemon is stopped. The backup is checked whole before anything
is replaced; the old file stays beside as inventory.db.before-restore.

What happened after the backup is not known any more. So when the daemon starts, it looks at each host again before it does
anything to it: its BMC must show the machine that is pinned, and a machine that is on must run what the backup says it runs; else it is
left alone until a person says 'metald host take'. Epochs go on beyond any that were ever given out.`,
		Example: "  systemctl stop metald && metald restore /backup/metald-2026-11-22.backup --reason 'the disk died' && systemctl start metald",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			from := c.InOrStdin()
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return fmt.Errorf("opening the backup: %w", err)
				}
				defer f.Close()
				from = f
			}
			restored, err := daemon.Restore(c.Context(), a.dataDir, from, reason)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "restored as of %s\n", restored.BackupOf.UTC().Format(time.RFC3339))
			return err
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why, kept in the record")
	return c
}
