// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/renameio/v2"
)

const (
	caLife   = 10 * 365 * 24 * time.Hour
	leafLife = 365 * 24 * time.Hour
	// leafRenewal is how long before its end a certificate is replaced. The daemon looks at each start.
	leafRenewal = 60 * 24 * time.Hour
	// backdate forgives hosts whose clock lags; a server without a battery starts in 1970, and its agent sets its clock first.
	backdate = time.Hour
)

// PKI is what the daemon's doors need of its two certificate authorities. All are PEM. The CAs' own keys stay on disk.
type PKI struct {
	// SiteCA signs what the daemon serves with; the ramdisk carries it and trusts nothing else. While it is being replaced
	// there are two, see Rotate.
	SiteCA []byte
	// ClientCA signs what people log in with. While it is being replaced there are two.
	ClientCA []byte
	// Certificate and Key serve both the users' and the agents' door.
	Certificate, Key []byte
	// AdminCertificate and AdminKey are of group system:masters.
	AdminCertificate, AdminKey []byte

	dataDir string
}

// AdminKubeconfig is where the administrator's kubeconfig lies in a data directory.
func AdminKubeconfig(dataDir string) string { return filepath.Join(dataDir, "admin.kubeconfig") }

// EnsurePKI reads the keys and certificates below dataDir/pki and makes those that are missing, near their end, or made for other
// names. An authority is never replaced: a broken one is an error, since every ramdisk and kubeconfig out there trusts it.
func EnsurePKI(dataDir string, names []string, now time.Time) (*PKI, error) {
	dir := filepath.Join(dataDir, "pki")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making key directory: %w", err)
	}
	site, err := ensureAuthority(dir, "site-ca", "metald site CA", now)
	if err != nil {
		return nil, err
	}
	client, err := ensureAuthority(dir, "client-ca", "metald client CA", now)
	if err != nil {
		return nil, err
	}
	server := leaf{
		subject: pkix.Name{CommonName: "metald"},
		names:   append([]string{"localhost", "127.0.0.1", "::1"}, names...),
		usage:   x509.ExtKeyUsageServerAuth,
	}
	serverCert, serverKey, err := site.ensureLeaf(dir, "server", server, now)
	if err != nil {
		return nil, err
	}
	admin := leaf{
		subject: pkix.Name{CommonName: "metald-admin", Organization: []string{"system:masters"}},
		usage:   x509.ExtKeyUsageClientAuth,
	}
	adminCert, adminKey, err := client.ensureLeaf(dir, "admin", admin, now)
	if err != nil {
		return nil, err
	}
	siteCAs, err := trusted(dir, "site-ca", site.pem, now)
	if err != nil {
		return nil, err
	}
	clientCAs, err := trusted(dir, "client-ca", client.pem, now)
	if err != nil {
		return nil, err
	}
	return &PKI{
		SiteCA: siteCAs, ClientCA: clientCAs,
		Certificate: serverCert, Key: serverKey,
		AdminCertificate: adminCert, AdminKey: adminKey,
		dataDir: dataDir,
	}, nil
}

// WriteAdminKubeconfig writes admin.kubeconfig into the data directory, for stock kubectl to reach the API at server.
func (p *PKI) WriteAdminKubeconfig(server string) error {
	data, err := kubeconfig(server, p.SiteCA, "metald-admin", p.AdminCertificate, p.AdminKey)
	if err != nil {
		return err
	}
	path := AdminKubeconfig(p.dataDir)
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
		return nil
	}
	if err := renameio.WriteFile(path, data, 0o600); err != nil {
		return fmt.Errorf("writing admin kubeconfig: %w", err)
	}
	return nil
}

// authority signs certificates.
type authority struct {
	pem  []byte
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func ensureAuthority(dir, name, commonName string, now time.Time) (*authority, error) {
	if err := finishSwitch(dir, name); err != nil {
		return nil, fmt.Errorf("preparing %s: %w", name, err)
	}
	certPEM, keyPEM, err := readPair(dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		certPEM, keyPEM, err = newAuthority(commonName, now)
		if err == nil {
			err = writePair(dir, name, certPEM, keyPEM)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("preparing %s: %w", name, err)
	}
	a := authority{pem: certPEM}
	if a.cert, a.key, err = parsePair(certPEM, keyPEM); err != nil {
		return nil, fmt.Errorf("reading %s: %w: restore %s from a backup, or remove both files to start anew (every ramdisk and kubeconfig must then be made again)",
			name, err, filepath.Join(dir, name+".{crt,key}"))
	}
	if now.After(a.cert.NotAfter) {
		return nil, fmt.Errorf("reading %s: it ended on %s", name, a.cert.NotAfter.Format(time.DateOnly))
	}
	return &a, nil
}

// leaf is what a certificate is wanted for.
type leaf struct {
	subject pkix.Name
	names   []string
	usage   x509.ExtKeyUsage
	life    time.Duration // 0 is leafLife
}

// split sorts names into the two kinds a certificate knows, each once and in order.
func (l leaf) split() (dns []string, ips []net.IP) {
	names := slices.Compact(slices.Sorted(slices.Values(l.names)))
	for _, n := range names {
		if addr, err := netip.ParseAddr(n); err == nil {
			ips = append(ips, net.IP(addr.Unmap().AsSlice()))
		} else if n != "" {
			dns = append(dns, n)
		}
	}
	return dns, ips
}

// serves tells whether a certificate that is at hand does what is wanted, for long enough.
func (a *authority) serves(cert *x509.Certificate, l leaf, now time.Time) bool {
	dns, ips := l.split()
	return cert.CheckSignatureFrom(a.cert) == nil &&
		!now.Before(cert.NotBefore) && now.Add(leafRenewal).Before(cert.NotAfter) &&
		cert.Subject.String() == l.subject.String() &&
		slices.Equal(cert.DNSNames, dns) && slices.EqualFunc(cert.IPAddresses, ips, net.IP.Equal)
}

func (a *authority) ensureLeaf(dir, name string, l leaf, now time.Time) (certPEM, keyPEM []byte, err error) {
	certPEM, keyPEM, err = readPair(dir, name)
	if err == nil {
		// A damaged leaf is simply made again: nobody pins it.
		if cert, _, err := parsePair(certPEM, keyPEM); err == nil && a.serves(cert, l, now) {
			return certPEM, keyPEM, nil
		}
	}
	if certPEM, keyPEM, err = a.issue(l, now); err == nil {
		err = writePair(dir, name, certPEM, keyPEM)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("issuing %s certificate: %w", name, err)
	}
	return certPEM, keyPEM, nil
}
