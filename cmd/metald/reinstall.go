// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"github.com/spf13/cobra"
	"golang.org/x/term"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
)

func newReinstallCommand(a *access) *cobra.Command {
	var reason string
	var yes bool
	c := takesHosts(a, 1, &cobra.Command{
		Use: "reinstall HOST...", Short: "Write the disks of installed hosts anew",
		Long: `Write the disk of an installed host anew, with the image that it was claimed for. ALL THAT THE DISK HOLDS IS LOST, also what pods
kept there. Other disks of the host are left as they are. Its Node is drained and removed first, and joins again afterwards. A
pause and the cap on destructive acts hold here too.

Only a host that metald installed to disk can be reinstalled; a diskless one is made anew by a boot. On a terminal the command
asks before it does anything; elsewhere it wants --yes.`,
		Example: "  metald host reinstall r1n01 --reason 'root-a failed its verity check'",
		RunE: func(c *cobra.Command, args []string) error {
			if reason == "" {
				return usageErrorf("host reinstall: want --reason, which is kept with your name on the host")
			}
			ask := terminal(c.InOrStdin())
			if !yes && !ask {
				return usageErrorf("host reinstall: all that the hosts' disks hold will be lost: want --yes, where nobody can be asked")
			}
			d, err := a.open()
			if err != nil {
				return err
			}
			return reinstall(c, d, args, reason, ask && !yes)
		},
	})
	c.Flags().StringVar(&reason, "reason", "", "why it is written anew, in a few words")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask: all that the disks hold will be lost")
	return c
}

// reinstall first looks at all the hosts, then asks once, then acts: a person agrees to what is named to them, and no more.
func reinstall(c *cobra.Command, d *door, args []string, reason string, ask bool) error {
	t := tally{c: c, of: len(args)}
	type wish struct {
		arg string
		h   *metal3.BareMetalHost
	}
	var wishes []wish
	for _, arg := range args {
		h, disk, err := d.installed(c.Context(), arg)
		t.count(arg, err)
		switch {
		case err != nil:
		case h.Annotations[v1alpha1.ReinstallAnnotation] != "":
			fmt.Fprintf(c.OutOrStdout(), "%s already asked for: %s\n", arg, h.Annotations[v1alpha1.ReinstallAnnotation])
		default:
			fmt.Fprintf(c.ErrOrStderr(), "%s: all that %s holds will be lost\n", arg, diskName(disk))
			wishes = append(wishes, wish{arg, h})
		}
	}
	if len(wishes) > 0 && ask {
		agreed, err := confirm(c.InOrStdin(), c.ErrOrStderr(), fmt.Sprintf("Write %d disk(s) anew? Type yes: ", len(wishes)))
		if err != nil {
			return err
		}
		if !agreed {
			return errors.New("nothing was done")
		}
	}
	for _, w := range wishes {
		err := d.annotate(c.Context(), w.h, v1alpha1.ReinstallAnnotation, byWhom(reason))
		t.count(w.arg, err)
		if err == nil {
			fmt.Fprintln(c.OutOrStdout(), w.arg, "will be reinstalled")
		}
	}
	return t.end()
}

// installed answers a host that metald has installed to a disk, and the disk; any other is refused with the reason.
func (d *door) installed(ctx context.Context, arg string) (*metal3.BareMetalHost, v1alpha1.DiskTarget, error) {
	var none v1alpha1.DiskTarget
	h, err := d.host(ctx, arg)
	if err != nil {
		return nil, none, err
	}
	var p v1alpha1.HostProgress
	if err := d.beside(ctx, "hostprogresses", h.Namespace, h.Name, &p); err != nil {
		return nil, none, err
	}
	deployment, state := deref(p.Status.Deployment), cmp.Or(metal3.ProvisioningState(p.Status.State), h.Status.Provisioning.State)
	switch {
	case h.DeletionTimestamp != nil:
		return nil, none, refusedErrorf("it is being deleted")
	case p.Status.Leaving != nil:
		return nil, none, refusedErrorf("it is leaving its pool, and its disks are erased by that")
	case deployment.Method == v1alpha1.DisklessMethod:
		return nil, none, refusedErrorf("it runs from memory: metald installed nothing on its disks")
	case deployment.Install == nil:
		return nil, none, refusedErrorf("metald installed nothing on its disks (it is %s)", cmp.Or(state, "new"))
	case deployment.Install.Written == nil:
		return nil, none, refusedErrorf("its disk is being written already: see metald status %s", h.Name)
	}
	return h, deployment.Install.Disk, nil
}

// annotate puts one annotation on this very host, not on a later one of its name.
func (d *door) annotate(ctx context.Context, h *metal3.BareMetalHost, key, value string) error {
	patch := tree{}
	patch.put(string(h.UID), "metadata", "uid")
	patch.put(value, "metadata", "annotations", key)
	return d.patchHost(ctx, h.Namespace, h.Name, patch, &metav1.PatchOptions{FieldManager: fieldManager})
}

// diskName is how a person tells one disk from another: its name now, and what is printed on it.
func diskName(t v1alpha1.DiskTarget) string {
	text := t.Name
	if t.Model != "" {
		text += " " + t.Model
	}
	if id := cmp.Or(t.SerialNumber, t.WWN); id != "" {
		text += " (" + id + ")"
	}
	return text
}

func terminal(in io.Reader) bool {
	file, ok := in.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// confirm asks, and takes nothing but a whole yes for one.
func confirm(in io.Reader, out io.Writer, question string) (bool, error) {
	fmt.Fprint(out, question)
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("reading the answer: %w", err)
	}
	return strings.EqualFold(strings.TrimSpace(line), "yes"), nil
}
