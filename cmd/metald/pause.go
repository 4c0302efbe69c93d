// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os/user"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
)

func newPauseCommand(a *access) *cobra.Command {
	var off bool
	var reason string
	c := &cobra.Command{
		Use: "pause HOST...", Short: "Stop all work on hosts at the next safe point, or let it go on",
		Long: `Stop all work on hosts at the next safe point: metald then switches no power and changes nothing on them, and goes on where it
was after 'metald pause --off HOST'. A pause that another tool put on is left to that tool.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if !off && reason == "" {
				return usageErrorf("pause: want --reason, which status shows to whoever wonders")
			}
			d, err := a.open()
			if err != nil {
				return err
			}
			return eachHost(c, args, func(arg string) (string, error) { return pauseHost(c, d, arg, off, reason) })
		},
	}
	c.Flags().BoolVar(&off, "off", false, "end the pause")
	c.Flags().StringVar(&reason, "reason", "", "why, in a few words")
	return c
}

func pauseHost(c *cobra.Command, d *door, arg string, off bool, reason string) (string, error) {
	h, err := d.host(c.Context(), arg)
	if err != nil {
		return "", err
	}
	old, paused := h.Annotations[v1alpha1.PausedAnnotation]
	var value any
	switch {
	case off && !paused:
		return "not paused", nil
	case off && old == capm3Pause:
		return "", codedError{exitRefused, fmt.Errorf("paused by Cluster API (%s), which ends that pause itself", old)}
	case !off && paused:
		return fmt.Sprintf("already paused: %s", old), nil
	case !off:
		value = byWhom(reason)
	}
	patch := tree{}
	patch.put(value, "metadata", "annotations", v1alpha1.PausedAnnotation)
	if err := d.patchHost(c.Context(), h.Namespace, h.Name, patch, &metav1.PatchOptions{FieldManager: fieldManager}); err != nil {
		return "", err
	}
	if off {
		return "goes on", nil
	}
	return "paused", nil
}

// capm3Pause is the value of Metal3's pause annotation that Cluster API's provider puts on while it moves hosts.
const capm3Pause = "metal3.io/capm3"

// byWhom is "who: why". Who is only what this machine calls the person; the API's own record says with which key.
func byWhom(reason string) string {
	if u, err := user.Current(); err == nil {
		return u.Username + ": " + reason
	}
	return reason
}

// eachHost does one thing for each host, prints one line for each, and lets none stop the others.
func eachHost(c *cobra.Command, hosts []string, do func(arg string) (string, error)) error {
	var last error
	failed := 0
	for _, arg := range hosts {
		done, err := do(arg)
		if err != nil {
			failed++
			last = fmt.Errorf("%s: %w", arg, err)
			if len(hosts) > 1 {
				fmt.Fprintln(c.ErrOrStderr(), "metald:", last)
			}
			continue
		}
		fmt.Fprintln(c.OutOrStdout(), arg, done)
	}
	switch {
	case failed == 0:
		return nil
	case len(hosts) == 1:
		return last
	case failed == len(hosts):
		return errTold
	}
	return codedError{exitPartial, errTold}
}
