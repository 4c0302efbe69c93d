// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// reader asks in its own words.
type reader struct {
	t      *testing.T
	client *http.Client
	door   string
}

func newReader(t *testing.T, d *door) *reader {
	t.Helper()
	config := d.client(t, "admin", "system:masters")
	config.DisableCompression = true // the tests say themselves what they accept
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	return &reader{t: t, client: client, door: config.Host}
}

func (r *reader) get(path string, header ...string) (int, http.Header, string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, r.door+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Accept", "application/json, */*")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := r.client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(body)
}

var keptLine = regexp.MustCompile(`metald_api_kept_json_objects_total\{verb="(\w+)"\} (\d+)`)

// kept is how many objects went out as the JSON that is kept in memory, by verb.
func (r *reader) kept() map[string]int {
	r.t.Helper()
	_, _, text := r.get("/metrics", "Accept", "text/plain")
	counts := map[string]int{}
	for _, m := range keptLine.FindAllStringSubmatch(text, -1) {
		counts[m[1]], _ = strconv.Atoi(m[2])
	}
	return counts
}

const gadgetsYAML = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.shelf.example}
spec:
  group: shelf.example
  names: {kind: Gadget, plural: gadgets, singular: gadget, listKind: GadgetList}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    selectableFields: [{jsonPath: .spec.colour}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties:
              colour: {type: string, default: grey}
              size: {type: number}
              free: {type: object, x-kubernetes-preserve-unknown-fields: true}
          status: {type: object, properties: {seen: {type: string}}}
  - name: v1beta1
    served: true
    storage: false
    schema:
      openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}
`

var gadgets = schema.GroupVersionResource{Group: "shelf.example", Version: "v1", Resource: "gadgets"}

// TestKeptJSON asks for the same once so that it comes as the JSON that is kept in memory, and once so that the API library
// decodes and encodes it: each answer must be the same to the byte.
func TestKeptJSON(t *testing.T) {
	d, namespace := sharedDoor(t)
	client, r := d.admin(t), newReader(t, d)
	if _, err := client.Resource(definitions).Create(t.Context(), object(t, gadgetsYAML), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = client.Resource(definitions).Delete(t.Context(), "gadgets.shelf.example", metav1.DeleteOptions{})
	})
	some := client.Resource(gadgets).Namespace(namespace)
	base := "/apis/shelf.example/v1/namespaces/" + namespace + "/gadgets"
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if code, _, _ := r.get(base); code == http.StatusOK {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("gadgets are not served: %d", code)
		}
	}
	r.same(base) // nothing yet: items is an empty list
	for i, spec := range []string{
		`{size: 1.5, free: {a: [1, 2.25, null, "x"], "<&>": "\u2028 ü 你"}}`,
		`{colour: red, free: {resourceVersion: "7", metadata: {resourceVersion: "8"}, items: []}}`,
		`{size: 100000000000000000, colour: "\"items\":[]"}`,
	} {
		o := object(t, fmt.Sprintf(`{apiVersion: shelf.example/v1, kind: Gadget, metadata: {name: g%d, labels: {n: "%d"},
			annotations: {resourceVersion: "9", "text": "\"resourceVersion\":\"x\""}}, spec: %s}`, i, i%2, spec))
		if _, err := some.Create(t.Context(), o, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	all, err := some.List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	before, asked := r.kept(), 0
	for _, path := range []string{
		base + "/g0", base + "/g1", base + "/g2", base + "/g1?resourceVersion=0", base + "/nobody",
		strings.Replace(base, "/v1/", "/v1beta1/", 1) + "/g0",
		base, "/apis/shelf.example/v1/gadgets", "/apis/shelf.example/v1beta1/gadgets",
		base + "?labelSelector=n%3D0", base + "?fieldSelector=metadata.name%3Dg1", base + "?fieldSelector=spec.colour%3Dgrey",
		base + "?limit=2", base + "?resourceVersion=0", base + "?resourceVersion=0&limit=1",
		base + "?resourceVersionMatch=Exact&resourceVersion=" + all.GetResourceVersion(),
		base + "?resourceVersion=x", base + "?limit=x", base + "?fieldSelector=spec.size%3D1",
	} {
		r.same(path)
		asked++
	}
	if after := r.kept(); after["get"]-before["get"] != 5 || after["list"]-before["list"] < 12 {
		t.Errorf("kept JSON was served %v times, after %v and %d requests: 5 objects and the lists were asked for", after, before, asked)
	}

	// A second page, which is at the version of the first.
	_, _, page := r.get(base + "?limit=2")
	var first metav1.PartialObjectMetadataList
	if err := json.Unmarshal([]byte(page), &first); err != nil || len(first.Items) != 2 || first.Continue == "" || *first.RemainingItemCount != 1 {
		t.Fatalf("the first page is %s (%v)", page, err)
	}
	r.same(base + "?limit=2&continue=" + url.QueryEscape(first.Continue))
}

// same gets path both ways.
func (r *reader) same(path string) {
	r.t.Helper()
	joint := "?"
	if strings.Contains(path, "?") {
		joint = "&"
	}
	wantCode, wantHeader, want := r.get(path + joint + "pretty=false")
	code, header, got := r.get(path)
	if code != wantCode || got != want {
		r.t.Errorf("GET %s: %d\n%s\nwant %d\n%s", path, code, got, wantCode, want)
	}
	for _, h := range []http.Header{header, wantHeader} {
		maps.DeleteFunc(h, func(name string, _ []string) bool { return name == "Audit-Id" || name == "Date" })
	}
	if diff := cmp.Diff(wantHeader, header); diff != "" {
		r.t.Errorf("GET %s: headers (-want +got):\n%s", path, diff)
	}
}

// TestKeptJSONIsNew reads after each write, by the door and behind it, what was written.
func TestKeptJSONIsNew(t *testing.T) {
	d, namespace := sharedDoor(t)
	client, r := d.admin(t), newReader(t, d)
	some := client.Resource(hosts).Namespace(namespace)
	if _, err := some.Create(t.Context(), hostNamed(t, namespace, "a"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for n := range 50 {
		patched, err := some.Patch(t.Context(), "a", types.MergePatchType, []byte(fmt.Sprintf(`{"metadata":{"labels":{"n":"%d"}}}`, n)), metav1.PatchOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"/a", "", "?fieldSelector=metadata.name%3Da"} {
			_, _, body := r.get("/apis/metal3.io/v1alpha1/namespaces/" + namespace + "/baremetalhosts" + path)
			if want := `"resourceVersion":"` + patched.GetResourceVersion() + `"`; !strings.Contains(body, want) {
				t.Fatalf("after write %d GET %q does not give %s: %s", n, path, want, body)
			}
		}
	}
	if err := some.Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if code, _, body := r.get("/apis/metal3.io/v1alpha1/namespaces/" + namespace + "/baremetalhosts/a"); code != http.StatusNotFound {
		t.Errorf("after its deletion the host is still read: %d %s", code, body)
	}
}

// TestKeptJSONCompressed gets a list that is worth compressing.
func TestKeptJSONCompressed(t *testing.T) {
	d, namespace := sharedDoor(t)
	client, r := d.admin(t), newReader(t, d)
	for n := range 8 {
		o := hostNamed(t, namespace, fmt.Sprint("h", n))
		o.SetAnnotations(map[string]string{"long": strings.Repeat("0123456789", 2000)})
		if _, err := client.Resource(hosts).Namespace(namespace).Create(t.Context(), o, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	path := "/apis/metal3.io/v1alpha1/namespaces/" + namespace + "/baremetalhosts"
	_, _, want := r.get(path)
	for accept, zipped := range map[string]bool{"gzip": true, "deflate, gzip;q=1.0": true, "identity": false} {
		_, header, got := r.get(path, "Accept-Encoding", accept)
		if zipped {
			z, err := gzip.NewReader(strings.NewReader(got))
			if err != nil {
				t.Fatalf("accepting %q: %v, %v", accept, err, header)
			}
			plain, err := io.ReadAll(z)
			if err != nil {
				t.Fatal(err)
			}
			got = string(plain)
		}
		if got != want || (header.Get("Content-Encoding") == "gzip") != zipped {
			t.Errorf("accepting %q: got %d bytes as %q, want %d", accept, len(got), header.Get("Content-Encoding"), len(want))
		}
	}
}

// TestKeptJSONWatched follows what three readers at once see of a life, as objects, as metadata and as a table.
func TestKeptJSONWatched(t *testing.T) {
	d, namespace := sharedDoor(t)
	client, r := d.admin(t), newReader(t, d)
	some := client.Resource(hosts).Namespace(namespace)
	list, err := some.List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	path := "/apis/metal3.io/v1alpha1/namespaces/" + namespace + "/baremetalhosts"
	before := r.kept()
	ways := []string{"application/json", "application/json", "application/json", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
		"application/json;as=Table;g=meta.k8s.io;v=v1"}
	var streams []*json.Decoder
	for _, accept := range ways {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.door+path+"?watch=1&allowWatchBookmarks=true&resourceVersion="+list.GetResourceVersion(), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", accept)
		resp, err := r.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		streams = append(streams, json.NewDecoder(resp.Body))
	}
	made, err := some.Create(t.Context(), hostNamed(t, namespace, "a"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, _, body := r.get(path + "/a")
	patched, err := some.Patch(t.Context(), "a", types.MergePatchType, []byte(`{"metadata":{"labels":{"n":"1"}}}`), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := some.Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for i, stream := range streams {
		var got []string
		for len(got) < 3 {
			var e struct {
				Type   string
				Object json.RawMessage
			}
			if err := stream.Decode(&e); err != nil {
				t.Fatal(err)
			}
			if e.Type == "BOOKMARK" {
				continue
			}
			got = append(got, e.Type)
			o := &unstructured.Unstructured{}
			if err := o.UnmarshalJSON(e.Object); err != nil {
				t.Fatal(err)
			}
			switch {
			case e.Type == "ADDED" && i < 3 && !bytes.Equal(bytes.TrimSpace([]byte(body)), e.Object):
				t.Errorf("reader %d: the event has\n%s\na GET has\n%s", i, e.Object, body)
			case i < 4 && e.Type == "ADDED" && o.GetResourceVersion() != made.GetResourceVersion(),
				i < 4 && e.Type == "MODIFIED" && o.GetResourceVersion() != patched.GetResourceVersion(),
				i < 4 && e.Type == "DELETED" && (o.GetResourceVersion() == patched.GetResourceVersion() || o.GetName() != "a"),
				i == 3 && o.GetKind() != "PartialObjectMetadata", i == 4 && o.GetKind() != "Table":
				t.Errorf("reader %d: %s of %s", i, e.Type, e.Object)
			}
		}
		if diff := cmp.Diff([]string{"ADDED", "MODIFIED", "DELETED"}, got); diff != "" {
			t.Errorf("reader %d (-want +got):\n%s", i, diff)
		}
	}
	if after := r.kept(); after["watch"]-before["watch"] < 9 {
		t.Errorf("kept JSON was sent %d times to watches, want 9", after["watch"]-before["watch"])
	}
}

// TestKeptJSONAfterANewSchema reads old objects after their definition got another default.
func TestKeptJSONAfterANewSchema(t *testing.T) {
	d, namespace := sharedDoor(t)
	client, r := d.admin(t), newReader(t, d)
	definition := object(t, strings.NewReplacer("shelf.example", "newshelf.example").Replace(gadgetsYAML))
	if _, err := client.Resource(definitions).Create(t.Context(), definition, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = client.Resource(definitions).Delete(t.Context(), "gadgets.newshelf.example", metav1.DeleteOptions{})
	})
	path := "/apis/newshelf.example/v1/namespaces/" + namespace + "/gadgets"
	resource := gadgets
	resource.Group = "newshelf.example"
	until := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: not within 20 s", what)
			}
		}
	}
	until("being served", func() bool { code, _, _ := r.get(path); return code == http.StatusOK })
	until("a gadget", func() bool {
		_, err := client.Resource(resource).Namespace(namespace).Create(t.Context(), object(t, "{apiVersion: newshelf.example/v1, kind: Gadget, metadata: {name: g}, spec: {size: 1}}"), metav1.CreateOptions{})
		return err == nil
	})
	if _, _, body := r.get(path + "/g"); !strings.Contains(body, `"colour":"grey"`) {
		t.Fatalf("the default is not there: %s", body)
	}
	op := `[{"op": "add", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/weight", "value": {"type": "integer", "default": 7}}]`
	if _, err := client.Resource(definitions).Patch(t.Context(), "gadgets.newshelf.example", types.JSONPatchType, []byte(op), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	until("the new default", func() bool { _, _, body := r.get(path + "/g"); return strings.Contains(body, `"weight":7`) })
	until("the new default in a list", func() bool { _, _, body := r.get(path); return strings.Contains(body, `"weight":7`) })
	r.same(path + "/g")
	r.same(path)
}
