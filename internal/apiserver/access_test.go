// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"context"
	"crypto/x509"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"metald.io/metald/internal/apiserver"
	"metald.io/metald/internal/apiserver/crds"
)

func TestAccess(t *testing.T) {
	d, namespace := sharedDoor(t)
	other := newAuthority(t)
	forged := d.stranger()
	forged.CertData, forged.KeyData = other.issue(t, "admin", x509.ExtKeyUsageClientAuth, "system:masters")
	wrongUse := d.stranger()
	wrongUse.CertData, wrongUse.KeyData = d.authority.issue(t, "admin", x509.ExtKeyUsageServerAuth, "system:masters")
	wrongToken := d.stranger()
	wrongToken.BearerToken = "guessed"

	for name, test := range map[string]struct {
		config *rest.Config
		want   string // the reason of the refusal; "" lets in
	}{
		"no certificate":                  {d.stranger(), "Unauthorized"},
		"another authority's certificate": {forged, "Unauthorized"},
		"a server's certificate":          {wrongUse, "Unauthorized"},
		"a guessed token":                 {wrongToken, "Unauthorized"},
		"a user of no group":              {d.client(t, "alice"), "Forbidden"},
		"a user of another group":         {d.client(t, "bob", "operators"), "Forbidden"},
		"an administrator":                {d.client(t, "admin", "system:masters"), ""},
		"the process itself":              {d.server.Loopback(), ""},
	} {
		t.Run(name, func(t *testing.T) {
			client, err := dynamic.NewForConfig(test.config)
			if err != nil {
				t.Fatal(err)
			}
			_, err = client.Resource(secrets).Namespace(namespace).List(t.Context(), metav1.ListOptions{})
			if got := string(apierrors.ReasonForError(err)); got != test.want {
				t.Errorf("listing Secrets: got %q (%v), want %q", got, err, test.want)
			}
			_, err = client.Resource(hosts).Namespace(namespace).List(t.Context(), metav1.ListOptions{})
			if got := string(apierrors.ReasonForError(err)); got != test.want {
				t.Errorf("listing hosts: got %q (%v), want %q", got, err, test.want)
			}
		})
	}
}

func TestDiscovery(t *testing.T) {
	d, _ := sharedDoor(t)
	client, err := discovery.NewDiscoveryClientForConfig(d.client(t, "admin", "system:masters"))
	if err != nil {
		t.Fatal(err)
	}
	files, err := crds.All()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"/v1 configmaps", "/v1 events", "/v1 namespaces", "/v1 namespaces/finalize", "/v1 namespaces/status", "/v1 secrets", "coordination.k8s.io/v1 leases",
		"apiextensions.k8s.io/v1 customresourcedefinitions", "apiextensions.k8s.io/v1 customresourcedefinitions/status",
		"rbac.authorization.k8s.io/v1 roles", "rbac.authorization.k8s.io/v1 rolebindings",
		"rbac.authorization.k8s.io/v1 clusterroles", "rbac.authorization.k8s.io/v1 clusterrolebindings",
		"authorization.k8s.io/v1 selfsubjectaccessreviews", "authorization.k8s.io/v1 subjectaccessreviews",
		"authorization.k8s.io/v1 localsubjectaccessreviews", "authorization.k8s.io/v1 selfsubjectrulesreviews",
		"authentication.k8s.io/v1 selfsubjectreviews",
		"events.k8s.io/v1 events",
		"flowcontrol.apiserver.k8s.io/v1 flowschemas", "flowcontrol.apiserver.k8s.io/v1 flowschemas/status",
		"flowcontrol.apiserver.k8s.io/v1 prioritylevelconfigurations", "flowcontrol.apiserver.k8s.io/v1 prioritylevelconfigurations/status",
	}
	for _, file := range files {
		definition, err := file.Parse()
		if err != nil {
			t.Fatal(err)
		}
		for _, version := range definition.Spec.Versions {
			path := definition.Spec.Group + "/" + version.Name + " " + definition.Spec.Names.Plural
			want = append(want, path)
			if version.Subresources != nil && version.Subresources.Status != nil {
				want = append(want, path+"/status")
			}
		}
	}
	slices.Sort(want)

	for name, read := range map[string]func() ([]*metav1.APIResourceList, error){
		"aggregated": func() ([]*metav1.APIResourceList, error) {
			_, lists, err := client.ServerGroupsAndResources()
			return lists, err
		},
		"as older clients read it": func() ([]*metav1.APIResourceList, error) {
			_, lists, err := client.WithLegacy().(*discovery.DiscoveryClient).ServerGroupsAndResources()
			return lists, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			lists, err := read()
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, list := range lists {
				for _, resource := range list.APIResources {
					version := list.GroupVersion
					if !strings.Contains(version, "/") {
						version = "/" + version
					}
					got = append(got, version+" "+resource.Name)
				}
			}
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("resources served (-want +got):\n%s", diff)
			}
		})
	}
}

