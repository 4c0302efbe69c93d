// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// moody is an API whose one host a test turns, and which can be away. Watches end at once, as with a daemon that restarts.
type moody struct {
	mu   sync.Mutex
	host *metal3.BareMetalHost
	away bool
}

func (m *moody) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

func (m *moody) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away || r.URL.Query().Has("watch") {
		http.Error(w, "away", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	switch {
	case strings.HasSuffix(r.URL.Path, "/nodepools"):
		io.WriteString(w, `{"apiVersion":"metald.io/v1alpha1","kind":"NodePoolList","items":[]}`)
		return
	case !strings.HasSuffix(r.URL.Path, "/baremetalhosts/"+m.host.Name):
		// As the API says it, which tells an object that is not there from a door that is not there.
		w.WriteHeader(http.StatusNotFound)
		io.WriteString(w, `{"apiVersion":"v1","kind":"Status","status":"Failure","reason":"NotFound","code":404}`)
		return
	}
	json.NewEncoder(w).Encode(m.host)
}

func (m *moody) door(t *testing.T) *door {
	t.Helper()
	server := httptest.NewServer(m)
	t.Cleanup(server.Close)
	c := clientcmdapi.NewConfig()
	c.Clusters["m"] = &clientcmdapi.Cluster{Server: server.URL}
	c.Contexts["m"] = &clientcmdapi.Context{Cluster: "m"}
	c.CurrentContext = "m"
	path := t.TempDir() + "/kubeconfig"
	if err := clientcmd.WriteToFile(*c, path); err != nil {
		t.Fatal(err)
	}
	d, err := (&access{kubeconfig: path}).open()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// Waiting outlives a daemon that is away, and ends when the host is Ready.
func TestAwaitOutlivesTheDaemon(t *testing.T) {
	m := &moody{host: bmh("r1n01", metal3.StateProvisioning, nil)}
	m.host.TypeMeta = metav1.TypeMeta{APIVersion: metal3.GroupVersion.String(), Kind: "BareMetalHost"}
	d := m.door(t)
	ended := make(chan error, 1)
	var out, errOut bytes.Buffer
	o := statusOptions{hosts: []string{"r1n01"}, wait: time.Minute, output: output{noHeaders: true}}
	go func() { ended <- o.await(t.Context(), d, &out, &errOut) }()

	time.Sleep(300 * time.Millisecond) // the first look must succeed; what follows may fail
	m.set(func() { m.away = true })
	time.Sleep(1500 * time.Millisecond)
	select {
	case err := <-ended:
		t.Fatalf("it ended while the daemon was away: %v", err)
	default:
	}
	m.set(func() {
		m.away = false
		m.host.Status.Conditions = []metav1.Condition{condition(metal3.ReadyCondition, metav1.ConditionTrue, "Provisioned", "", 0)}
	})
	select {
	case err := <-ended:
		if err != nil {
			t.Fatalf("got %v (%s), want success", err, errOut.String())
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the host is Ready, but the wait did not end in 20 s")
	}
	if !strings.HasPrefix(out.String(), "r1n01 ") {
		t.Errorf("it printed %q, want the host", out.String())
	}
}

// A daemon that is away from the first moment is an error at once, not after the wait.
func TestAwaitNeedsAFirstLook(t *testing.T) {
	m := &moody{host: bmh("r1n01", metal3.StateProvisioning, nil), away: true}
	o := statusOptions{hosts: []string{"r1n01"}, wait: time.Minute}
	err := o.await(t.Context(), m.door(t), &bytes.Buffer{}, &bytes.Buffer{})
	if err == nil || errors.Is(err, errTold) {
		t.Errorf("got %v, want the daemon's error", err)
	}
}
