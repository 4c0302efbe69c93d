// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	tokenapi "k8s.io/cluster-bootstrap/token/api"
)

// ErrMismatch is a certificate request that is not the one a grant is for; the error says each difference.
var ErrMismatch = errors.New("certificate request does not match its grant")

// ErrDecided is a certificate request that somebody denied, or that failed.
var ErrDecided = errors.New("certificate request is denied or failed")

// Expected is the grant that a request must match.
type Expected struct {
	NodeName string
	TokenID  string
}

// CSR is a certificate request as the control plane lists it, with what is needed to find its grant. Approve looks again.
type CSR struct {
	Name     string
	Username string
	Groups   []string
	Signer   string
	// TokenID is the bootstrap token that asked, empty for another kind of user.
	TokenID string
	// NodeName is the Node that the request names, empty where it names none.
	NodeName string
	Approved bool
	Denied   bool
	Issued   bool
	Created  time.Time
}

// Approve approves the named request where it is the one that want expects, and only then. A request that is approved
// already is looked at just the same; a mismatch is ErrMismatch, and nothing is written.
func (c *Cluster) Approve(ctx context.Context, csrName string, want Expected) error {
	requests := c.client.CertificatesV1().CertificateSigningRequests()
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		csr, err := requests.Get(ctx, csrName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if diffs := mismatches(csr, want); len(diffs) > 0 {
			return fmt.Errorf("%w: %s", ErrMismatch, strings.Join(diffs, "; "))
		}
		state := csrOf(csr)
		switch {
		case state.Denied:
			return ErrDecided
		case state.Approved:
			return nil
		}
		csr.Status.Conditions = append(csr.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
			Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "MetaldGrant",
			Message: fmt.Sprintf("matches the grant of token %s to node %s", want.TokenID, want.NodeName),
		})
		_, err = requests.UpdateApproval(ctx, csr.Name, csr, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		return fmt.Errorf("approving certificate request %s: %w", csrName, err)
	}
	return nil
}

// mismatches says all that is wrong with a request for the grant. What it compares comes in two kinds: the user and
// groups were set by the API server from the token, the rest was written by whoever has the token.
func mismatches(csr *certificatesv1.CertificateSigningRequest, want Expected) (diffs []string) {
	differs := func(format string, args ...any) { diffs = append(diffs, fmt.Sprintf(format, args...)) }
	if want.NodeName == "" || want.TokenID == "" {
		return []string{"nothing is granted"}
	}
	if csr.Spec.SignerName != certificatesv1.KubeAPIServerClientKubeletSignerName {
		differs("signer is %q, want %q", csr.Spec.SignerName, certificatesv1.KubeAPIServerClientKubeletSignerName)
	}
	if user := tokenapi.BootstrapUserPrefix + want.TokenID; csr.Spec.Username != user {
		differs("user is %q, want %q", csr.Spec.Username, user)
	}
	if !slices.Contains(csr.Spec.Groups, Group) {
		differs("user is not in group %s", Group)
	}
	for _, g := range csr.Spec.Groups {
		if g != Group && g != tokenapi.BootstrapDefaultGroup && g != "system:authenticated" {
			differs("user is also in group %q", g)
		}
	}
	if !kubeletUsages(csr.Spec.Usages) {
		differs("usages are %q, want digital signature and client auth, with or without key encipherment", csr.Spec.Usages)
	}
	req, err := parse(csr.Spec.Request)
	if err != nil {
		differs("%v", err)
		return diffs
	}
	if cn := nodeUserPrefix + want.NodeName; req.Subject.CommonName != cn {
		differs("common name is %q, want %q", req.Subject.CommonName, cn)
	}
	if !slices.Equal(req.Subject.Organization, []string{"system:nodes"}) {
		differs("organization is %q, want %q", req.Subject.Organization, []string{"system:nodes"})
	}
	if len(req.Subject.Names) != len(req.Subject.Organization)+1 {
		differs("subject %q has more than an organization and a common name", req.Subject)
	}
	if len(req.DNSNames)+len(req.EmailAddresses)+len(req.IPAddresses)+len(req.URIs) > 0 {
		differs("subject has alternative names")
	} else if len(req.Extensions) > 0 {
		differs("request asks for extension %s", req.Extensions[0].Id)
	}
	if weak := weakness(req); weak != "" {
		differs("%s", weak)
	}
	return diffs
}

const nodeUserPrefix = "system:node:"

func parse(request []byte) (*x509.CertificateRequest, error) {
	block, rest := pem.Decode(request)
	if block == nil || block.Type != "CERTIFICATE REQUEST" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("request is not one PEM block of a certificate request")
	}
	req, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, errors.New("request does not parse")
	}
	if err := req.CheckSignature(); err != nil {
		return nil, errors.New("request is not signed by its own key")
	}
	return req, nil
}

func kubeletUsages(usages []certificatesv1.KeyUsage) bool {
	needed := map[certificatesv1.KeyUsage]bool{certificatesv1.UsageDigitalSignature: false, certificatesv1.UsageClientAuth: false}
	for _, u := range usages {
		if _, ok := needed[u]; ok {
			needed[u] = true
		} else if u != certificatesv1.UsageKeyEncipherment { // kubelets with an RSA key ask for it
			return false
		}
	}
	return needed[certificatesv1.UsageDigitalSignature] && needed[certificatesv1.UsageClientAuth]
}

func weakness(req *x509.CertificateRequest) string {
	switch key := req.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if key.Curve.Params().BitSize < 256 {
			return fmt.Sprintf("key is on a curve of %d bits", key.Curve.Params().BitSize)
		}
	case *rsa.PublicKey:
		if key.N.BitLen() < 2048 {
			return fmt.Sprintf("key is RSA with %d bits", key.N.BitLen())
		}
	case ed25519.PublicKey:
	default:
		return "key is of an unknown kind"
	}
	return ""
}

func csrOf(csr *certificatesv1.CertificateSigningRequest) CSR {
	r := CSR{
		Name: csr.Name, Username: csr.Spec.Username, Groups: csr.Spec.Groups, Signer: csr.Spec.SignerName,
		Issued: len(csr.Status.Certificate) > 0, Created: csr.CreationTimestamp.Time,
	}
	if id, ok := strings.CutPrefix(csr.Spec.Username, tokenapi.BootstrapUserPrefix); ok {
		r.TokenID = id
	}
	if req, err := parse(csr.Spec.Request); err == nil {
		r.NodeName, _ = strings.CutPrefix(req.Subject.CommonName, nodeUserPrefix)
		if r.NodeName == req.Subject.CommonName {
			r.NodeName = ""
		}
	}
	for _, cond := range csr.Status.Conditions {
		switch cond.Type {
		case certificatesv1.CertificateApproved:
			r.Approved = true
		case certificatesv1.CertificateDenied, certificatesv1.CertificateFailed:
			r.Denied = true
		}
	}
	return r
}

// gone says whether a call found nothing there.
func gone(err error) bool { return apierrors.IsNotFound(err) }
