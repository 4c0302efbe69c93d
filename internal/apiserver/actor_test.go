// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"metald.io/metald/internal/apiserver"
	"metald.io/metald/internal/inventory"
	"metald.io/metald/internal/inventory/audit"
)

// written is a log that may be read while it is written.
type written struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (w *written) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

func (w *written) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// Who writes through the door is in the record, with the id under which the API's log has the request; who came as somebody
// else is there under both names. What is behind an extra path is for those who may have it, and no Secret is in the log.
func TestDoorTellsWhoWrites(t *testing.T) {
	var log written
	extra := map[string]http.Handler{"/metald/extra": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "for masters") })}
	store, err := inventory.Open(t.TempDir(), inventory.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	d := start(t, store, func(c *apiserver.Config) { c.AuditLog, c.Extra = &log, extra })
	t.Cleanup(func() {
		if err := d.stop(); err != nil {
			t.Errorf("ending the server: %v", err)
		}
	})
	ops := d.client(t, "ops1", "operators", "system:masters")
	as := rest.CopyConfig(ops)
	as.Impersonate = rest.ImpersonationConfig{UserName: "ops2", Groups: []string{"system:masters"}}
	client := func(c *rest.Config) dynamic.Interface {
		found, err := dynamic.NewForConfig(c)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	ctx := t.Context()
	if _, err := client(ops).Resource(hosts).Namespace("default").Create(ctx, hostNamed(t, "default", "told"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client(as).Resource(hosts).Namespace("default").Patch(ctx, "told", types.MergePatchType, []byte(`{"spec":{"online":false}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client(ops).Resource(secrets).Namespace("default").Create(ctx, object(t,
		`{apiVersion: v1, kind: Secret, metadata: {namespace: default, name: told}, stringData: {password: canary-hunter2}}`), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := client(ops).Resource(hosts).Namespace("default").DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}

	var got []string
	requests := map[string]bool{}
	err = d.store.ReadRecord(ctx, time.Time{}, func(_ audit.Entry, r audit.Record) (bool, error) {
		for _, c := range r.Changes {
			if c.Object.Name == "told" {
				got = append(got, fmt.Sprint(r.Actor.User, " ", r.Actor.As, " ", r.Actor.Via, " ", r.Actor.Address, " ", c.Verb, " ", c.Object.Resource, " ", c.Fields))
				requests[r.Request] = true
			}
		}
		return true, nil
	})
	want := []string{"ops1  door 127.0.0.1 create baremetalhosts []", "ops1 ops2 door 127.0.0.1 update baremetalhosts [spec]",
		"ops1  door 127.0.0.1 create secrets []", "ops1  door 127.0.0.1 delete baremetalhosts []"}
	if err != nil || strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("the record: %v\ngot  %q\nwant %q", err, got, want)
	}
	for line := range strings.Lines(log.String()) {
		var e struct {
			AuditID, Level              string
			RequestObject, ResponseBody any
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Level != "Metadata" {
			t.Fatalf("line of the log: %v: %s", err, line)
		}
		delete(requests, e.AuditID)
	}
	if len(requests) > 0 {
		t.Errorf("requests of the record that the log does not have: %v", requests)
	}
	if text := log.String(); strings.Contains(text, "canary") || !strings.Contains(text, `"impersonatedUser":{"username":"ops2"`) || strings.Contains(text, "/readyz") {
		t.Errorf("the log tells a Secret, or not who asked, or of probes: %s", text)
	}

	for _, test := range []struct {
		who  *rest.Config
		want int
	}{{ops, http.StatusOK}, {d.client(t, "mallory", "nobodies"), http.StatusForbidden}, {d.stranger(), http.StatusUnauthorized}} {
		h, err := rest.HTTPClientFor(test.who)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := h.Get(test.who.Host + "/metald/extra")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != test.want || (string(body) == "for masters") != (test.want == http.StatusOK) {
			t.Errorf("the extra path answers %d, want %d: %s", resp.StatusCode, test.want, body)
		}
	}
}
