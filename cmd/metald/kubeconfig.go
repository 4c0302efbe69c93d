// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"metald.io/metald/internal/daemon"
)

// loginLife is short, since a certificate cannot be called back.
const loginLife = 24 * time.Hour

func newKubeconfigCommand(a *access) *cobra.Command {
	var login daemon.Login
	var server string
	c := &cobra.Command{
		Use: "kubeconfig", Short: "Print a kubeconfig: the administrator's, or a new one for somebody",
		Long: `Print the administrator's kubeconfig of the daemon's data directory, for kubectl and for this program on another machine:

  metald kubeconfig > ~/.kube/metald && kubectl --kubeconfig ~/.kube/metald get bmh

It holds a private key: whoever has it may do everything.

With --user it signs a new login with the client CA of the data directory, which only root beside the daemon can read:

  metald kubeconfig --user olga --group metald:operators --ttl 720h > olga.kubeconfig

What somebody may do is said by roles and bindings. There are groups that may do something from the start: metald:viewers,
metald:operators, metald:auditors and metald:admins. A tenant gets a RoleBinding in its namespace, and in the group
metald:tenants it sees the images that its pools can name:

  kubectl -n team-a create rolebinding tim --clusterrole=metald:tenant --user=tim

A login cannot be called back before it ends. What it may do can: by taking its user out of a binding, which holds at once. A
group of a login stays with it, so give groups for a short time and users for a long one. Each login is listed in
pki/issued.jsonl of the data directory.

Users and groups that begin with "system:" are not given out: the API gives them a meaning of its own.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if login.User != "" {
				return a.signLogin(c, login, server)
			}
			for _, flag := range []string{"group", "ttl", "server"} {
				if c.Flags().Changed(flag) {
					return usageErrorf("--%s is for a new login: give --user too", flag)
				}
			}
			path := a.kubeconfig
			if path == "" {
				path = filepath.Join(a.dataDir, adminKubeconfig)
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return fmt.Errorf("reading kubeconfig: %w", err)
			}
			_, err = c.OutOrStdout().Write(data)
			return err
		},
	}
	c.Flags().StringVar(&login.User, "user", "", "sign a login for this user")
	c.Flags().StringArrayVar(&login.Groups, "group", nil, "a group of that user; may be given more than once")
	c.Flags().DurationVar(&login.Life, "ttl", loginLife, "how long the login is good for, at most a year")
	c.Flags().StringVar(&server, "server", "", "URL of the API in the new kubeconfig (default: as in the administrator's)")
	c.AddCommand(newRotateCommand(a))
	return c
}

func (a *access) signLogin(c *cobra.Command, login daemon.Login, server string) error {
	now := time.Now()
	issued, err := daemon.SignLogin(a.dataDir, login, now)
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w: only root beside the daemon can sign logins", err)
	}
	if err != nil {
		return err
	}
	text, err := issued.Kubeconfig(a.dataDir, server, now)
	if err != nil {
		return err
	}
	c.PrintErrf("a login for user %s, groups %s, until %s, serial %s\n", issued.User, groupList(issued.Groups),
		issued.NotAfter.Format(time.RFC3339), issued.Serial)
	_, err = c.OutOrStdout().Write(text)
	return err
}

func groupList(groups []string) string {
	if len(groups) == 0 {
		return "none"
	}
	return strings.Join(groups, ", ")
}

func newRotateCommand(a *access) *cobra.Command {
	return &cobra.Command{
		Use: "rotate-ca site|client begin|switch|finish", Short: "Replace one of the daemon's certificate authorities, step by step",
		Long: `Replace an authority in the data directory, in three steps. Restart the daemon after each.

  begin   make the next authority, and trust it beside the present one
  switch  sign with the next one, and still trust the one before, whose key is thrown away
  finish  trust the new one alone

The client CA signs logins. After switch the daemon makes admin.kubeconfig anew; give everybody else a new login
(metald kubeconfig --user) and then finish. If a login was stolen, finish at once.

The site CA signs what the daemon serves with. Ramdisks, images and kubeconfigs carry it, so between begin and switch build
the ramdisk and the images anew and hand out kubeconfigs anew; what still carries the old one alone is cut off by switch.`,
		Args:      cobra.ExactArgs(2),
		ValidArgs: append(append([]string{}, daemon.Authorities...), daemon.RotationSteps...),
		RunE: func(c *cobra.Command, args []string) error {
			if err := daemon.Rotate(a.dataDir, args[0], args[1], time.Now()); err != nil {
				return err
			}
			c.PrintErrf("%s of the %s CA is done: restart the daemon\n", args[1], args[0])
			return nil
		},
	}
}
