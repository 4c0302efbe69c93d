// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"metald.io/metald/internal/apiserver"
	"metald.io/metald/internal/inventory"
)

// plain is an HTTP client of a door that does not wait and try again.
func plain(t *testing.T, config *rest.Config) *http.Client {
	t.Helper()
	transport, err := rest.TransportFor(config)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Transport: transport}
}

// TestFloodIsRefused fills a client's seats with requests whose bodies never end, as a flood or a slow client does: it
// is refused, others are answered, and it is answered again once it has let go.
func TestFloodIsRefused(t *testing.T) {
	store, err := inventory.Open(t.TempDir(), inventory.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	d := start(t, store, func(c *apiserver.Config) {
		c.Limits = apiserver.Limits{RequestsPerClient: 2, WatchesPerClient: 1, Body: 1 << 20}
	})
	defer d.stop()
	flood, other := plain(t, d.client(t, "flood", "system:masters")), plain(t, d.client(t, "other", "system:masters"))
	url := "https://" + d.address + "/api/v1/namespaces/default/configmaps"
	get := func(client *http.Client, url string) *http.Response {
		t.Helper()
		response, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		return response
	}
	status := func(client *http.Client, url string) int {
		t.Helper()
		response := get(client, url)
		response.Body.Close()
		return response.StatusCode
	}

	var bodies []*io.PipeWriter
	for range 2 {
		body, end := io.Pipe()
		bodies = append(bodies, end)
		go func() {
			response, err := flood.Post(url, "application/json", body)
			if err == nil {
				response.Body.Close()
			}
		}()
		if _, err := end.Write([]byte("{")); err != nil { // it is on its way once the server takes the first byte
			t.Fatal(err)
		}
	}
	eventually(t, "the flood is refused", func() bool { return status(flood, url) == http.StatusTooManyRequests })
	refused := get(flood, url)
	text, err := io.ReadAll(refused.Body)
	refused.Body.Close()
	if err != nil || refused.Header.Get("Retry-After") != "1" || !strings.Contains(string(text), `"reason":"TooManyRequests"`) {
		t.Errorf("the refusal: got %v, %q, %s; want a Status and when to try again", err, refused.Header.Get("Retry-After"), text)
	}
	if got := status(other, url); got != http.StatusOK {
		t.Errorf("another client: got %d, want 200", got)
	}
	if got := status(flood, "https://"+d.address+"/readyz"); got != http.StatusOK {
		t.Errorf("whether it is ready: got %d, want 200", got)
	}
	watch := get(flood, url+"?watch=true")
	if watch.StatusCode != http.StatusOK {
		t.Errorf("a watch, which has a seat of its own: got %d, want 200", watch.StatusCode)
	}
	if got := status(flood, url+"?watch=1"); got != http.StatusTooManyRequests {
		t.Errorf("a second watch: got %d, want 429", got)
	}
	if got := status(other, url+"?watch=true&timeoutSeconds=1"); got != http.StatusOK {
		t.Errorf("another client's watch: got %d, want 200", got)
	}
	watch.Body.Close()
	for _, end := range bodies {
		end.CloseWithError(fmt.Errorf("given up"))
	}
	eventually(t, "the client is answered again", func() bool { return status(flood, url) == http.StatusOK })
	eventually(t, "it may watch again", func() bool { return status(flood, url+"?watch=true&timeoutSeconds=1") == http.StatusOK })
}

// TestLargeBodyIsRefused sends more than a request may hold, to compiled-in and to custom kinds.
func TestLargeBodyIsRefused(t *testing.T) {
	d, namespace := sharedDoor(t)
	client := plain(t, d.client(t, "admin", "system:masters"))
	for _, path := range []string{"/api/v1/namespaces/" + namespace + "/configmaps", "/apis/metal3.io/v1alpha1/namespaces/" + namespace + "/baremetalhosts"} {
		body := append([]byte(`{"metadata":{"name":"`), bytes.Repeat([]byte("x"), 4<<20)...)
		response, err := client.Post("https://"+d.address+path, "application/json", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("%s: got %d, want 413", path, response.StatusCode)
		}
	}
}

// TestMetal3RulesAtTheDoor asks for what Metal3's webhooks refuse, in the ways that a client can write.
func TestMetal3RulesAtTheDoor(t *testing.T) {
	d, namespace := sharedDoor(t)
	f := family{t, namespace, d.admin(t)}
	bad := hostNamed(t, namespace, "bad")
	delete(bad.Object["spec"].(map[string]any), "bootMACAddress")
	_, err := f.of(hosts).Create(t.Context(), bad, metav1.CreateOptions{})
	if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "spec.bootMACAddress: Required value") {
		t.Errorf("creating a host without a MAC: got %v, want it invalid", err)
	}
	_, err = f.of(hosts).Apply(t.Context(), "bad", bad, metav1.ApplyOptions{FieldManager: "test"})
	if !apierrors.IsInvalid(err) {
		t.Errorf("applying it: got %v, want it invalid", err)
	}
	good := hostNamed(t, namespace, "good")
	good.SetFinalizers([]string{"example.org/hold"})
	if _, err := f.of(hosts).Create(t.Context(), good, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	state := []byte(`{"status":{"provisioning":{"state":"available","ID":"","image":{"url":""}},"errorCount":0,"errorMessage":"","operationalStatus":"OK","poweredOn":true}}`)
	if _, err := f.of(hosts).Patch(t.Context(), "good", "application/merge-patch+json", state, metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	_, err = f.of(hosts).Patch(t.Context(), "good", "application/merge-patch+json", []byte(`{"spec":{"bmc":{"address":"redfish://192.0.2.9"}}}`), metav1.PatchOptions{})
	if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "spec.bmc.address: Forbidden") {
		t.Errorf("giving it another BMC: got %v, want it invalid", err)
	}
	if err := f.of(hosts).Delete(t.Context(), "good", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	f.finalizers(hosts, "good")
	f.gone(hosts, "good")
}
