// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"testing"

	"metald.io/metald/internal/apiserver"
)

// TestAuthenticationRefused looks at files that stop the server, and at what is said of them: each names the file, the line and
// the field.
func TestAuthenticationRefused(t *testing.T) {
	const head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n"
	jwt := func(issuer, mappings string) string {
		return head + "jwt:\n- issuer:\n    url: https://issuer.example.com\n    audiences: [metald]\n" + issuer + "  claimMappings:\n    " + mappings + "\n"
	}
	user := "username: {claim: sub, prefix: 'oidc:'}"
	for name, test := range map[string]struct {
		text string
		want []string
	}{
		"empty":            {"", []string{"authentication.yaml: the file is empty"}},
		"no YAML":          {"jwt: [", []string{"authentication.yaml: yaml: "}},
		"two documents":    {head + "---\n" + head, []string{"more than one document"}},
		"another kind":     {"apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n", []string{"authentication.yaml:2: kind: ", "want AuthenticationConfiguration"}},
		"another version":  {"apiVersion: apiserver.config.k8s.io/v9\nkind: AuthenticationConfiguration\n", []string{"authentication.yaml: no kind \"AuthenticationConfiguration\" is registered for version"}},
		"an unknown field": {head + "jwt:\n- issuer: {url: https://a.example.com, audience: metald}\n", []string{`authentication.yaml:4: unknown field "jwt[0].issuer.audience"`}},
		"anonymous": {head + "anonymous:\n  enabled: true\n", []string{
			"authentication.yaml:4: anonymous.enabled: Invalid value: true: nobody is anonymous here"}},
		"no audience": {strings.Replace(jwt("", user), "    audiences: [metald]\n", "", 1), []string{"authentication.yaml:4: jwt[0].issuer.audiences: "}},
		"plain HTTP":  {strings.Replace(jwt("", user), "https:", "http:", 1), []string{"authentication.yaml:5: jwt[0].issuer.url: "}},
		"a broken CA": {jwt("    certificateAuthority: none\n", user), []string{"authentication.yaml:7: jwt[0].issuer.certificateAuthority: "}},
		"egress":      {jwt("    egressSelectorType: cluster\n", user), []string{"authentication.yaml:7: jwt[0].issuer.egressSelectorType: Forbidden"}},
		"no username": {jwt("", "groups: {claim: groups, prefix: 'oidc:'}"), []string{"jwt[0].claimMappings.username: Required"}},
		"no prefix":   {jwt("", "username: {claim: sub}"), []string{"authentication.yaml:8: jwt[0].claimMappings.username.prefix: Required"}},
		"empty prefix": {jwt("", "username: {claim: sub, prefix: ''}"), []string{
			"authentication.yaml:8: jwt[0].claimMappings.username.prefix: Required value: without one an issuer could name whom it likes"}},
		"empty prefix of groups": {jwt("", user+"\n    groups: {claim: groups, prefix: ''}"), []string{
			"authentication.yaml:9: jwt[0].claimMappings.groups.prefix: Required"}},
		"prefix system:":        {jwt("", "username: {claim: sub, prefix: 'system:'}"), []string{"username.prefix: Invalid value: \"system:\""}},
		"a prefix that becomes": {jwt("", "username: {claim: sub, prefix: 'syst'}"), []string{"username.prefix: Invalid value: \"syst\""}},
		"prefix metald: of groups": {jwt("", user+"\n    groups: {claim: groups, prefix: 'metald:'}"), []string{
			"authentication.yaml:9: jwt[0].claimMappings.groups.prefix: Invalid value: \"metald:\": names that begin with metald: have a meaning of their own"}},
		"a bare expression": {jwt("", "username: {expression: claims.sub}"), []string{"username.expression: Invalid value", "put one before it, as 'oidc:' + claims.sub"}},
		"a wrong expression": {jwt("", "username: {expression: \"'oidc:' + claims.sub.nothing(\"}"), []string{
			"authentication.yaml:8: jwt[0].claimMappings.username.expression: Invalid value"}},
		"one issuer twice": {jwt("", user) + strings.TrimPrefix(jwt("", user), head+"jwt:\n"), []string{"authentication.yaml:10: jwt[1].issuer.url: Duplicate value"}},
		"two at once":      {jwt("", "username: {claim: sub, prefix: ''}") + "anonymous: {enabled: true}\n", []string{"username.prefix", "authentication.yaml:9: anonymous.enabled"}},
	} {
		t.Run(name, func(t *testing.T) {
			err := newWith(t, apiserver.Document{Name: "authentication.yaml", Read: func() ([]byte, error) { return []byte(test.text), nil }})
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range append(test.want, "reading whose tokens to trust: ") {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got  %v\nwant a word of %s", err, want)
				}
			}
		})
	}
	t.Run("no file", func(t *testing.T) {
		gone := errors.New("open authentication.yaml: no such file")
		if err := newWith(t, apiserver.Document{Read: func() ([]byte, error) { return nil, gone }}); !errors.Is(err, gone) {
			t.Errorf("got %v, want %v", err, gone)
		}
	})
}

// newWith makes a server with a document that must be refused, and returns why it was.
func newWith(t *testing.T, document apiserver.Document) error {
	t.Helper()
	a := newAuthority(t)
	certificate, key := a.issue(t, "metald", x509.ExtKeyUsageServerAuth)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, err = apiserver.New(apiserver.Config{Listener: listener, Certificate: certificate, Key: key, ClientCA: a.pem(), Authentication: document})
	return err
}
