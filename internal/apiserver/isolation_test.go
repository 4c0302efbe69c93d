// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
)

// TestTenantsAreApart holds the door to its promise: nobody in one tenant's namespace ever reads or names anything of another
// tenant's. Every resource that discovery shows is seeded in namespace b, and beside the namespaces, with words that stand
// nowhere else; whoever may do all there is in namespace a then tries every way to them that HTTP has. No answer, in its
// body or its headers, may hold such a word unless the question held it, and nothing of b may change.
func TestTenantsAreApart(t *testing.T) {
	d := open(t)
	admin := d.person(t, "admin", "system:masters")
	all := everything(t, admin.Discovery())
	documents := map[schema.GroupVersion]schemas{}
	for _, s := range all {
		if documents[s.GroupVersion()] == nil {
			documents[s.GroupVersion()] = schemasOf(t, admin.Discovery(), s.GroupVersion())
		}
	}
	makeNamespace(t, d, "a")
	makeNamespace(t, d, "b")
	bind(t, admin, "a", "metald:tenant", "tenant-a")
	bind(t, admin, "a", "cluster-admin", "owner-a")
	bind(t, admin, "b", "metald:tenant", "tenant-b")
	keys := seed(t, d, all, documents, "b")
	before := readKeys(t, d, keys)
	e := &examiner{documents: documents, address: "https://" + d.address}

	// What would be found if it were told: the search below can fail.
	asAdmin, asTenantB := e.as(t, d.client(t, "admin", "system:masters")), e.as(t, d.client(t, "tenant-b"))
	for _, s := range all {
		if !s.stored() || s.Kind == "CustomResourceDefinition" {
			continue
		}
		if got := asAdmin.ask(call{path: s.path("b") + "/" + nameCanary(s)}); len(got.leaks()) < 2 {
			t.Fatalf("an administrator's reading of the %s that was seeded: got %d %.500s, want its words", s.Kind, got.status, got.body)
		}
	}
	if got := asTenantB.ask(call{path: "/api/v1/namespaces/b/secrets"}); len(got.leaks()) == 0 {
		t.Fatalf("tenant b's own Secrets: got %d %s, want its words", got.status, got.body)
	}

	for _, who := range []struct {
		name   string
		groups []string
		shared string // a kind of no tenant's that they see
	}{{name: "tenant-a"}, {name: "owner-a"}, {name: "tenant-a", groups: []string{"metald:tenants"}, shared: "images"}} {
		t.Run(strings.Join(append([]string{who.name}, who.groups...), " "), func(t *testing.T) {
			me := e.as(t, d.client(t, who.name, who.groups...))
			me.shared = who.shared
			if got := me.ask(call{path: "/api/v1/namespaces/a/secrets"}); got.status != http.StatusOK {
				t.Fatalf("one's own Secrets: got %d, want 200", got.status)
			}
			var calls []call
			for _, s := range all {
				if who.shared != "" && s.namespaced {
					continue // as for the same tenant without the group
				}
				asked := e.calls(t, s)
				if s.plural == who.shared {
					if got := me.ask(call{path: s.path("")}); got.status != http.StatusOK || len(got.leaks()) == 0 {
						t.Errorf("%s, which are for all tenants: got %d %.500s, want their words", s.plural, got.status, got.body)
					}
					for i := range asked {
						if asked[i].method == "" { // reading, which may succeed
							asked[i].refused, asked[i].twin = false, ""
						}
					}
				}
				calls = append(calls, asked...)
			}
			calls = append(calls, e.paths(t, asAdmin)...)
			t.Logf("%d ways to %d resources", len(calls), len(all))
			me.askAll(t, calls)
		})
	}
	after := readKeys(t, d, keys)
	for _, key := range keys {
		if before[key] != after[key] {
			t.Errorf("%s has changed:\n%s\n%s", key, before[key], after[key])
		}
	}
	// A priority level is named by its own metrics: it is nobody's but the administrators', who alone may read them.
	levels := []string{"canarynprioritylevelconfigurations"}
	got := asAdmin.ask(call{path: "/metrics"})
	if leaks := slices.DeleteFunc(got.leaks(), func(word string) bool { return slices.Contains(levels, word) }); got.status != http.StatusOK || len(leaks) > 0 {
		t.Errorf("metrics: got %d with %v, want 200 with nothing of anybody's", got.status, leaks)
	}
}

