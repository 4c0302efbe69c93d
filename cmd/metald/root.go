// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"
)

const (
	defaultDataDir = "/var/lib/metald"
	defaultConfig  = "/etc/metald/config.yaml"
)

// version is set by the Makefile's -ldflags; a plain `go build` leaves what Go itself knows.
var version string

func newRootCommand() *cobra.Command {
	a := &access{}
	root := group("metald", "Take racked machines from dead metal to Ready Kubernetes nodes",
		newSetupCommand(), newServeCommand(a), newImportCommand(a), newStatusCommand(a), newPlanCommand(a), newHostCommand(a), newPauseCommand(a),
		newBMCCommand(a), newImageCommand(), newAuditCommand(a), newBackupCommand(a), newRestoreCommand(a), newKubeconfigCommand(a), newVersionCommand(),
	)
	root.Long = root.Short + ".\n\n" + exitHelp
	root.SilenceErrors, root.SilenceUsage = true, true
	flags := root.PersistentFlags()
	flags.StringVar(&a.kubeconfig, "kubeconfig", os.Getenv("METALD_KUBECONFIG"), "kubeconfig of metald's API ($METALD_KUBECONFIG)")
	flags.StringVar(&a.dataDir, "data-dir", defaultDataDir, "the daemon's data directory; its kubeconfig or, for root, its socket is used where no other kubeconfig is given")
	flags.StringVarP(&a.namespace, "namespace", "n", "", "namespace of the hosts (default: the kubeconfig's, else \"default\")")
	root.InitDefaultCompletionCmd()
	root.InitDefaultHelpCmd()
	markUsage(root)
	return root
}

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version of this program",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(c.OutOrStdout(), "metald", programVersion())
			return err
		},
	}
}

func programVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
