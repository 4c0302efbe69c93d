// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/bmc"
)

func newSightingsCommand(a *access) *cobra.Command {
	var o output
	c := &cobra.Command{
		Use: "sightings", Short: "List strangers: BMCs and booting machines that are no hosts of metald's",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := o.printer()
			if err != nil {
				return err
			}
			d, err := a.open()
			if err != nil {
				return err
			}
			var list v1alpha1.SightingList
			if err := d.metald.Get().Resource("sightings").Do(c.Context()).Into(&list); err != nil {
				return fmt.Errorf("listing sightings: %w", err)
			}
			if p != nil {
				return printTyped(c.OutOrStdout(), p.PrintObj, &list)
			}
			if len(list.Items) == 0 {
				fmt.Fprintln(c.ErrOrStderr(), "No strangers were seen")
				return nil
			}
			return printSightings(c.OutOrStdout(), o, list.Items, time.Now())
		},
	}
	c.Flags().StringVarP(&o.format, "output", "o", "", outputHelp)
	c.Flags().BoolVar(&o.noHeaders, "no-headers", false, "leave out the table's first line")
	return c
}

func printSightings(w io.Writer, o output, items []v1alpha1.Sighting, now time.Time) error {
	slices.SortFunc(items, func(a, b v1alpha1.Sighting) int { return cmp.Compare(a.Name, b.Name) })
	var rows [][]any
	for _, s := range items {
		rows = append(rows, []any{s.Name, s.Status.Kind, s.Status.Address, s.Status.MAC, s.Status.Said,
			since(s.Status.LastSeen, now), fmt.Sprint(s.Status.Count), s.Status.UUID, s.Status.CertificateSHA256})
	}
	return o.table(w, columnsOf("NAME", "KIND", "ADDRESS", "MAC", "SAID", "LAST", "COUNT", "|", "UUID", "CERTIFICATE-SHA256"), rows)
}

// printTyped fills in the kinds that a typed client leaves out, without which kubectl's printers print nothing useful.
func printTyped(w io.Writer, print func(runtime.Object, io.Writer) error, list *v1alpha1.SightingList) error {
	list.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("SightingList"))
	for i := range list.Items {
		list.Items[i].SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("Sighting"))
	}
	return print(list, w)
}

func newAdoptCommand(a *access) *cobra.Command {
	var r hostRow
	var name, mac, address, passwordFile, zone, region, rack string
	c := &cobra.Command{
		Use: "adopt SIGHTING", Short: "Make a host of a stranger",
		Long: `Make a host of a stranger. What the sighting tells is taken from it: of a BMC its address and certificate, of a booting machine
its MAC address. The rest must be given. It is the same as a line of 'metald import', and the machine is treated the same: one
that runs is only looked at until 'metald host take'.`,
		Example: "  metald host adopt bmc-10-0-0-5 --name r1n05 --boot-mac 52:54:00:00:00:05 --bmc-username admin --bmc-password-file pw",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			d, err := a.open()
			if err != nil {
				return err
			}
			var s v1alpha1.Sighting
			if err := d.metald.Get().Resource("sightings").Name(args[0]).Do(c.Context()).Into(&s); err != nil {
				return fmt.Errorf("reading sighting: %w", err)
			}
			secret, err := readPassword(c.InOrStdin(), passwordFile)
			if err != nil {
				return err
			}
			r.namespace = d.namespace
			if err := adoptRow(&r, s, map[string]string{
				"name": name, "boot_mac": cmp.Or(mac, s.Status.MAC), "bmc_address": address, "bmc_username": r.username,
				"bmc_password": secret, "zone": zone, "region": region, "rack": rack,
			}); err != nil {
				return err
			}
			e, err := newEnrolment(c.Context(), d, false)
			if err != nil {
				return err
			}
			done, err := e.row(c.Context(), r)
			if err != nil {
				return err
			}
			if err := d.metald.Delete().Resource("sightings").Name(s.Name).Do(c.Context()).Error(); err != nil {
				return fmt.Errorf("host %s was %s, but deleting its sighting: %w", r.name, done, err)
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s/%s %s\n", r.namespace, r.name, done)
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&name, "name", "", "the host's name")
	f.StringVar(&mac, "boot-mac", "", "MAC address that the machine boots from (default: the sighting's)")
	f.StringVar(&address, "bmc-address", "", "the BMC's address (default: the sighting's)")
	f.StringVar(&r.username, "bmc-username", "", "the BMC's user")
	f.StringVar(&passwordFile, "bmc-password-file", "-", "file whose first line is the BMC's password; '-' is stdin")
	f.StringVar(&zone, "zone", "", "label of the host and its Node")
	f.StringVar(&region, "region", "", "label of the host and its Node")
	f.StringVar(&rack, "rack", "", "label of the host and its Node")
	return c
}

// adoptRow fills a row from a sighting and the flags, and checks it like a row of a file.
func adoptRow(r *hostRow, s v1alpha1.Sighting, values map[string]string) error {
	if s.Status.Kind == "bmc" {
		values["bmc_address"] = cmp.Or(values["bmc_address"], s.Status.Address)
		if a, err := bmc.ParseAddress(values["bmc_address"]); err == nil && a.Certified() {
			values["bmc_certificate_sha256"] = s.Status.CertificateSHA256
		}
	}
	for _, key := range append(columnNames(true), columnNames(false)...) {
		if values[key] == "" && !columns[key].required {
			continue
		}
		if err := columns[key].set(r, values[key]); err != nil {
			return usageErrorf("host adopt: %s: %w", key, err)
		}
	}
	if err := r.checkBMC(); err != nil {
		return usageErrorf("host adopt: %w", err)
	}
	return nil
}

func newEvent(h *metal3.BareMetalHost, reason, message string, now time.Time) *corev1.Event {
	at := metav1.NewTime(now)
	return &corev1.Event{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Event"},
		ObjectMeta: metav1.ObjectMeta{Namespace: h.Namespace, Name: fmt.Sprintf("%s.%x", h.Name, now.UnixNano())},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: metal3.GroupVersion.String(), Kind: "BareMetalHost", Namespace: h.Namespace, Name: h.Name, UID: h.UID,
		},
		Reason: reason, Message: message, Type: corev1.EventTypeNormal,
		Source:         corev1.EventSource{Component: fieldManager},
		FirstTimestamp: at, LastTimestamp: at, Count: 1,
	}
}