func TestVersionCanBeParsed(t *testing.T) {
	d, _ := sharedDoor(t)
	client, err := discovery.NewDiscoveryClientForConfig(d.client(t, "admin", "system:masters"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := client.ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	if got.Major != "1" || got.Minor != "37" || !strings.HasPrefix(got.GitVersion, "v1.37.") {
		t.Errorf("version: got %s.%s %q, want 1.37 and v1.37.x", got.Major, got.Minor, got.GitVersion)
	}
	for _, path := range []string{"/livez", "/readyz", "/healthz"} {
		body, err := client.RESTClient().Get().AbsPath(path).DoRaw(t.Context())
		if err != nil || string(body) != "ok" {
			t.Errorf("%s: got %q, %v; want ok", path, body, err)
		}
	}
}

// TestOpenAPI looks for the kinds of both servers in the documents that `kubectl explain` and GitOps tools read. They are
// published a moment after a definition is established.
func TestOpenAPI(t *testing.T) {
	d, _ := sharedDoor(t)
	client, err := discovery.NewDiscoveryClientForConfig(d.client(t, "admin", "system:masters"))
	if err != nil {
		t.Fatal(err)
	}
	for path, models := range map[string][]string{
		"/openapi/v3/api/v1":                       {"io.k8s.api.core.v1.Secret", "io.k8s.api.core.v1.Event"},
		"/openapi/v3/apis/coordination.k8s.io/v1":  {"io.k8s.api.coordination.v1.Lease"},
		"/openapi/v3/apis/apiextensions.k8s.io/v1": {"apiextensions.v1.CustomResourceDefinition"},
		"/openapi/v3/apis/metal3.io/v1alpha1":      {"io.metal3.v1alpha1.BareMetalHost", "io.metal3.v1alpha1.HostClaim"},
		"/openapi/v3/apis/metald.io/v1alpha1":      {"io.metald.v1alpha1.HostProgress", "io.metald.v1alpha1.NodePool"},
		"/openapi/v2":                              {"io.k8s.api.core.v1.Secret", "io.metal3.v1alpha1.BareMetalHost", "io.metald.v1alpha1.Sighting"},
	} {
		for _, model := range models {
			eventually(t, path+" has "+model, func() bool {
				body, err := client.RESTClient().Get().AbsPath(path).DoRaw(t.Context())
				return err == nil && strings.Contains(string(body), model+`":`)
			})
		}
	}
}

// TestEndsUnderAWatch ends the server while a client watches: a daemon's restart must not wait for its clients.
func TestEndsUnderAWatch(t *testing.T) {
	d := open(t)
	for range 2 {
		watch, err := d.admin(t).Resource(hosts).Watch(context.Background(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer watch.Stop()
	}
	start := time.Now()
	if err := d.stop(); err != nil {
		t.Errorf("ending: got %v, want no error", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("ending took %s, want less than 5 s", took)
	}
}

func TestNewRefuses(t *testing.T) {
	a := newAuthority(t)
	certificate, key := a.issue(t, "metald", x509.ExtKeyUsageServerAuth)
	_, otherKey := a.issue(t, "metald", x509.ExtKeyUsageServerAuth)
	for name, test := range map[string]struct {
		change func(*apiserver.Config)
		want   string
	}{
		"no listener":        {func(c *apiserver.Config) { c.Listener = nil }, "no listener was given"},
		"no certificate":     {func(c *apiserver.Config) { c.Certificate = nil }, "serving certificate"},
		"another's key":      {func(c *apiserver.Config) { c.Key = otherKey }, "serving certificate"},
		"no authority":       {func(c *apiserver.Config) { c.ClientCA = nil }, "client authorities"},
		"a broken authority": {func(c *apiserver.Config) { c.ClientCA = []byte("none") }, "client authorities"},
	} {
		t.Run(name, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			config := apiserver.Config{Listener: listener, Certificate: certificate, Key: key, ClientCA: a.pem()}
			test.change(&config)
			if _, err := apiserver.New(config); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error about the %s", err, test.want)
			}
		})
	}
}
