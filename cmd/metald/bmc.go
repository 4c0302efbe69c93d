// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/bmc"
)

func newBMCCommand(a *access) *cobra.Command {
	return group("bmc", "Look for baseboard controllers", newScanCommand(a))
}

func newScanCommand(a *access) *cobra.Command {
	var o output
	var options bmc.SweepOptions
	var record bool
	c := &cobra.Command{
		Use: "scan CIDR...", Short: "Ask every address of networks for a Redfish service",
		Long: `Ask every address of networks for a Redfish service. It runs on this machine and sends no credentials: one connection and one
request an address. With --record, BMCs that belong to no host are kept in metald as sightings, for 'metald host adopt'.`,
		Example: "  metald bmc scan 10.1.0.0/24\n  metald bmc scan 10.1.0.0/24 10.2.0.0/24 --record",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var prefixes []netip.Prefix
			for _, arg := range args {
				p, err := parsePrefix(arg)
				if err != nil {
					return usageErrorf("bmc scan: %w", err)
				}
				prefixes = append(prefixes, p)
			}
			var d *door
			if record {
				var err error
				if d, err = a.open(); err != nil {
					return err
				}
			}
			return scan(c, d, prefixes, options, o)
		},
	}
	f := c.Flags()
	f.Uint16Var(&options.Port, "port", 443, "port of the BMCs")
	f.DurationVar(&options.Timeout, "timeout", 10*time.Second, "for one address")
	f.IntVar(&options.Concurrency, "concurrency", 64, "how many addresses are asked at once")
	f.BoolVar(&options.Large, "large", false, "allow networks of more than 4096 addresses")
	f.BoolVar(&record, "record", false, "keep what was found as sightings")
	f.BoolVar(&o.noHeaders, "no-headers", false, "leave out the table's first line")
	return c
}

// parsePrefix takes a network, or one address.
func parsePrefix(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("%q is neither a network, as 10.1.0.0/24, nor an address", s)
	}
	return p.Masked(), nil
}

func scan(c *cobra.Command, d *door, prefixes []netip.Prefix, options bmc.SweepOptions, o output) error {
	var all []bmc.Found
	sweepErr := bmc.Sweep(c.Context(), prefixes, options, func(f bmc.Found) { all = append(all, f) })
	// What was found before an interruption is worth telling too.
	slices.SortFunc(all, func(a, b bmc.Found) int { return compareHosts(a.Address.Host, b.Address.Host) })
	known, err := knownBMCs(c.Context(), d)
	if err != nil {
		return err
	}
	var rows [][]any
	failed := 0
	for _, f := range all {
		noted := "-"
		if d != nil {
			host := known[f.Address.Host]
			switch {
			case host != "":
				noted = "host " + host
			default:
				if noted, err = d.record(c.Context(), f, time.Now()); err != nil {
					failed++
					noted = err.Error()
				}
			}
		}
		rows = append(rows, []any{f.Address.String(), f.Vendor, f.Product, f.RedfishVersion, noted, f.UUID, f.CertificateSHA256})
	}
	if len(rows) > 0 {
		// The certificate is what a person compares before trusting: it is not hidden behind -o wide here.
		columns := columnsOf("ADDRESS", "VENDOR", "PRODUCT", "REDFISH", "NOTED", "UUID", "CERTIFICATE-SHA256")
		if err := o.table(c.OutOrStdout(), columns, rows); err != nil {
			return err
		}
	}
	if sweepErr != nil {
		return sweepErr
	}
	fmt.Fprintf(c.ErrOrStderr(), "%d found\n", len(all))
	if failed > 0 {
		return codedError{exitPartial, fmt.Errorf("%d could not be noted", failed)}
	}
	return nil
}

func compareHosts(a, b string) int {
	x, errX := netip.ParseAddr(a)
	y, errY := netip.ParseAddr(b)
	if errX != nil || errY != nil {
		return strings.Compare(a, b)
	}
	return x.Compare(y)
}

// knownBMCs says which host a BMC's address belongs to; without a door nothing is known.
func knownBMCs(ctx context.Context, d *door) (map[string]string, error) {
	known := map[string]string{}
	if d == nil {
		return known, nil
	}
	hosts, err := d.hosts(ctx, "", "")
	if err != nil {
		return nil, err
	}
	for _, h := range hosts {
		if address, err := bmc.ParseAddress(h.Spec.BMC.Address); err == nil {
			known[address.Host] = h.Namespace + "/" + h.Name
		}
	}
	return known, nil
}

// record keeps a strange BMC as a sighting, or brings the one that is there up to date.
func (d *door) record(ctx context.Context, f bmc.Found, now time.Time) (string, error) {
	name := sightingName(f.Address)
	at := metav1.NewTime(now)
	var s v1alpha1.Sighting
	err := d.metald.Get().Resource("sightings").Name(name).Do(ctx).Into(&s)
	if apierrors.IsNotFound(err) {
		s = v1alpha1.Sighting{
			TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "Sighting"},
			ObjectMeta: metav1.ObjectMeta{Name: name},
		}
		err = d.metald.Post().Resource("sightings").Body(&s).Do(ctx).Into(&s)
	}
	if err != nil {
		return "", fmt.Errorf("keeping sighting: %w", err)
	}
	s.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("Sighting"))
	if s.Status.FirstSeen == nil {
		s.Status.FirstSeen = &at
	}
	s.Status.Kind, s.Status.Address, s.Status.UUID = "bmc", f.Address.String(), f.UUID
	s.Status.Said = cut(strings.TrimSpace(f.Vendor+" "+f.Product), 256)
	s.Status.CertificateSHA256 = f.CertificateSHA256
	s.Status.LastSeen = &at
	s.Status.Count++
	if err := d.metald.Put().Resource("sightings").Name(name).SubResource("status").Body(&s).Do(ctx).Error(); err != nil {
		if apierrors.IsConflict(err) {
			return "", errors.New("somebody else noted it at the same moment")
		}
		return "", fmt.Errorf("keeping sighting: %w", err)
	}
	return "sighting " + name, nil
}

var notInNames = regexp.MustCompile(`[^a-z0-9]+`)

// sightingName is the same for the same BMC, also when the daemon's own sweep meets it.
func sightingName(a bmc.Address) string {
	return "bmc-" + strings.Trim(notInNames.ReplaceAllString(strings.ToLower(a.String()), "-"), "-")
}

func cut(s string, n int) string {
	if len(s) > n {
		return strings.ToValidUTF8(s[:n], "")
	}
	return s
}
