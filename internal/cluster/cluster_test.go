// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"metald.io/metald/api/v1alpha1"
)

const (
	secrets  = "/api/v1/namespaces/kube-system/secrets/"
	nodes    = "/api/v1/nodes/"
	csrs     = "/apis/certificates.k8s.io/v1/certificatesigningrequests/"
	bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/"
)

func TestVersion(t *testing.T) {
	s, c := newControl(t)
	if got, err := c.Version(t.Context()); err != nil || got != "v1.36.3" {
		t.Errorf("got %q, %v, want v1.36.3", got, err)
	}
	s.setAway(true)
	if got, err := c.Version(t.Context()); err == nil {
		t.Errorf("control plane away: got version %q, want an error", got)
	}
	bad, err := Dial([]byte(strings.Replace(s.kubeconfig(), `"admin"`, `"other"`, 1)), "")
	if err != nil {
		t.Fatal(err)
	}
	s.setAway(false)
	if _, err := bad.Version(t.Context()); !apierrors.IsUnauthorized(err) {
		t.Errorf("wrong credentials: got %v, want Unauthorized", err)
	}
}

func TestDialRefuses(t *testing.T) {
	s, _ := newControl(t)
	good := s.kubeconfig()
	for _, c := range []struct{ name, old, new, server, want string }{
		{"no kubeconfig", good, "x", "", "reading kubeconfig"},
		{"empty", good, "", "", "reading kubeconfig"},
		{"program", `"token":"admin"`, `"exec":{"apiVersion":"client.authentication.k8s.io/v1","command":"/bin/sh","interactiveMode":"Never"}`, "", `user "a" runs a program`},
		{"token file", `"token":"admin"`, `"tokenFile":"/etc/shadow"`, "", `user "a" names a file`},
		{"key file", `"token":"admin"`, `"client-certificate":"/a","client-key":"/b"`, "", `user "a" names a file`},
		{"CA file", "certificate-authority-data", "certificate-authority", "", `cluster "a" names a file`},
		{"no CA", `"certificate-authority-data"`, `"x"`, "", "no certificate-authority-data"},
		{"unverified server", `"cluster":{`, `"cluster":{"insecure-skip-tls-verify":true,`, "", "does not verify its server"},
		{"plain HTTP for Nodes", "", "", "http://10.0.0.1", "not an https URL"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Dial([]byte(strings.Replace(good, c.old, c.new, 1)), c.server)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestGrant(t *testing.T) {
	s, c := newControl(t)
	noon := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	c.now = func() time.Time { return noon }
	c.server = "https://10.0.0.1:6443"
	foreign := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "bootstrap-token-zzzzzz", Namespace: "kube-system"}, Type: corev1.SecretTypeBootstrapToken}
	s.put(t, secrets+foreign.Name, foreign)

	first, err := c.Grant(t.Context(), "h1", 5*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	other, err := c.Grant(t.Context(), "h2", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if !other.Expires.Equal(noon.Add(10 * time.Minute)) {
		t.Errorf("a grant for an hour expires at %s, want ten minutes past noon", other.Expires)
	}
	g, err := c.Grant(t.Context(), "h1", 5*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{first.TokenID: false, other.TokenID: true, g.TokenID: true, "zzzzzz": true} {
		if got := s.get(secrets+"bootstrap-token-"+name) != nil; got != want {
			t.Errorf("token %s exists: got %v, want %v", name, got, want)
		}
	}
	if !g.Expires.Equal(noon.Add(5 * time.Minute)) {
		t.Errorf("expires at %s, want five minutes past noon", g.Expires)
	}
	config, err := clientcmd.RESTConfigFromKubeConfig([]byte(g.Kubeconfig))
	if err != nil {
		t.Fatal(err)
	}
	id, secret, _ := strings.Cut(config.BearerToken, ".")
	if id != g.TokenID || config.Host != "https://10.0.0.1:6443" || string(config.CAData) != string(c.ca) {
		t.Errorf("kubeconfig has token %s of server %s, want token %s of the Nodes' server with its CA", id, config.Host, g.TokenID)
	}
	got := map[string]string{}
	data, _ := s.get(secrets + "bootstrap-token-" + g.TokenID)["data"].(map[string]any)
	for k, v := range data {
		raw, _ := base64.StdEncoding.DecodeString(fmt.Sprint(v))
		got[k] = string(raw)
	}
	want := map[string]string{"token-id": id, "token-secret": secret, "expiration": "2026-11-22T12:05:00Z", "usage-bootstrap-authentication": "true",
		"auth-extra-groups": "system:bootstrappers:metald", "description": "metald: one join of node h1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("token (-want +got):\n%s", diff)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		if text := fmt.Sprintf(verb, g); strings.Contains(text, secret) || !strings.Contains(text, "REDACTED") {
			t.Errorf("%s prints %s", verb, text)
		}
	}
	if err := errors.Join(c.Revoke(t.Context(), g.TokenID), c.Revoke(t.Context(), g.TokenID)); err != nil {
		t.Errorf("revoking twice: %v", err)
	}
	if s.get(secrets+"bootstrap-token-"+g.TokenID) != nil {
		t.Error("the token is there after it was revoked")
	}
}

func TestGrantRefuses(t *testing.T) {
	s, c := newControl(t)
	for _, a := range []struct {
		node, want string
		ttl        time.Duration
	}{
		{"H_1", "granting a join", time.Minute},
		{"", "granting a join", time.Minute},
		{"h1", "is none", 0},
		{"h1", "is none", -time.Minute},
	} {
		if _, err := c.Grant(t.Context(), a.node, a.ttl); err == nil || !strings.Contains(err.Error(), a.want) {
			t.Errorf("node %q for %s: got %v, want an error with %q", a.node, a.ttl, err, a.want)
		}
	}
	if err := c.Revoke(t.Context(), "../x"); err == nil {
		t.Error("revoking a path: got no error")
	}
	if got := s.writes(); len(got) > 0 {
		t.Errorf("refused calls wrote %q", got)
	}
}

func TestBinding(t *testing.T) {
	s, c := newControl(t)
	at := bindings + bindingName
	grant := func() error {
		_, err := c.Grant(t.Context(), "h1", time.Minute)
		return err
	}
	if err := grant(); err != nil {
		t.Fatal(err)
	}
	made := s.get(at)
	if got := fmt.Sprint(made["roleRef"], made["subjects"]); got != "map[apiGroup:rbac.authorization.k8s.io kind:ClusterRole name:system:node-bootstrapper] [map[apiGroup:rbac.authorization.k8s.io kind:Group name:system:bootstrappers:metald]]" {
		t.Errorf("got binding %s", got)
	}
	if err := grant(); err != nil || fmt.Sprint(s.get(at)) != fmt.Sprint(made) {
		t.Errorf("second grant: got %v and binding %v, want it untouched", err, s.get(at))
	}
	s.put(t, at, merge(made, map[string]any{"subjects": []any{}}))
	if err := grant(); err != nil || fmt.Sprint(s.get(at)["subjects"]) != fmt.Sprint(made["subjects"]) {
		t.Errorf("with its subjects gone: got %v and %v, want them back", err, s.get(at)["subjects"])
	}
	s.put(t, at, merge(made, map[string]any{"roleRef": map[string]any{"name": "cluster-admin"}}))
	if err := grant(); err == nil || !strings.Contains(err.Error(), "cluster-admin; delete it") {
		t.Errorf("bound to another role: got %v, want an error that names it", err)
	}
}

func TestApprove(t *testing.T) {
	s, c := newControl(t)
	good := request(t, nil, nil)
	s.put(t, csrs+"csr-1", good)
	if err := c.Approve(t.Context(), "csr-1", Expected{NodeName: "h2", TokenID: "abc123"}); !errors.Is(err, ErrMismatch) || !strings.Contains(err.Error(), "system:node:h1") {
		t.Errorf("for another node: got %v, want ErrMismatch that names it", err)
	}
	if got := s.writes(); len(got) > 0 {
		t.Errorf("a mismatch wrote %q", got)
	}
	for range 2 {
		if err := c.Approve(t.Context(), "csr-1", want1); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"PUT " + csrs + "csr-1/approval"}, s.writes()); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
	var got CSR
	status, _ := s.get(csrs + "csr-1")["status"].(map[string]any)
	if conditions := fmt.Sprint(status["conditions"]); !strings.Contains(conditions, "type:Approved") || !strings.Contains(conditions, "token abc123 to node h1") {
		t.Errorf("got conditions %s, want Approved with the grant", conditions)
	}
	denied := good.DeepCopy()
	denied.Name = "csr-2"
	denied.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateDenied, Status: corev1.ConditionTrue}}
	s.put(t, csrs+"csr-2", denied)
	if err := c.Approve(t.Context(), "csr-2", want1); !errors.Is(err, ErrDecided) {
		t.Errorf("denied by a person: got %v, want ErrDecided", err)
	}
	if err := c.Approve(t.Context(), "csr-3", want1); !apierrors.IsNotFound(err) {
		t.Errorf("no such request: got %v, want NotFound", err)
	}
	got = csrOf(denied)
	want := CSR{Name: "csr-2", Username: "system:bootstrap:abc123", Groups: denied.Spec.Groups, Signer: denied.Spec.SignerName, TokenID: "abc123", NodeName: "h1", Denied: true}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("request as told to followers (-want +got):\n%s", diff)
	}
}

