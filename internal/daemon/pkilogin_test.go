// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

func certificate(t *testing.T, text []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatal("no certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestSignLogin(t *testing.T) {
	dir := t.TempDir()
	p := ensure(t, dir, nil, start)
	if err := p.WriteAdminKubeconfig("https://10.0.0.1:6443"); err != nil {
		t.Fatal(err)
	}
	wish := Login{User: "olga", Groups: []string{"metald:operators", "rack-7"}, Life: 2 * time.Hour}
	issued, err := SignLogin(dir, wish, start)
	if err != nil {
		t.Fatal(err)
	}
	for server, want := range map[string]string{"": "https://10.0.0.1:6443", "https://metald:1": "https://metald:1"} {
		text, err := issued.Kubeconfig(dir, server, start)
		if err != nil {
			t.Fatal(err)
		}
		config, err := clientcmd.RESTConfigFromKubeConfig(text)
		if err != nil {
			t.Fatal(err)
		}
		if config.Host != want || !bytes.Equal(config.CAData, p.SiteCA) {
			t.Errorf("kubeconfig: got host %s, want %s with the site CA", config.Host, want)
		}
		cert := certificate(t, config.CertData)
		groups := slices.Sorted(slices.Values(cert.Subject.Organization)) // a set, which has no order
		if got := cert.Subject.CommonName + " " + strings.Join(groups, ","); got != "olga metald:operators,rack-7" {
			t.Errorf("subject: got %q", got)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(p.ClientCA)
		for at, want := range map[time.Duration]bool{time.Minute: true, 119 * time.Minute: true, 121 * time.Minute: false} {
			_, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: start.Add(at), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
			if (err == nil) != want {
				t.Errorf("%s after it was signed: got %v, want it to hold: %t", at, err, want)
			}
		}
	}
	again, err := SignLogin(dir, wish, start)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "pki", "issued.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	var listed []string
	for line := range strings.Lines(string(text)) {
		var one Issued
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatal(err)
		}
		listed = append(listed, one.Serial)
	}
	if got, want := strings.Join(listed, " "), issued.Serial+" "+again.Serial; got != want || issued.Serial == again.Serial {
		t.Errorf("listed serials: got %s, want %s, each its own", got, want)
	}
	if bytes.Contains(text, []byte("KEY")) {
		t.Error("the list holds a key")
	}
}

func TestLoginRefused(t *testing.T) {
	dir := t.TempDir()
	ensure(t, dir, nil, start)
	good := Login{User: "olga", Life: time.Hour}
	for name, test := range map[string]struct {
		change func(*Login)
		want   string
	}{
		"no user":            {func(l *Login) { l.User = "" }, "needs a user"},
		"masters":            {func(l *Login) { l.Groups = []string{"metald:viewers", "system:masters"} }, "metald:admins"},
		"another of the API": {func(l *Login) { l.Groups = []string{"system:nodes"} }, "not given out"},
		"a user of the API":  {func(l *Login) { l.User = "system:apiserver" }, "not given out"},
		"a blank":            {func(l *Login) { l.User = "olga " }, "blanks"},
		"an empty group":     {func(l *Login) { l.Groups = []string{""} }, "blanks"},
		"a line end":         {func(l *Login) { l.User = "ol\nga" }, "printed"},
		"a long name":        {func(l *Login) { l.User = strings.Repeat("o", 257) }, "longer"},
		"no life":            {func(l *Login) { l.Life = 0 }, "life"},
		"too long a life":    {func(l *Login) { l.Life = leafLife + time.Second }, "365 days"},
	} {
		t.Run(name, func(t *testing.T) {
			l := good
			test.change(&l)
			if _, err := SignLogin(dir, l, start); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
		})
	}
	if _, err := os.Stat(filepath.Join(dir, "pki", "issued.jsonl")); err == nil {
		t.Error("a refused login is listed")
	}
	empty := t.TempDir()
	if _, err := SignLogin(empty, good, start); err == nil || !strings.Contains(err.Error(), "first start") {
		t.Errorf("without a client CA: got %v, want an error that tells of the first start", err)
	}
}
