// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"metald.io/metald/internal/apiserver"
	"metald.io/metald/internal/inventory"
)

// openTrusting starts a door that reads whom to trust from the returned text.
func openTrusting(t *testing.T, text string) (*door, *atomic.Pointer[string]) {
	t.Helper()
	var file atomic.Pointer[string]
	file.Store(&text)
	store, err := inventory.Open(t.TempDir(), inventory.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	d := start(t, store, func(c *apiserver.Config) {
		c.Authentication = apiserver.Document{Name: "authentication.yaml", Every: 50 * time.Millisecond, Read: func() ([]byte, error) {
			text := *file.Load()
			if text == "" {
				return nil, errors.New("it is gone")
			}
			return []byte(text), nil
		}}
	})
	t.Cleanup(func() {
		if err := d.stop(); err != nil {
			t.Errorf("ending the server: %v", err)
		}
	})
	return d, &file
}

// bearer is who comes with a token.
func (d *door) bearer(t *testing.T, token string) *kubernetes.Clientset {
	t.Helper()
	config := d.stranger()
	config.BearerToken = token
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// known is whom the door takes somebody for: a name and groups, or why not.
func known(t *testing.T, client kubernetes.Interface) string {
	t.Helper()
	got, err := client.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return string(apierrors.ReasonForError(err))
	}
	slices.Sort(got.Status.UserInfo.Groups)
	return got.Status.UserInfo.Username + " of " + strings.Join(got.Status.UserInfo.Groups, " ")
}

const olga = "oidc:olga of oidc:viewers system:authenticated"

// TestTokens holds a real issuer's tokens, good and bad, against the door.
func TestTokens(t *testing.T) {
	trusted, other := newIssuer(t), newIssuer(t)
	trusted.serve(t, trusted.listen(t, "127.0.0.1:0"))
	other.serve(t, other.listen(t, "127.0.0.1:0"))
	d, _ := openTrusting(t, trusted.authentication(usualMappings))
	eventually(t, "the issuer's tokens let in", func() bool { return known(t, d.bearer(t, trusted.token(t, "rsa", nil))) == olga })

	soon, before := time.Now().Add(time.Hour).Unix(), time.Now().Add(-time.Minute).Unix()
	public, err := x509.MarshalPKIXPublicKey(trusted.keys["rsa"].Public())
	if err != nil {
		t.Fatal(err)
	}
	good := trusted.token(t, "rsa", nil)
	words := strings.Split(good, ".")
	for name, test := range map[string]struct{ token, want string }{
		"RS256":                      {good, olga},
		"ES256":                      {trusted.token(t, "ec", nil), olga},
		"expired":                    {trusted.token(t, "rsa", claims{"exp": before}), "Unauthorized"},
		"without an end":             {trusted.token(t, "rsa", claims{"exp": nil}), "Unauthorized"},
		"not yet valid":              {trusted.token(t, "rsa", claims{"nbf": soon}), "Unauthorized"},
		"for another audience":       {trusted.token(t, "rsa", claims{"aud": "mail"}), "Unauthorized"},
		"for no audience":            {trusted.token(t, "rsa", claims{"aud": nil}), "Unauthorized"},
		"another issuer's":           {other.token(t, "rsa", nil), "Unauthorized"},
		"of an issuer it is not":     {signed(t, other.keys["rsa"], "rsa", trusted.claims(nil)), "Unauthorized"},
		"another key under its id":   {signed(t, newKey(t), "ec", trusted.claims(nil)), "Unauthorized"},
		"a key id that is not there": {signed(t, newKey(t), "more", trusted.claims(nil)), "Unauthorized"},
		"not signed":                 {signed(t, nil, "rsa", trusted.claims(nil)), "Unauthorized"},
		"signature cut off":          {words[0] + "." + words[1] + ".", "Unauthorized"},
		"the public key as a secret": {withHMAC(t, public, trusted.claims(nil)), "Unauthorized"},
		"other words, old signature": {words[0] + "." + part(t, trusted.claims(claims{"sub": "admin"})) + "." + words[2], "Unauthorized"},
		"no user":                    {trusted.token(t, "rsa", claims{"sub": nil}), "Unauthorized"},
		"an empty user":              {trusted.token(t, "rsa", claims{"sub": ""}), "Unauthorized"},
		"a user of two lines":        {trusted.token(t, "rsa", claims{"sub": "olga\nadmin"}), "Unauthorized"},
		"not a token":                {"guessed", "Unauthorized"},
		// What the issuer says is behind the prefix, whatever it says.
		"a spoofed user":   {trusted.token(t, "rsa", claims{"sub": "system:admin"}), "oidc:system:admin of oidc:viewers system:authenticated"},
		"spoofed groups":   {trusted.token(t, "rsa", claims{"groups": []string{"system:masters", "metald:admins"}}), "oidc:olga of oidc:metald:admins oidc:system:masters system:authenticated"},
		"one group, as is": {trusted.token(t, "rsa", claims{"groups": "viewers"}), olga},
		"no groups":        {trusted.token(t, "rsa", claims{"groups": nil}), "oidc:olga of system:authenticated"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := known(t, d.bearer(t, test.token)); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}

	// What somebody may do is said by bindings, to the names with their prefix; the next request knows.
	vera := d.bearer(t, trusted.token(t, "ec", claims{"sub": "vera"}))
	spoof := d.bearer(t, trusted.token(t, "ec", claims{"sub": "mallory", "groups": []string{"metald:viewers", "system:masters"}}))
	if may(t, vera, "list baremetalhosts.metal3.io") {
		t.Error("before the binding: got yes, want no")
	}
	_, err = d.person(t, "admin", "system:masters").RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "oidc-viewers"},
		RoleRef:    rbacv1.RoleRef{Kind: "ClusterRole", Name: "metald:viewer"},
		Subjects:   []rbacv1.Subject{{Kind: "Group", Name: "oidc:viewers"}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !may(t, vera, "list baremetalhosts.metal3.io") || may(t, vera, "create images.metald.io") {
		t.Error("a viewer by token: want one who may look, and nothing else")
	}
	if may(t, spoof, "list baremetalhosts.metal3.io") {
		t.Error("a group that only looks like metald:viewers: got yes, want no")
	}

	// A token stands beside a certificate, and does not change whom that is.
	both := d.client(t, "carl", "metald:viewers")
	both.BearerToken = good
	client, err := kubernetes.NewForConfig(both)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := known(t, client), "carl of metald:viewers system:authenticated"; got != want {
		t.Errorf("certificate and token: got %q, want %q", got, want)
	}

	// The issuer signs with a new key: it is asked for it.
	fetched := trusted.asked.Load()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	trusted.replace("second", crypto.Signer(key))
	if got := known(t, d.bearer(t, trusted.token(t, "second", nil))); got != olga {
		t.Errorf("after the issuer changed its key: got %q, want %q", got, olga)
	}
	if trusted.asked.Load() == fetched {
		t.Error("the new key was believed without asking the issuer")
	}
}

// TestTokensByExpression has the names made by expressions, which no prefix binds.
func TestTokensByExpression(t *testing.T) {
	trusted := newIssuer(t)
	trusted.serve(t, trusted.listen(t, "127.0.0.1:0"))
	d, _ := openTrusting(t, trusted.authentication(`
username: {expression: "claims.sub == 'olga' ? 'oidc:olga' : claims.sub"}
groups: {expression: "dyn(claims.groups).filter(g, g != 'other')"}
extra:
- {key: example.com/team, valueExpression: claims.team}`))
	eventually(t, "the issuer's tokens let in", func() bool {
		return known(t, d.bearer(t, trusted.token(t, "ec", claims{"groups": []string{"oidc:viewers", "other"}, "team": "a"}))) == olga
	})
	for name, test := range map[string]struct {
		changes claims
		want    string
	}{
		"system:masters":   {claims{"groups": []string{"system:masters"}}, "Unauthorized"},
		"system:nodes":     {claims{"groups": []string{"oidc:viewers", "system:nodes"}}, "Unauthorized"},
		"metald:admins":    {claims{"groups": []string{"metald:admins"}}, "Unauthorized"},
		"metald:root":      {claims{"sub": "metald:root"}, "Unauthorized"},
		"system:apiserver": {claims{"sub": "system:apiserver"}, "Unauthorized"},
		"others":           {claims{"sub": "oidc:tim", "groups": []string{}}, "oidc:tim of system:authenticated"},
	} {
		t.Run(name, func(t *testing.T) {
			test.changes["team"] = "a"
			if got := known(t, d.bearer(t, trusted.token(t, "ec", test.changes))); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// TestIssuerIsAway starts the door before its issuer: certificates let in, tokens do not, it is ready all the same, and once
// the issuer answers its tokens let in.
func TestIssuerIsAway(t *testing.T) {
	trusted := newIssuer(t)
	listener := trusted.listen(t, "127.0.0.1:0")
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	d, _ := openTrusting(t, trusted.authentication(usualMappings))
	token := trusted.token(t, "rsa", nil)
	if got := known(t, d.bearer(t, token)); got != "Unauthorized" {
		t.Errorf("while the issuer is away: got %q, want Unauthorized", got)
	}
	admin := d.person(t, "admin", "system:masters")
	if got := known(t, admin); got != "admin of system:authenticated system:masters" {
		t.Errorf("a certificate while the issuer is away: got %q", got)
	}
	if body, err := admin.RESTClient().Get().AbsPath("/readyz").DoRaw(t.Context()); err != nil || string(body) != "ok" {
		t.Errorf("/readyz while the issuer is away: got %q, %v; want ok", body, err)
	}
	again, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	trusted.serve(t, again)
	eventually(t, "the issuer's tokens let in", func() bool { return known(t, d.bearer(t, token)) == olga })
}

// TestTrustChanges writes the file anew under a running door.
func TestTrustChanges(t *testing.T) {
	first, second := newIssuer(t), newIssuer(t)
	first.serve(t, first.listen(t, "127.0.0.1:0"))
	second.serve(t, second.listen(t, "127.0.0.1:0"))
	d, file := openTrusting(t, first.authentication(usualMappings))
	become := func(text string) { file.Store(&text) }
	who := func(i *issuer) string { return known(t, d.bearer(t, i.token(t, "ec", nil))) }
	eventually(t, "the first issuer's tokens let in", func() bool { return who(first) == olga })
	fetched := first.asked.Load()

	_, another, _ := strings.Cut(second.authentication(usualMappings), "jwt:\n")
	become(first.authentication(usualMappings) + another)
	eventually(t, "the second issuer's tokens let in", func() bool { return who(second) == olga })
	if got := who(first); got != olga || first.asked.Load() != fetched {
		t.Errorf("the first, about whom nothing changed: got %q and %d more questions, want %q and none", got, first.asked.Load()-fetched, olga)
	}
	become("jwt: [")
	time.Sleep(200 * time.Millisecond) // several readings
	become("")
	time.Sleep(200 * time.Millisecond)
	if a, b := who(first), who(second); a != olga || b != olga {
		t.Errorf("after the file was broken, and gone: got %q and %q, want both let in still", a, b)
	}
	become(second.authentication(usualMappings))
	eventually(t, "the first issuer's tokens are refused", func() bool { return who(first) == "Unauthorized" })
	if got := who(second); got != olga {
		t.Errorf("the second, which stayed: got %q, want %q", got, olga)
	}
	become("apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt: []\n")
	eventually(t, "nobody's tokens let in", func() bool { return who(second) == "Unauthorized" })
}