// call is one question.
type call struct {
	method string // "" is GET
	path   string // with its query
	body   string
	kind   string // of the body
	accept string
	header [2]string
	// refused says that an answer other than a refusal is wrong, whatever it holds.
	refused bool
	// twin is the same question about a name that nobody has: the two answers must differ in the name alone.
	twin string
}

func (c call) text() string { return c.path + c.body + c.header[1] }

// answer is what came back.
type answer struct {
	call   call
	status int
	header http.Header
	body   string
}

var canaries = regexp.MustCompile(`canary[ncu][a-z]+`)

// leaks are the words that the answer holds and the question did not.
func (a answer) leaks() []string {
	text := a.body
	for key, values := range a.header {
		text += "\n" + key + ": " + strings.Join(values, ", ")
	}
	found := map[string]bool{}
	// What base64 makes of the words' common beginning, at each of its three places.
	for _, pad := range []string{"", "x", "xy"} {
		if strings.Contains(text, base64.RawStdEncoding.EncodeToString([]byte(pad + "canaryc"))[3:9]) {
			found["one in base64"] = true
		}
	}
	for _, word := range canaries.FindAllString(text, -1) {
		if !strings.Contains(a.call.text(), word) {
			found[word] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// examiner knows what to ask.
type examiner struct {
	documents map[schema.GroupVersion]schemas
	address   string
}

// asker asks as somebody.
type asker struct {
	t       *testing.T
	client  *http.Client
	address string
	shared  string // the plural of a kind whose words are no leak
}

func (e *examiner) as(t *testing.T, config *rest.Config) asker {
	t.Helper()
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return asker{t: t, client: client, address: e.address}
}

// ask asks, and asks again where the door only said that it is asked too much.
func (a asker) ask(c call) answer {
	for range 100 {
		request, err := http.NewRequestWithContext(a.t.Context(), c.method, a.address, strings.NewReader(c.body))
		if err != nil {
			a.t.Error(err)
			return answer{call: c}
		}
		path, query, _ := strings.Cut(c.path, "?")
		request.URL.Opaque, request.URL.RawQuery = "//"+request.URL.Host+path, query // as it is written, dots and all
		for key, value := range map[string]string{"Content-Type": c.kind, "Accept": c.accept, c.header[0]: c.header[1]} {
			if key != "" && value != "" {
				request.Header.Set(key, value)
			}
		}
		response, err := a.client.Do(request)
		if err != nil {
			a.t.Errorf("%s %s: %v", c.method, c.path, err)
			return answer{call: c}
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode == http.StatusTooManyRequests {
			time.Sleep(50 * time.Millisecond)
			continue
		}
		return answer{c, response.StatusCode, response.Header, string(body)}
	}
	a.t.Errorf("%s %s: got 429 a hundred times", c.method, c.path)
	return answer{call: c}
}

// askAll asks everything, some at a time, and looks at each answer.
func (a asker) askAll(t *testing.T, calls []call) {
	t.Helper()
	var group sync.WaitGroup
	room := make(chan struct{}, 8)
	for _, c := range calls {
		room <- struct{}{}
		group.Go(func() {
			defer func() { <-room }()
			got := a.ask(c)
			what := strings.TrimSpace(c.method + " " + c.path + " " + c.kind + " " + c.accept + " " + c.header[0])
			leaks := slices.DeleteFunc(got.leaks(), func(word string) bool {
				return a.shared != "" && canaries.MatchString(word) && strings.TrimLeft(word[len("canary"):], "ncu") == a.shared
			})
			if len(leaks) > 0 {
				t.Errorf("%s: the answer %d tells %v:\n%.500s", what, got.status, leaks, got.body)
			}
			if c.refused && got.status < 400 {
				t.Errorf("%s: got %d, want a refusal:\n%.500s", what, got.status, got.body)
			}
			if c.twin == "" {
				return
			}
			name := canaries.FindString(c.path + c.body)
			twin := c
			twin.path, twin.body = strings.ReplaceAll(c.path, name, c.twin), strings.ReplaceAll(c.body, name, c.twin)
			other := a.ask(twin)
			if got.status != other.status || strings.ReplaceAll(got.body, name, c.twin) != other.body {
				t.Errorf("%s tells whether the name is taken:\n%d %.300s\n%d %.300s", what, got.status, got.body, other.status, other.body)
			}
		})
	}
	group.Wait()
}

var accepted = []string{
	"application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "application/cbor",
	"application/json;as=Table;v=v1;g=meta.k8s.io", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
	"application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
}

// calls are all ways to one resource.
func (e *examiner) calls(t *testing.T, s served) (calls []call) {
	name, free := nameCanary(s), "nobodyn"+s.plural // as long
	made := e.documents[s.GroupVersion()].object(t, s.GroupVersionKind, name)
	body := func(namespace, name string) string {
		meta := map[string]any{"name": name}
		if s.namespaced {
			meta["namespace"] = namespace
		}
		made["metadata"] = meta
		text, err := json.Marshal(made)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if !s.stored() { // asked only: about b, in b and at large
		for _, where := range []string{"b", "a"} {
			calls = append(calls, call{method: "POST", path: s.path(where), kind: "application/json", body: body("b", name)},
				call{method: "POST", path: s.path(where), kind: "application/json", body: e.question(s, "b", name)})
		}
		return calls
	}
	for _, path := range []string{s.path("b"), s.path("")} {
		calls = append(calls, reads(path, name, free)...)
		one := path + "/" + name
		for _, dry := range []string{"", "?dryRun=All"} {
			calls = append(calls,
				call{method: "POST", path: path + dry, kind: "application/json", body: body("b", free), refused: true},
				call{method: "POST", path: path + dry, kind: "application/json", body: body("b", name), refused: true, twin: free},
				call{method: "POST", path: path + dry, kind: "application/json", body: `{"metadata":{"generateName":"x"}}`, refused: true},
				call{method: "PUT", path: one + dry, kind: "application/json", body: body("b", name), refused: true, twin: free},
				call{method: "DELETE", path: one + dry, refused: true, twin: free},
				call{method: "DELETE", path: path + dry, refused: true})
			for _, sub := range append([]string{""}, s.subs...) {
				at := strings.TrimSuffix(one+"/"+sub, "/")
				calls = append(calls, patches(at, dry)...)
			}
		}
		for _, sub := range append([]string{"status", "scale", "finalize", "log", "proxy", "exec"}, s.subs...) {
			calls = append(calls, call{path: one + "/" + sub, refused: true, twin: free},
				call{method: "PUT", path: one + "/" + sub, kind: "application/json", body: body("b", name), refused: true, twin: free})
		}
	}
	if !s.namespaced {
		return calls
	}
	// In one's own namespace: with b's names, labels and places, and with bodies full of b's names.
	own := s.path("a")
	for _, query := range []string{"", "?labelSelector=canary", "?labelSelector=canary!=x", "?fieldSelector=metadata.namespace=b", "?fieldSelector=metadata.namespace!=a",
		"?fieldSelector=metadata.name!=x", "?namespace=b", "?limit=1&continue=" + token("../b/"), "?limit=1&continue=" + token("/../b/x\x00"), "?limit=5&continue=" + token("b/"),
		"?resourceVersion=0", "?resourceVersion=1&resourceVersionMatch=Exact", "?watch=true&timeoutSeconds=1", "?watch=true&timeoutSeconds=1&resourceVersion=1"} {
		for _, accept := range []string{"", accepted[4], accepted[6]} {
			calls = append(calls, call{path: own + query, accept: accept})
		}
	}
	for _, dry := range []string{"", "?dryRun=All"} {
		calls = append(calls,
			call{path: own + "/" + name, twin: free},
			call{method: "DELETE", path: own + "/" + name + dry, twin: free},
			call{method: "POST", path: own + dry, kind: "application/json", body: body("b", name), refused: true},
			call{method: "PUT", path: own + "/" + name + dry, kind: "application/json", body: body("b", name), refused: true})
	}
	// Not stored: what one has stored oneself, one is told again.
	return append(calls, call{method: "POST", path: own + "?dryRun=All", kind: "application/json", body: body("a", name)},
		call{method: "PATCH", path: own + "/" + name + "?dryRun=All&fieldManager=x", kind: "application/apply-patch+yaml", body: body("a", name)})
}

// reads are all ways to read a resource that one must not read.
func reads(path, name, free string) (calls []call) {
	for _, accept := range accepted {
		calls = append(calls, call{path: path, accept: accept, refused: true},
			call{path: path + "?watch=true&timeoutSeconds=1", accept: accept, refused: true},
			call{path: path + "/" + name, accept: accept, refused: true, twin: free})
	}
	for _, query := range []string{"?labelSelector=canary", "?fieldSelector=metadata.name=" + name, "?fieldSelector=metadata.namespace=a", "?limit=1",
		"?resourceVersion=0", "?watch=1&resourceVersion=1&timeoutSeconds=1", "?namespace=a", "?pretty=true",
		"?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1"} {
		calls = append(calls, call{path: path + query, refused: true})
	}
	legacy := strings.Replace(path, "/v1", "/v1/watch", 1)
	for _, odd := range []string{legacy, legacy + "/" + name, path + "/", path + "//" + name, path + "/" + name + "/",
		strings.Replace(path, "/namespaces/b/", "/namespaces/a/../b/", 1), strings.Replace(path, "/namespaces/b/", "/namespaces/a/%2e%2e/b/", 1),
		strings.Replace(path, "/namespaces/b/", "/namespaces/a%2f..%2fb/", 1), strings.Replace(path, "/namespaces/b/", "/namespaces//b/", 1)} {
		calls = append(calls, call{path: odd})
	}
	for _, header := range [][2]string{{"Impersonate-User", "tenant-b"}, {"Impersonate-User", "admin"}, {"X-Remote-User", "tenant-b"},
		{"X-Remote-Group", "system:masters"}, {"Authorization", "Bearer tenant-b"}} {
		calls = append(calls, call{path: path, header: header, refused: true})
	}
	return calls
}

// patches are all ways to patch an object that one must not touch.
func patches(one, dry string) (calls []call) {
	for kind, body := range map[string]string{
		"application/merge-patch+json":           `{"metadata":{"labels":{"x":"y"}}}`,
		"application/json-patch+json":            `[{"op":"test","path":"/metadata/name","value":"x"}]`,
		"application/strategic-merge-patch+json": `{"metadata":{"labels":{"x":"y"}}}`,
		"application/apply-patch+yaml":           `{"metadata":{"labels":{"x":"y"}}}`,
	} {
		query := "?fieldManager=x&force=true"
		if dry != "" {
			query += "&dryRun=All"
		}
		calls = append(calls, call{method: "PATCH", path: one + query, kind: kind, body: body, refused: true})
	}
	return calls
}

// question is a well-formed review about another namespace, where the kind is one.
func (e *examiner) question(s served, namespace, name string) string {
	return fmt.Sprintf(`{"apiVersion":%q,"kind":%q,"metadata":{"namespace":"a"},"spec":{"namespace":%q,"user":"tenant-b","groups":["system:masters"],
		"resourceAttributes":{"namespace":%q,"verb":"get","resource":"secrets","name":%q}}}`, s.GroupVersion(), s.Kind, namespace, namespace, name)
}

// paths are the ways that are no resource.
func (e *examiner) paths(t *testing.T, admin asker) (calls []call) {
	t.Helper()
	var index struct{ Paths []string }
	if got := admin.ask(call{path: "/"}); json.NewDecoder(bytes.NewBufferString(got.body)).Decode(&index) != nil || len(index.Paths) < 10 {
		t.Fatalf("the list of paths: got %d %s", got.status, got.body)
	}
	for _, path := range append(index.Paths, "/", "/metrics/resources", "/logs", "/configz", "/debug/pprof/heap", "/readyz?verbose", "/livez?verbose") {
		calls = append(calls, call{path: path}, call{path: path, accept: "application/json"})
	}
	return calls
}

// token is the continuation of a list, forged to go on at another key.
func token(start string) string {
	text, _ := json.Marshal(map[string]any{"v": "meta.k8s.io/v1", "rv": 1, "start": start})
	return base64.RawURLEncoding.EncodeToString(text)
}