func node(name, host string, ready corev1.ConditionStatus) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kubernetes.io/hostname": name}}}
	if host != "" {
		n.Labels[v1alpha1.HostLabel] = host
	}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready, Reason: "KubeletReady"}}
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}, {Type: corev1.NodeInternalIP, Address: "172.22.0.100"}}
	n.Status.NodeInfo.KubeletVersion = "v1.36.3"
	return n
}

func TestLabel(t *testing.T) {
	s, c := newControl(t)
	s.put(t, nodes+"h1", node("h1", "", corev1.ConditionTrue))
	want := map[string]string{v1alpha1.HostLabel: "default.h1", v1alpha1.ZoneLabel: "z1"}
	for range 2 {
		if err := c.Label(t.Context(), "h1", want); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.writes(); len(got) != 1 {
		t.Errorf("labelling twice wrote %q, want one patch", got)
	}
	labels := fmt.Sprint(meta(s.get(nodes + "h1"))["labels"])
	if labels != "map[kubernetes.io/hostname:h1 metald.io/host:default.h1 topology.kubernetes.io/zone:z1]" {
		t.Errorf("got labels %s", labels)
	}
	if err := c.Label(t.Context(), "h1", map[string]string{v1alpha1.HostLabel: "other.h1"}); !errors.Is(err, ErrOwned) || !strings.Contains(err.Error(), "default.h1") {
		t.Errorf("second host of the name: got %v, want ErrOwned that names the first", err)
	}
	for name, bad := range map[string]map[string]string{"no owner": {"a": "b"}, "bad key": {v1alpha1.HostLabel: "default.h1", "a b": "c"}, "bad value": {v1alpha1.HostLabel: "default.h1", "a": "b/c"}} {
		if err := c.Label(t.Context(), "h1", bad); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
	if err := c.Cordon(t.Context(), "h1", "default.h1", true); err != nil || fmt.Sprint(s.get(nodes + "h1")["spec"]) != "map[unschedulable:true]" {
		t.Errorf("cordoning: got %v and spec %v", err, s.get(nodes + "h1")["spec"])
	}
	if err := c.DeleteNode(t.Context(), "h1", "other.h1"); !errors.Is(err, ErrOwned) || s.get(nodes+"h1") == nil {
		t.Errorf("deleting another's node: got %v, want ErrOwned and the node still there", err)
	}
	if err := errors.Join(c.DeleteNode(t.Context(), "h1", "default.h1"), c.DeleteNode(t.Context(), "h1", "default.h1")); err != nil || s.get(nodes+"h1") != nil {
		t.Errorf("deleting twice: got %v, node %v", err, s.get(nodes+"h1"))
	}
}

// note is a Follower that remembers.
type note struct {
	mu   sync.Mutex
	said []string
	away int
}

func (n *note) say(s string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.said = append(n.said, s)
}

func (n *note) Request(r CSR) { n.say(fmt.Sprintf("request %s of token %s", r.Name, r.TokenID)) }

func (n *note) Node(s NodeState, gone bool) {
	n.say(fmt.Sprintf("node %s of %q at %s %s ready=%v gone=%v", s.Name, s.Host, s.InternalIP, s.KubeletVersion, s.Ready, gone))
}

func (n *note) Away(error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.away++
}

func (n *note) wait(t *testing.T, what string) {
	t.Helper()
	for range 1000 {
		n.mu.Lock()
		found := slices.Contains(n.said, what) || what == "away" && n.away > 0
		n.mu.Unlock()
		if found {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("never heard %q; heard:\n%s", what, strings.Join(n.said, "\n"))
}

func TestFollow(t *testing.T) {
	s, c := newControl(t)
	s.put(t, nodes+"h1", node("h1", "", corev1.ConditionFalse))
	ctx, cancel := context.WithCancel(t.Context())
	n, done := &note{}, make(chan error, 1)
	go func() { done <- c.Follow(ctx, n) }()
	n.wait(t, `node h1 of "" at 172.22.0.100 v1.36.3 ready=false gone=false`)

	serving := request(t, nil, nil)
	serving.Name, serving.Spec.SignerName = "csr-0", certificatesv1.KubeletServingSignerName
	s.put(t, csrs+"csr-0", serving)
	s.put(t, csrs+"csr-1", request(t, nil, nil))
	n.wait(t, "request csr-1 of token abc123")
	s.put(t, nodes+"h1", node("h1", "default.h1", corev1.ConditionTrue))
	n.wait(t, `node h1 of "default.h1" at 172.22.0.100 v1.36.3 ready=true gone=false`)

	// The control plane goes away; what happened meanwhile is told when it is back.
	s.setAway(true)
	n.wait(t, "away")
	s.remove(nodes + "h1")
	s.put(t, nodes+"h2", node("h2", "", corev1.ConditionTrue))
	s.setAway(false)
	n.wait(t, `node h1 of "default.h1" at 172.22.0.100 v1.36.3 ready=true gone=true`)
	n.wait(t, `node h2 of "" at 172.22.0.100 v1.36.3 ready=true gone=false`)

	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("got %v, want nil", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Follow does not end")
	}
	if slices.ContainsFunc(n.said, func(s string) bool { return strings.Contains(s, "csr-0") }) {
		t.Error("heard of a serving certificate")
	}
}
