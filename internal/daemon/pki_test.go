// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

var start = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func ensure(t *testing.T, dir string, names []string, now time.Time) *PKI {
	t.Helper()
	p, err := EnsurePKI(dir, names, now)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The kubeconfig alone must be enough to reach a server that serves with our certificate and asks for the client's.
func TestAdminKubeconfigOpensTheDoor(t *testing.T) {
	dir := t.TempDir()
	p := ensure(t, dir, []string{"10.0.0.1", "metald.example.com"}, time.Now())
	pair, err := tls.X509KeyPair(p.Certificate, p.Key)
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(p.ClientCA)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		subject := r.TLS.PeerCertificates[0].Subject
		io.WriteString(w, strings.Join(subject.Organization, ",")+"/"+subject.CommonName)
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: clients, ClientAuth: tls.RequireAndVerifyClientCert}
	server.StartTLS()
	defer server.Close()

	if err := p.WriteAdminKubeconfig(server.URL); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(AdminKubeconfig(dir))
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("kubeconfig's mode: got %o, want 600", got)
	}
	config, err := clientcmd.BuildConfigFromFlags("", AdminKubeconfig(dir))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(config.CAData)
	login, err := tls.X509KeyPair(config.CertData, config.KeyData)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "10.0.0.1", "metald.example.com", "localhost"} {
		client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{login}, ServerName: name}}}
		answer, err := client.Get(config.Host)
		if err != nil {
			t.Errorf("as %q: %v", name, err)
			continue
		}
		got, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if want := "system:masters/metald-admin"; string(got) != want {
			t.Errorf("as %q the door saw %q, want %q", name, got, want)
		}
	}
	stranger := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}}}
	if _, err := stranger.Get(config.Host); err == nil {
		t.Error("a certificate of the site CA opened the users' door")
	}
}

func TestPKIIsMadeAnewOnlyWhenItMust(t *testing.T) {
	tests := []struct {
		name        string
		names       []string
		now         time.Time
		spoil       func(t *testing.T, pki string)
		serverStays bool
	}{
		{"the same again", []string{"b", "a"}, start.Add(time.Hour), nil, true},
		{"another name", []string{"a", "b", "c"}, start, nil, false},
		{"near its end", []string{"a", "b"}, start.Add(leafLife - leafRenewal), nil, false},
		{"clock went back", []string{"a", "b"}, start.Add(-48 * time.Hour), nil, false},
		{"certificate is damaged", []string{"a", "b"}, start, func(t *testing.T, pki string) {
			write(t, filepath.Join(pki, "server.crt"), "garbage")
		}, false},
		{"key is gone", []string{"a", "b"}, start, func(t *testing.T, pki string) {
			if err := os.Remove(filepath.Join(pki, "server.key")); err != nil {
				t.Fatal(err)
			}
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			before := ensure(t, dir, []string{"a", "b", "a"}, start)
			if tt.spoil != nil {
				tt.spoil(t, filepath.Join(dir, "pki"))
			}
			after := ensure(t, dir, tt.names, tt.now)
			if !bytes.Equal(before.SiteCA, after.SiteCA) || !bytes.Equal(before.ClientCA, after.ClientCA) {
				t.Error("an authority was replaced")
			}
			if got := bytes.Equal(before.Certificate, after.Certificate); got != tt.serverStays {
				t.Errorf("server certificate stayed: got %v, want %v", got, tt.serverStays)
			}
			if _, err := tls.X509KeyPair(after.Certificate, after.Key); err != nil {
				t.Errorf("server pair: %v", err)
			}
			verifyServer(t, after, tt.names, tt.now)
		})
	}
}

func verifyServer(t *testing.T, p *PKI, names []string, now time.Time) {
	t.Helper()
	block, _ := pem.Decode(p.Certificate)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(p.SiteCA)
	if now.Before(start) {
		return // before the authority's own beginning nothing verifies, whatever the certificate says
	}
	for _, n := range append([]string{"127.0.0.1"}, names...) {
		if net.ParseIP(n) != nil {
			n = "[" + n + "]"
		}
		if _, err := cert.Verify(x509.VerifyOptions{DNSName: n, Roots: roots, CurrentTime: now}); err != nil {
			t.Errorf("as %s: %v", n, err)
		}
	}
}

// A broken authority is never silently replaced: all ramdisks and kubeconfigs would stop working.
func TestBrokenAuthorityIsAnError(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(t *testing.T, pki string)
		now   time.Time
		want  string
	}{
		{"garbage", func(t *testing.T, pki string) { write(t, filepath.Join(pki, "site-ca.crt"), "garbage") }, start, "reading site-ca: no certificate in it"},
		{"another's key", func(t *testing.T, pki string) {
			key, err := os.ReadFile(filepath.Join(pki, "client-ca.key"))
			if err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(pki, "site-ca.key"), string(key))
		}, start, "reading site-ca: certificate and key do not belong together"},
		{"no key", func(t *testing.T, pki string) {
			if err := os.Remove(filepath.Join(pki, "site-ca.key")); err != nil {
				t.Fatal(err)
			}
		}, start, "preparing site-ca: site-ca.crt is there without its key"},
		{"over", nil, start.Add(caLife + time.Hour), "reading site-ca: it ended on 2036-"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			ensure(t, dir, nil, start)
			if tt.spoil != nil {
				tt.spoil(t, filepath.Join(dir, "pki"))
			}
			_, err := EnsurePKI(dir, nil, tt.now)
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("got %v, want %s...", err, tt.want)
			}
		})
	}
}

// A crash between a pair's two files leaves the key alone, which is as good as a first start.
func TestAuthorityAfterACrash(t *testing.T) {
	dir := t.TempDir()
	ensure(t, dir, nil, start)
	if err := os.Remove(filepath.Join(dir, "pki", "site-ca.crt")); err != nil {
		t.Fatal(err)
	}
	p := ensure(t, dir, nil, start)
	verifyServer(t, p, nil, start)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

var commented = regexp.MustCompile(`^( *)# ((- )?( *)[a-zA-Z]+:.*)$`)

// uncomment turns "# key: value" into "key: value", and drops the empty list that stands for what follows it.
func uncomment(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.SplitSeq(string(data), "\n") {
		if m := commented.FindStringSubmatch(line); m != nil && !strings.HasSuffix(line, ":") {
			line = m[1] + m[2]
		}
		out = append(out, strings.Replace(line, "interfaces: []", "interfaces:", 1))
	}
	return strings.Join(out, "\n")
}
