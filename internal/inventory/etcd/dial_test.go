// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// authority signs certificates that are good for both ends.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func certificate(t *testing.T, name string, signer *authority) (*ecdsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: signer == nil,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	if signer == nil {
		signer = &authority{key, c}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, signer.cert, key.Public(), signer.key)
	if err == nil {
		c, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key, c
}

// file writes PEM.
func file(t *testing.T, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// issue writes a certificate of the authority and its key.
func (a *authority) issue(t *testing.T, name string) (certificatePath, keyPath string) {
	t.Helper()
	key, c := certificate(t, name, a)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return file(t, "CERTIFICATE", c.Raw), file(t, "PRIVATE KEY", der)
}

// versioned is the one answer of an etcd that a refusal needs.
type versioned struct {
	pb.UnimplementedMaintenanceServer
	version string
}

func (v versioned) Status(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
	return &pb.StatusResponse{Header: &pb.ResponseHeader{ClusterId: 1}, Version: v.version}, nil
}

// serve answers for an etcd of a version, to those who show a certificate of the authority.
func serve(t *testing.T, a *authority, version string) (endpoint string) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(a.issue(t, "etcd"))
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AddCert(a.cert)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{pair}, ClientCAs: clients, ClientAuth: tls.RequireAndVerifyClientCert,
	})))
	pb.RegisterMaintenanceServer(s, versioned{version: version})
	go s.Serve(l) //nolint:errcheck // it ends with Stop
	t.Cleanup(s.Stop)
	return "https://" + l.Addr().String()
}

func newAuthority(t *testing.T, name string) (*authority, string) {
	t.Helper()
	key, c := certificate(t, name, nil)
	return &authority{key, c}, file(t, "CERTIFICATE", c.Raw)
}

// An old etcd is refused by its version, which only an authenticated conversation tells.
func TestOldEtcdIsRefused(t *testing.T) {
	site, ca := newAuthority(t, "site")
	_, otherCA := newAuthority(t, "other")
	cert, key := site.issue(t, "metald")
	empty := file(t, "NOTHING", nil)
	for _, test := range []struct {
		name    string
		version string
		config  Config
		away    bool
		want    string
	}{
		{"too old", "3.5.12", Config{CA: ca, Certificate: cert, Key: key}, false, "is etcd 3.5.12: want at least 3.5.13"},
		{"much too old", "3.4.34", Config{CA: ca, Certificate: cert, Key: key}, false, "is etcd 3.4.34: want at least 3.5.13"},
		{"a draft of the oldest", "3.5.13-rc.0", Config{CA: ca, Certificate: cert, Key: key}, false, "want at least 3.5.13"},
		{"no version", "new", Config{CA: ca, Certificate: cert, Key: key}, false, "reading the version of"},
		{"of another authority", "3.7.3", Config{CA: otherCA, Certificate: cert, Key: key}, true, "certificate signed by unknown authority"},
		{"without a certificate", "3.7.3", Config{CA: ca}, true, "certificate required"},
		{"without authorities", "3.7.3", Config{CA: empty}, false, "no certificate in it"},
		{"without the file", "3.7.3", Config{CA: ca, Certificate: "/nonexistent", Key: key}, false, "no such file"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.config.Endpoints = []string{serve(t, site, test.version)}
			b, err := Open(t.Context(), test.config, Options{Logger: slog.New(slog.DiscardHandler), Now: time.Now})
			if err == nil {
				b.Close()
			}
			if err == nil || !strings.Contains(err.Error(), test.want) || errors.Is(err, ErrAway) != test.away {
				t.Errorf("got  %v\nwant %q, away %v", err, test.want, test.away)
			}
		})
	}
}

// Keys of the client are below the prefix, whatever they are, and ranges stay there.
func TestKeysStayBelowThePrefix(t *testing.T) {
	k := keysBelow("/metald")
	for _, test := range []struct{ key, end, wantKey, wantEnd string }{
		{"/a", "", "/metald/keys/a", ""},
		{"/a", "/b", "/metald/keys/a", "/metald/keys/b"},
		{"/a", "\x00", "/metald/keys/a", "/metald/keyt"},
		{"\x00", "\x00", "/metald/keys\x00", "/metald/keyt"},
		{"../log/head", "", "/metald/keys../log/head", ""},
	} {
		if key, end := string(k.full([]byte(test.key))), string(k.fullEnd([]byte(test.end))); key != test.wantKey || end != test.wantEnd {
			t.Errorf("%q to %q is %q to %q, want %q to %q", test.key, test.end, key, end, test.wantKey, test.wantEnd)
		}
	}
	for _, own := range []string{k.schema, k.holder, k.term, k.head, k.base, k.entries, k.records} {
		if own >= k.objects && own < "/metald/keyt" {
			t.Errorf("%s is where the client's keys are", own)
		}
	}
	if a, b := k.bucket("a"), k.bucket("a/b"); strings.HasPrefix(b, a) {
		t.Errorf("bucket %s is inside of %s", b, a)
	}
}
