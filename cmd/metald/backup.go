// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"metald.io/metald/internal/daemon"
)

func newBackupCommand(a *access) *cobra.Command {
	return &cobra.Command{
		Use: "backup FILE|-", Short: "Copy the whole inventory while the daemon runs",
		Long: `Copy the whole inventory while the daemon runs: every object, DHCP lease and the record, as they are at one moment, with a digest
at the end. The file is there whole or not at all.

The Secrets in it are encrypted. Keep a copy of the data directory's pki/ and encryption.yaml apart from it: without them a restored
daemon knows neither its Secrets nor its certificates, and with them the backup tells every password.`,
		Example: "  metald backup /backup/metald-$(date +%F).backup\n  metald backup - | ssh vault 'cat > metald.backup'",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
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

// writeBackup puts a file in its place once it is whole and on disk.
func writeBackup(path string, from io.Reader) (int64, error) {
	f, err := renameio.NewPendingFile(path, renameio.WithPermissions(0o600))
	if err != nil {
		return 0, err
	}
	defer f.Cleanup() //nolint:errcheck // it is there whole, or the error is told
	n, err := io.Copy(f, from)
	if err == nil {
		err = f.CloseAtomicallyReplace()
	}
	if err != nil {
		return 0, err
	}
	dir, err := os.Open(filepath.Dir(path)) // the name must last as well
	if err != nil {
		return 0, err
	}
	return n, errors.Join(dir.Sync(), dir.Close())
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
