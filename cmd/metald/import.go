// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

func newImportCommand(a *access) *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use: "import FILE.csv", Short: "Enrol the machines of a list",
		Long: `Enrol the machines of a list: a CSV file whose first line names its columns, in any order. '-' reads from stdin.

  name                    the host's name, and later its Node's                      required
  bmc_address             as redfish://10.0.0.5, https://bmc.example.com or          required
                          ipmi://10.0.0.6; a port and a Redfish system may follow
  bmc_username            kept in a Secret named NAME-bmc                            required
  bmc_password            likewise; never printed                                    required
  boot_mac                MAC address of the interface that the machine boots from,  required
                          by UEFI HTTP boot or by PXE: metald answers what it asks
  namespace               where the host goes; default: --namespace
  zone, region, rack      labels of the host, copied to its Node
  bmc_certificate_sha256  the BMC's certificate, where it is known beforehand; otherwise the first one met is pinned
  serial_number           as printed on the machine: a BMC that names another one is not this host's
  architecture            x86_64 or aarch64

Lines that begin with # are skipped. An empty optional value leaves things as they are. The command may be repeated: each row
gets one verdict, created, updated, unchanged or error with its reason, and no row stops the others. Two rows with one name, MAC
address, BMC or serial number are both refused. Hosts that are not in the file are left alone.

` + exitHelp,
		Example: "  metald import hosts.csv --dry-run\n  metald import hosts.csv",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			d, err := a.open()
			if err != nil {
				return err
			}
			in := c.InOrStdin()
			if args[0] != "-" {
				file, err := os.Open(args[0])
				if err != nil {
					return fmt.Errorf("reading hosts: %w", err)
				}
				defer file.Close()
				in = file
			}
			return runImport(c, d, in, dryRun)
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "let the server judge every row, and keep nothing")
	return c
}

func runImport(c *cobra.Command, d *door, in io.Reader, dryRun bool) error {
	rows, err := readHosts(in, d.namespace)
	if err != nil {
		return err
	}
	e, err := newEnrolment(c.Context(), d, dryRun)
	if err != nil {
		return err
	}
	counts := map[outcome]int{}
	failed := 0
	for _, r := range rows {
		what, err := e.row(c.Context(), r)
		name := r.namespace + "/" + r.name
		if r.name == "" {
			name = fmt.Sprintf("line %d", r.line)
		}
		if err != nil {
			failed++
			fmt.Fprintf(c.OutOrStdout(), "%s error: line %d: %v\n", name, r.line, err)
			continue
		}
		counts[what]++
		fmt.Fprintf(c.OutOrStdout(), "%s %s%s\n", name, what, dryRunSuffix(dryRun))
	}
	fmt.Fprintf(c.ErrOrStderr(), "%d hosts: %d created, %d updated, %d unchanged, %d errors%s\n",
		len(rows), counts[created], counts[updated], counts[unchanged], failed, dryRunSuffix(dryRun))
	if e.uncompared {
		fmt.Fprintln(c.ErrOrStderr(), "passwords of hosts that are there were not compared: this login may write Secrets, not read them")
	}
	switch failed {
	case 0:
		return nil
	case len(rows):
		return errTold
	}
	return codedError{exitPartial, errTold}
}

func dryRunSuffix(on bool) string {
	if on {
		return " (dry run)"
	}
	return ""
}
