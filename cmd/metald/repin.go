// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
)

var sha256Hex = regexp.MustCompile(`^[0-9a-f]{64}$`)

func newRepinCommand(a *access) *cobra.Command {
	var certificate, reason string
	c := &cobra.Command{
		Use: "repin HOST", Short: "Accept the new certificate of a host's BMC",
		Long: `Accept the new certificate of a host's BMC, after the BMC or its certificate was replaced on purpose. Until then the host's
BMC gets no credential. Compare the fingerprint with one that you got another way: status shows only what the BMC itself shows.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			certificate = strings.ToLower(strings.ReplaceAll(certificate, ":", ""))
			if !sha256Hex.MatchString(certificate) {
				return usageErrorf("host repin: want --certificate, the sha256 of the BMC's certificate in 64 hex digits")
			}
			if reason == "" {
				return usageErrorf("host repin: want --reason, which is kept with your name in an Event of the host")
			}
			d, err := a.open()
			if err != nil {
				return err
			}
			return eachHost(c, args, func(arg string) (string, error) { return repinHost(c.Context(), d, arg, certificate, reason) })
		},
	}
	c.ValidArgsFunction = completeHosts(a)
	c.Flags().StringVar(&certificate, "certificate", "", "sha256 of the certificate to accept, in hex")
	c.Flags().StringVar(&reason, "reason", "", "why it changed, in a few words")
	return c
}

func repinHost(ctx context.Context, d *door, arg, certificate, reason string) (string, error) {
	h, err := d.host(ctx, arg)
	if err != nil {
		return "", err
	}
	if h.Annotations[v1alpha1.BMCCertificateAnnotation] == certificate {
		return "already accepts " + certificate, nil
	}
	if err := d.note(ctx, h, "Repinned", fmt.Sprintf("BMC certificate %s accepted by %s", certificate, byWhom(reason))); err != nil {
		return "", err
	}
	patch := tree{}
	patch.put(certificate, "metadata", "annotations", v1alpha1.BMCCertificateAnnotation)
	if err := d.patchHost(ctx, h.Namespace, h.Name, patch, &metav1.PatchOptions{FieldManager: fieldManager}); err != nil {
		return "", err
	}
	return "accepts " + certificate, nil
}
