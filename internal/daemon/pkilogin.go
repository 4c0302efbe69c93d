// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// reservedPrefix begins the names of users and groups that the API itself gives a meaning to.
const reservedPrefix = "system:"

// issuedFile lists every login that was signed, one JSON object a line: a certificate cannot be called back, so at least it is
// known which there are. The steps in which an authority was replaced stand between them.
const issuedFile = "issued.jsonl"

// Login is a wish for a client certificate.
type Login struct {
	User   string
	Groups []string
	// Life is how long it is good for, at most a year.
	Life time.Duration
}

// Validate refuses what would be more, or other, than it looks.
func (l Login) Validate() error {
	if l.User == "" {
		return errors.New("a login needs a user")
	}
	for what, names := range map[string][]string{"user": {l.User}, "group": l.Groups} {
		for _, name := range names {
			switch {
			case name == "" || strings.TrimSpace(name) != name || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
				return fmt.Errorf("%s %q: want a name without blanks around it and without what cannot be printed", what, name)
			case name == "system:masters":
				return fmt.Errorf("%s %q: no role can take back what it may do, and no certificate can be called back; use the group metald:admins, which may do everything as long as it is bound to the role metald:admin. The one certificate of system:masters is in admin.kubeconfig", what, name)
			case strings.HasPrefix(name, reservedPrefix):
				return fmt.Errorf("%s %q: names that begin with %s have a meaning of their own in the API and are not given out", what, name, reservedPrefix)
			case len(name) > 256:
				return fmt.Errorf("%s %.20q...: longer than 256 letters", what, name)
			}
		}
	}
	if l.Life < time.Minute || l.Life > leafLife {
		return fmt.Errorf("life %s: want one between a minute and %d days", l.Life, leafLife/(24*time.Hour))
	}
	return nil
}

// Issued is a login that was signed.
type Issued struct {
	Serial   string    `json:"serial"`
	User     string    `json:"user"`
	Groups   []string  `json:"groups,omitempty"`
	NotAfter time.Time `json:"notAfter"`
	Signed   time.Time `json:"signed"`
	By       string    `json:"by,omitempty"`

	certificate, key []byte
}

// SignLogin signs a login with the client CA of a data directory, whether or not a daemon runs there. It is in the list of
// what was signed, on disk, before it is returned.
func SignLogin(dataDir string, l Login, now time.Time) (*Issued, error) {
	if err := l.Validate(); err != nil {
		return nil, err
	}
	dir := filepath.Join(dataDir, "pki")
	if _, err := os.Stat(filepath.Join(dir, "client-ca.crt")); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no client CA in %s: metald makes it at its first start", dir)
	}
	client, err := ensureAuthority(dir, "client-ca", "", now)
	if err != nil {
		return nil, err
	}
	wanted := leaf{subject: pkix.Name{CommonName: l.User, Organization: l.Groups}, usage: x509.ExtKeyUsageClientAuth, life: l.Life}
	certPEM, keyPEM, err := client.issue(wanted, now)
	if err != nil {
		return nil, fmt.Errorf("signing a login: %w", err)
	}
	block, _ := pem.Decode(certPEM)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading the new login: %w", err)
	}
	issued := &Issued{Serial: cert.SerialNumber.Text(16), User: l.User, Groups: l.Groups, NotAfter: cert.NotAfter, Signed: now.UTC(), By: person(),
		certificate: certPEM, key: keyPEM}
	if err := list(dir, issued); err != nil {
		return nil, fmt.Errorf("recording the login: %w", err)
	}
	return issued, nil
}

// list appends a line to the list.
func list(dir string, what any) error {
	line, err := json.Marshal(what)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(filepath.Join(dir, issuedFile), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(append(line, '\n'))
	return errors.Join(err, file.Sync(), file.Close())
}

// Kubeconfig is a kubeconfig of the login, for the API at server. An empty server is the one of admin.kubeconfig.
func (i *Issued) Kubeconfig(dataDir, server string, now time.Time) ([]byte, error) {
	site, err := SiteAuthorities(dataDir, now)
	if err != nil {
		return nil, err
	}
	if server == "" {
		admin, err := clientcmd.LoadFromFile(AdminKubeconfig(dataDir))
		if err != nil {
			return nil, fmt.Errorf("looking for the API's address: %w", err)
		}
		cluster := admin.Clusters["metald"]
		if cluster == nil {
			return nil, fmt.Errorf("looking for the API's address: none in %s", AdminKubeconfig(dataDir))
		}
		server = cluster.Server
	}
	return kubeconfig(server, site, i.User, i.certificate, i.key)
}

// kubeconfig is how stock kubectl reaches the API at server as somebody.
func kubeconfig(server string, site []byte, name string, certificate, key []byte) ([]byte, error) {
	c := clientcmdapi.NewConfig()
	c.Clusters["metald"] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: site}
	c.AuthInfos[name] = &clientcmdapi.AuthInfo{ClientCertificateData: certificate, ClientKeyData: key}
	c.Contexts["metald"] = &clientcmdapi.Context{Cluster: "metald", AuthInfo: name, Namespace: "default"}
	c.CurrentContext = "metald"
	data, err := clientcmd.Write(*c)
	if err != nil {
		return nil, fmt.Errorf("writing a kubeconfig: %w", err)
	}
	return data, nil
}
