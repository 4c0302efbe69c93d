// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"net"
	"net/url"
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
)

var want1 = Expected{NodeName: "h1", TokenID: "abc123"}

// request is a kubelet's certificate request, as the API server stores it; change spoils the template.
func request(t *testing.T, key crypto.Signer, change func(*x509.CertificateRequest)) *certificatesv1.CertificateSigningRequest {
	t.Helper()
	if key == nil {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		key = k
	}
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:h1", Organization: []string{"system:nodes"}}}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	csr := &certificatesv1.CertificateSigningRequest{Spec: certificatesv1.CertificateSigningRequestSpec{
		Request:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
		SignerName: certificatesv1.KubeAPIServerClientKubeletSignerName,
		Usages:     []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth},
		Username:   "system:bootstrap:abc123",
		Groups:     []string{"system:bootstrappers", Group, "system:authenticated"},
	}}
	csr.Name = "csr-1"
	return csr
}

func TestMismatches(t *testing.T) {
	weak, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	big, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	spiffe, _ := url.Parse("spiffe://x")
	type csr = certificatesv1.CertificateSigningRequest
	for _, c := range []struct {
		name     string
		key      crypto.Signer
		template func(*x509.CertificateRequest)
		spec     func(*csr)
		want     string // in the one difference; empty: none
		expected *Expected
	}{
		{name: "kubelet's own"},
		{name: "RSA with key encipherment", key: big, spec: func(r *csr) { r.Spec.Usages = append(r.Spec.Usages, certificatesv1.UsageKeyEncipherment) }},
		{name: "another token", spec: func(r *csr) { r.Spec.Username = "system:bootstrap:zzz999" }, want: `user is "system:bootstrap:zzz999"`},
		{name: "user whose name ends alike", spec: func(r *csr) { r.Spec.Username = "xsystem:bootstrap:abc123" }, want: "user is"},
		{name: "another node", template: func(r *x509.CertificateRequest) { r.Subject.CommonName = "system:node:h2" }, want: `common name is "system:node:h2"`},
		{name: "no node", template: func(r *x509.CertificateRequest) { r.Subject.CommonName = "admin" }, want: "common name"},
		{name: "masters", template: func(r *x509.CertificateRequest) { r.Subject.Organization = []string{"system:masters"} }, want: "organization"},
		{name: "masters as well", template: func(r *x509.CertificateRequest) { r.Subject.Organization = []string{"system:nodes", "system:masters"} }, want: "organization"},
		{name: "no organization", template: func(r *x509.CertificateRequest) { r.Subject.Organization = nil }, want: "organization"},
		{name: "an organizational unit", template: func(r *x509.CertificateRequest) { r.Subject.OrganizationalUnit = []string{"x"} }, want: "has more than"},
		{name: "second common name", template: func(r *x509.CertificateRequest) {
			r.Subject.ExtraNames = []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "system:node:h1"}, {Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "system:node:h1"},
				{Type: asn1.ObjectIdentifier{2, 5, 4, 10}, Value: "system:nodes"}}
		}, want: "has more than"},
		{name: "DNS name", template: func(r *x509.CertificateRequest) { r.DNSNames = []string{"h1"} }, want: "alternative names"},
		{name: "IP", template: func(r *x509.CertificateRequest) { r.IPAddresses = []net.IP{{10, 0, 0, 1}} }, want: "alternative names"},
		{name: "mail", template: func(r *x509.CertificateRequest) { r.EmailAddresses = []string{"a@b"} }, want: "alternative names"},
		{name: "URI", template: func(r *x509.CertificateRequest) { r.URIs = []*url.URL{spiffe} }, want: "alternative names"},
		{name: "CA", template: func(r *x509.CertificateRequest) {
			r.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Value: []byte{0x30, 3, 1, 1, 0xff}}}
		}, want: "extension 2.5.29.19"},
		{name: "weak key", key: weak, want: "curve of 224 bits"},
		{name: "another signer", spec: func(r *csr) { r.Spec.SignerName = certificatesv1.KubeAPIServerClientSignerName }, want: "signer is"},
		{name: "serving", spec: func(r *csr) {
			r.Spec.Usages = []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageServerAuth}
		}, want: "usages are"},
		{name: "one usage more", spec: func(r *csr) { r.Spec.Usages = append(r.Spec.Usages, certificatesv1.UsageCertSign) }, want: "usages are"},
		{name: "one usage less", spec: func(r *csr) { r.Spec.Usages = r.Spec.Usages[1:] }, want: "usages are"},
		{name: "not in our group", spec: func(r *csr) { r.Spec.Groups = []string{"system:bootstrappers", "system:authenticated"} }, want: "not in group"},
		{name: "in one group more", spec: func(r *csr) { r.Spec.Groups = append(r.Spec.Groups, "system:bootstrappers:kubeadm:default-node-token") }, want: "also in group"},
		{name: "two blocks", spec: func(r *csr) { r.Spec.Request = append(r.Spec.Request, r.Spec.Request...) }, want: "one PEM block"},
		{name: "no PEM", spec: func(r *csr) { r.Spec.Request = []byte("x") }, want: "one PEM block"},
		{name: "cut short", spec: func(r *csr) {
			r.Spec.Request = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: []byte{0x30, 0x82}})
		}, want: "does not parse"},
		{name: "signed by another key", spec: func(r *csr) {
			block, _ := pem.Decode(r.Spec.Request)
			block.Bytes[len(block.Bytes)-1] ^= 1
			r.Spec.Request = pem.EncodeToMemory(block)
		}, want: "not signed by its own key"},
		{name: "nothing granted", expected: &Expected{}, want: "nothing is granted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := request(t, c.key, c.template)
			if c.spec != nil {
				c.spec(r)
			}
			expected := want1
			if c.expected != nil {
				expected = *c.expected
			}
			got := mismatches(r, expected)
			switch {
			case c.want == "" && len(got) > 0:
				t.Errorf("got differences %q, want none", got)
			case c.want != "" && (len(got) != 1 || !strings.Contains(got[0], c.want)):
				t.Errorf("got differences %q, want one with %q", got, c.want)
			}
		})
	}
}
