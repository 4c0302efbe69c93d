// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// issuer is an OpenID Connect issuer: it tells its keys over TLS, and signs what a test asks for.
type issuer struct {
	authority *authority
	url       string
	asked     atomic.Int64 // how often its keys were fetched

	mutex sync.Mutex
	keys  map[string]crypto.Signer // by key id
}

// newIssuer makes an issuer, which answers once it serves.
func newIssuer(t *testing.T) *issuer {
	t.Helper()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return &issuer{authority: newAuthority(t), keys: map[string]crypto.Signer{"rsa": rsaKey, "ec": newKey(t)}}
}

// listen takes an address for the issuer.
func (i *issuer) listen(t *testing.T, address string) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	i.url = "https://" + listener.Addr().String()
	return listener
}

// serve answers on the listener until the test ends.
func (i *issuer) serve(t *testing.T, listener net.Listener) {
	t.Helper()
	certificate, key := i.authority.issue(t, "issuer", x509.ExtKeyUsageServerAuth)
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, what any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(what)
	}
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"issuer": i.url, "jwks_uri": i.url + "/keys", "id_token_signing_alg_values_supported": []string{"RS256", "ES256"}})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		i.asked.Add(1)
		answer(w, map[string]any{"keys": i.publicKeys()})
	})
	server := &http.Server{Handler: mux, TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}}}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = server.ServeTLS(listener, "", "") }()
	t.Cleanup(func() { _ = server.Close(); <-ended })
}

// publicKeys is the issuer's key set (RFC 7517).
func (i *issuer) publicKeys() (set []map[string]string) {
	i.mutex.Lock()
	defer i.mutex.Unlock()
	for id, key := range i.keys {
		switch public := key.Public().(type) {
		case *rsa.PublicKey:
			set = append(set, map[string]string{"kid": id, "kty": "RSA", "alg": "RS256", "use": "sig",
				"n": encode(public.N.Bytes()), "e": encode(big.NewInt(int64(public.E)).Bytes())})
		case *ecdsa.PublicKey:
			point, err := public.Bytes() // 4, x, y
			if err != nil {
				continue
			}
			set = append(set, map[string]string{"kid": id, "kty": "EC", "alg": "ES256", "use": "sig", "crv": "P-256",
				"x": encode(point[1:33]), "y": encode(point[33:])})
		}
	}
	return set
}

// replace has the issuer sign with another key from now on.
func (i *issuer) replace(id string, key crypto.Signer) {
	i.mutex.Lock()
	defer i.mutex.Unlock()
	clear(i.keys)
	i.keys[id] = key
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// claims are what a token says; nil takes one out.
type claims map[string]any

// token is one that lets its bearer in, but for what is changed.
func (i *issuer) token(t *testing.T, key string, changes claims) string {
	t.Helper()
	i.mutex.Lock()
	defer i.mutex.Unlock()
	return signed(t, i.keys[key], key, i.claims(changes))
}

func (i *issuer) claims(changes claims) claims {
	now := time.Now()
	said := claims{"iss": i.url, "aud": "metald", "sub": "olga", "groups": []string{"viewers"}, "jti": "1",
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix()}
	for name, value := range changes {
		said[name] = value
		if value == nil {
			delete(said, name)
		}
	}
	return said
}

// signed makes a token (RFC 7519) in the way of its key: RS256 or ES256, and none without a key.
func signed(t *testing.T, key crypto.Signer, id string, said claims) string {
	t.Helper()
	algorithm := "none"
	switch key.(type) {
	case *rsa.PrivateKey:
		algorithm = "RS256"
	case *ecdsa.PrivateKey:
		algorithm = "ES256"
	}
	text := part(t, map[string]any{"alg": algorithm, "kid": id, "typ": "JWT"}) + "." + part(t, said)
	digest := sha256.Sum256([]byte(text))
	var signature []byte
	var err error
	switch private := key.(type) {
	case *rsa.PrivateKey:
		signature, err = rsa.SignPKCS1v15(rand.Reader, private, crypto.SHA256, digest[:])
	case *ecdsa.PrivateKey:
		var r, s *big.Int
		if r, s, err = ecdsa.Sign(rand.Reader, private, digest[:]); err == nil {
			signature = append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + encode(signature)
}

// withHMAC signs with a public key as if it were a shared secret, which a careless verifier takes for good.
func withHMAC(t *testing.T, secret []byte, said claims) string {
	t.Helper()
	text := part(t, map[string]any{"alg": "HS256", "kid": "rsa", "typ": "JWT"}) + "." + part(t, said)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(text))
	return text + "." + encode(mac.Sum(nil))
}

func part(t *testing.T, what any) string {
	t.Helper()
	text, err := json.Marshal(what)
	if err != nil {
		t.Fatal(err)
	}
	return encode(text)
}

// authentication is an AuthenticationConfiguration that trusts the issuer.
func (i *issuer) authentication(mappings string) string {
	return `apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer:
    url: ` + i.url + `
    audiences: [metald]
    certificateAuthority: |
      ` + strings.ReplaceAll(strings.TrimSpace(string(i.authority.pem())), "\n", "\n      ") + `
  claimMappings:
    ` + strings.ReplaceAll(strings.TrimSpace(mappings), "\n", "\n    ") + "\n"
}

const usualMappings = `
username: {claim: sub, prefix: "oidc:"}
groups: {claim: groups, prefix: "oidc:"}`
