// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// control is as much of a Kubernetes API server as this package talks to: objects as JSON under their paths, versions,
// conflicts, merge patches, watches. The lab runs the same calls against the real one.
type control struct {
	*httptest.Server

	mu      sync.Mutex
	version int
	objects map[string]map[string]any // by path of the object
	events  []event
	wake    chan struct{}
	calls   []string // writes, as METHOD path
	away    bool
	budgets map[string]bool // by name: pods whose eviction is refused
}

type event struct {
	Type    string         `json:"type"`
	Object  map[string]any `json:"object"`
	version int
	parent  string
}

func newControl(t *testing.T) (*control, *Cluster) {
	t.Helper()
	s := &control{objects: map[string]map[string]any{}, budgets: map[string]bool{}, wake: make(chan struct{})}
	s.Server = httptest.NewTLSServer(s)
	t.Cleanup(s.Close)
	t.Cleanup(s.CloseClientConnections)
	c, err := Dial([]byte(s.kubeconfig()), "")
	if err != nil {
		t.Fatal(err)
	}
	return s, c
}

func (s *control) kubeconfig() string {
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	return fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"a","contexts":[{"name":"a","context":{"cluster":"a","user":"a"}}],
"clusters":[{"name":"a","cluster":{"server":%q,"certificate-authority-data":%q}}],"users":[{"name":"a","user":{"token":"admin"}}]}`, s.URL, base64.StdEncoding.EncodeToString(ca))
}

// put stores an object as it is, and tells watchers.
func (s *control) put(t *testing.T, at string, obj any) {
	t.Helper()
	raw, err := json.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store(at, m)
}

func (s *control) remove(at string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(at)
}

func (s *control) get(at string) map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.objects[at]
}

func (s *control) writes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

func (s *control) setBudget(pod string, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.budgets[pod] = on
}

func (s *control) setAway(away bool) {
	s.mu.Lock()
	s.away = away
	s.mu.Unlock()
	if away {
		s.CloseClientConnections()
	}
}

var kinds = map[string][2]string{
	"secrets": {"v1", "Secret"}, "nodes": {"v1", "Node"}, "certificatesigningrequests": {"certificates.k8s.io/v1", "CertificateSigningRequest"},
	"pods":                {"v1", "Pod"},
	"clusterrolebindings": {"rbac.authorization.k8s.io/v1", "ClusterRoleBinding"},
}

func meta(obj map[string]any) map[string]any {
	m, ok := obj["metadata"].(map[string]any)
	if !ok {
		m = map[string]any{}
		obj["metadata"] = m
	}
	return m
}

func (s *control) store(at string, obj map[string]any) {
	s.version++
	kind := "MODIFIED"
	if s.objects[at] == nil {
		kind = "ADDED"
		if meta(obj)["uid"] == nil {
			meta(obj)["uid"] = fmt.Sprintf("uid-%d", s.version)
		}
	}
	obj["apiVersion"], obj["kind"] = kinds[path.Base(path.Dir(at))][0], kinds[path.Base(path.Dir(at))][1]
	meta(obj)["resourceVersion"] = strconv.Itoa(s.version)
	s.objects[at] = obj
	s.say(event{kind, obj, s.version, path.Dir(at)})
}

func (s *control) drop(at string) {
	s.version++
	if obj := s.objects[at]; obj != nil {
		delete(s.objects, at)
		s.say(event{"DELETED", obj, s.version, path.Dir(at)})
	}
}

func (s *control) say(e event) {
	s.events = append(s.events, e)
	close(s.wake)
	s.wake = make(chan struct{})
}

func (s *control) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	away := s.away
	s.mu.Unlock()
	switch {
	case away:
		fail(w, http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable)
	case r.Header.Get("Authorization") != "Bearer admin":
		fail(w, http.StatusUnauthorized, metav1.StatusReasonUnauthorized)
	case r.URL.Path == "/version":
		answer(w, http.StatusOK, map[string]any{"gitVersion": "v1.36.3"})
	case r.URL.Query().Get("watch") != "":
		s.watch(w, r)
	default:
		s.call(w, r)
	}
}

func (s *control) call(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var body map[string]any
	if r.Method != http.MethodGet {
		s.calls = append(s.calls, r.Method+" "+r.URL.Path)
		body = map[string]any{}
		_ = json.NewDecoder(r.Body).Decode(&body) // a deletion may have none
	}
	if pod, ok := strings.CutSuffix(r.URL.Path, "/eviction"); ok {
		s.evict(w, path.Base(pod), body)
		return
	}
	at := strings.TrimSuffix(r.URL.Path, "/approval")
	if r.Method == http.MethodPost {
		at += "/" + fmt.Sprint(meta(body)["name"])
	}
	have := s.objects[at]
	switch {
	case r.Method == http.MethodPost && have != nil:
		fail(w, http.StatusConflict, metav1.StatusReasonAlreadyExists)
		return
	case r.Method == http.MethodPost:
		s.store(at, body)
	case have == nil && r.Method == http.MethodGet && kinds[path.Base(at)][0] != "":
		s.list(w, r)
		return
	case have == nil:
		fail(w, http.StatusNotFound, metav1.StatusReasonNotFound)
		return
	case conflicts(have, body):
		fail(w, http.StatusConflict, metav1.StatusReasonConflict)
		return
	case r.Method == http.MethodPut:
		s.store(at, body)
	case r.Method == http.MethodPatch:
		s.store(at, merge(have, body))
	case r.Method == http.MethodDelete:
		s.drop(at)
		answer(w, http.StatusOK, metav1.Status{Status: metav1.StatusSuccess})
		return
	}
	answer(w, http.StatusOK, s.objects[at])
}

// evict removes a pod at once, unless its budget forbids it or it is another of that name.
func (s *control) evict(w http.ResponseWriter, name string, body map[string]any) {
	at := "/api/v1/pods/" + name
	options, _ := body["deleteOptions"].(map[string]any)
	switch have := s.objects[at]; {
	case have == nil:
		fail(w, http.StatusNotFound, metav1.StatusReasonNotFound)
	case conflicts(have, options):
		fail(w, http.StatusConflict, metav1.StatusReasonConflict)
	case s.budgets[name]:
		w.Header().Set("Retry-After", "10")
		answer(w, http.StatusTooManyRequests, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure,
			Code: http.StatusTooManyRequests, Reason: metav1.StatusReasonTooManyRequests, Message: "Cannot evict pod as it would violate the pod's disruption budget.",
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: "DisruptionBudget", Message: "The disruption budget x needs 1 healthy pods."}}}})
	default:
		s.drop(at)
		answer(w, http.StatusCreated, metav1.Status{Status: metav1.StatusSuccess})
	}
}

// conflicts looks at the version of an update and the UID of a patch or a deletion.
func conflicts(have, body map[string]any) bool {
	m, _ := body["metadata"].(map[string]any)
	if m == nil {
		m, _ = body["preconditions"].(map[string]any)
	}
	for _, k := range []string{"resourceVersion", "uid"} {
		if v, ok := m[k]; ok && v != "" && v != meta(have)[k] {
			return true
		}
	}
	return false
}

func merge(into, patch map[string]any) map[string]any {
	out := map[string]any{}
	for k, v := range into {
		out[k] = v
	}
	for k, v := range patch {
		sub, isMap := v.(map[string]any)
		old, wasMap := out[k].(map[string]any)
		switch {
		case v == nil:
			delete(out, k)
		case isMap && wasMap:
			out[k] = merge(old, sub)
		default:
			out[k] = v
		}
	}
	return out
}

func (s *control) list(w http.ResponseWriter, r *http.Request) {
	selector, err := labels.Parse(r.URL.Query().Get("labelSelector"))
	if err != nil {
		fail(w, http.StatusBadRequest, metav1.StatusReasonBadRequest)
		return
	}
	items := []any{}
	for at, obj := range s.objects {
		set := labels.Set{}
		have, _ := meta(obj)["labels"].(map[string]any)
		for k, v := range have {
			set[k] = fmt.Sprint(v)
		}
		if path.Dir(at) == r.URL.Path && selector.Matches(set) {
			items = append(items, obj)
		}
	}
	answer(w, http.StatusOK, map[string]any{"metadata": map[string]any{"resourceVersion": strconv.Itoa(s.version)}, "items": items})
}

func (s *control) watch(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("sendInitialEvents") != "" { // an old server: the client lists first
		fail(w, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid)
		return
	}
	since, _ := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	for {
		s.mu.Lock()
		wake, events := s.wake, slices.Clone(s.events)
		s.mu.Unlock()
		for _, e := range events {
			if e.version > since && e.parent == r.URL.Path {
				_ = json.NewEncoder(w).Encode(e)
			}
			since = max(since, e.version)
		}
		_ = http.NewResponseController(w).Flush()
		select {
		case <-wake:
		case <-r.Context().Done():
			return
		}
	}
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}

func fail(w http.ResponseWriter, code int, reason metav1.StatusReason) {
	answer(w, code, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: int32(code), Reason: reason, Message: string(reason)})
}
