// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/provision"
)

func newHostCommand(a *access) *cobra.Command {
	return group("host", "Take, reinstall, adopt, repin and forget hosts; list strangers",
		newTakeCommand(a), newReinstallCommand(a), newAdoptCommand(a), newRepinCommand(a), newSightingsCommand(a), newForgetCommand(a))
}

func newTakeCommand(a *access) *cobra.Command {
	var reason string
	c := takesHosts(a, 1, &cobra.Command{
		Use: "take HOST...", Short: "Allow metald to switch and overwrite hosts that were in use when it met them",
		Long: `Allow metald to switch and overwrite hosts that were in use when it met them. Without it

  a host that was found running is only looked at through its BMC: status says HostRunning;
  a host whose disks held partitions is inspected, but no disk of it is written or erased: status says DisksInUse;
  a host that runs something unknown after 'metald restore' is left running: status says RestoredHostRunning.

What runs there, and what its disks hold, may be somebody's work. Taking a host by itself switches and writes nothing; it holds
from then on, for all that a claim of the host asks for. 'metald plan HOST' shows what that is, 'metald status HOST' which disks
hold partitions.`,
		Example: `  metald plan r1n07
  metald host take r1n07 --reason 'old test machine, its owner agreed'`,
		RunE: func(c *cobra.Command, args []string) error {
			if reason == "" {
				return usageErrorf("host take: want --reason, which is kept with your name on the host")
			}
			d, err := a.open()
			if err != nil {
				return err
			}
			return eachHost(c, args, func(arg string) (string, error) { return takeHost(c.Context(), d, arg, reason) })
		},
	})
	c.Flags().StringVar(&reason, "reason", "", "why it may be switched off and overwritten, in a few words")
	return c
}

func takeHost(ctx context.Context, d *door, arg, reason string) (string, error) {
	h, err := d.host(ctx, arg)
	if err != nil {
		return "", err
	}
	by := byWhom(reason)
	if old := h.Annotations[v1alpha1.TakenAnnotation]; old != "" {
		var p v1alpha1.HostProgress
		if err := d.beside(ctx, "hostprogresses", h.Namespace, h.Name, &p); err != nil {
			return "", err
		}
		// After a restore nobody knows what it runs: what was said before the backup does not count.
		if w := p.Status.Waiting; w == nil || w.Reason != provision.RestoredHostRunning {
			return "already taken: " + old, nil
		}
		if by == old {
			by += ", again"
		}
	}
	patch := tree{}
	patch.put(by, "metadata", "annotations", v1alpha1.TakenAnnotation)
	if err := d.patchHost(ctx, h.Namespace, h.Name, patch, &metav1.PatchOptions{FieldManager: fieldManager}); err != nil {
		return "", err
	}
	return "taken", nil
}

func newForgetCommand(a *access) *cobra.Command {
	var abandon bool
	var reason string
	c := takesHosts(a, 1, &cobra.Command{
		Use: "forget HOST...", Short: "Delete hosts from metald",
		Long: `Delete hosts from metald. Metald first lets go of the machine in the orderly way: where it is a Node and its cluster answers, the
Node is drained and removed, then the machine is switched off; status shows how far it is. A BMC that does not answer is asked
three times, and then let go of all the same, with an Event that says so: a dead BMC does not need --abandon. Its disks keep
what they hold: to have them erased, let the host leave its pool first.

--abandon deletes the host at once and waits for nothing: no Node is drained, nothing is switched off and nothing is erased, and
what runs there goes on running.

The Secret with the BMC's credentials stays; it is the user's.`,
		Example: "  metald host forget r1n07\n  metald host forget r1n08 --abandon --reason 'sold, with its disks shredded'",
		RunE: func(c *cobra.Command, args []string) error {
			if abandon && reason == "" {
				return usageErrorf("host forget --abandon: want --reason: nothing will be switched off or erased")
			}
			d, err := a.open()
			if err != nil {
				return err
			}
			return eachHost(c, args, func(arg string) (string, error) { return forgetHost(c.Context(), d, arg, abandon, reason) })
		},
	})
	c.Flags().BoolVar(&abandon, "abandon", false, "do not wait for the machine: remove the finalizer that holds the host")
	c.Flags().StringVar(&reason, "reason", "", "why it is abandoned, kept in an Event")
	return c
}

func forgetHost(ctx context.Context, d *door, arg string, abandon bool, reason string) (string, error) {
	h, err := d.host(ctx, arg)
	if err != nil {
		return "", err
	}
	if abandon {
		if err := d.note(ctx, h, "Abandoned", byWhom(reason)); err != nil {
			return "", err
		}
	}
	err = d.metal3.Delete().Namespace(h.Namespace).Resource("baremetalhosts").Name(h.Name).
		Body(&metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &h.UID}}).Do(ctx).Error()
	if err != nil && !apierrors.IsNotFound(err) {
		return "", fmt.Errorf("deleting host: %w", err)
	}
	if !abandon {
		return "is being let go of", nil
	}
	// The uid keeps this from hitting a new host of the same name; only our own finalizer is ours to remove.
	left := []string{}
	for _, f := range h.Finalizers {
		if f != v1alpha1.HostFinalizer {
			left = append(left, f)
		}
	}
	patch := tree{}
	patch.put(string(h.UID), "metadata", "uid")
	patch.put(left, "metadata", "finalizers")
	err = d.patchHost(ctx, h.Namespace, h.Name, patch, &metav1.PatchOptions{FieldManager: fieldManager})
	if err != nil && !apierrors.IsNotFound(err) {
		return "", err
	}
	if len(left) > 0 {
		return fmt.Sprintf("abandoned, but others still hold it: %v", left), nil
	}
	return "abandoned", nil
}

// note leaves an Event on a host, for what a person did and the host's own objects will not tell for long.
func (d *door) note(ctx context.Context, h *metal3.BareMetalHost, reason, message string) error {
	event := newEvent(h, reason, message, time.Now())
	if err := d.core.Post().Namespace(h.Namespace).Resource("events").Body(event).Do(ctx).Error(); err != nil {
		return fmt.Errorf("writing event: %w", err)
	}
	return nil
}
