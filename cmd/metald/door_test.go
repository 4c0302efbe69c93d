// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"metald.io/metald/internal/daemon"
)

// The ways to the API, in order: what was named, the data directory's kubeconfig, its socket.
func TestAccess(t *testing.T) {
	named := t.TempDir()
	kubeconfig(t, named, "https://named.example.com")
	both := t.TempDir()
	kubeconfig(t, both, "https://local.example.com")
	socket(t, both, "unused")
	alone := t.TempDir()
	socket(t, alone, "alone")

	tests := []struct {
		name   string
		access access
		want   string
	}{
		{"named", access{kubeconfig: daemon.AdminKubeconfig(named), dataDir: both}, "https://named.example.com"},
		{"in the data directory", access{dataDir: both}, "https://local.example.com"},
		{"socket alone", access{dataDir: alone}, "http://metald"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			config, _, err := tt.access.config()
			if err != nil {
				t.Fatal(err)
			}
			if config.Host != tt.want {
				t.Errorf("host: got %s, want %s", config.Host, tt.want)
			}
		})
	}
	d, err := (&access{dataDir: alone}).open()
	if err != nil {
		t.Fatal(err)
	}
	hosts, err := d.hosts(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	if len(hosts) != 1 || hosts[0].Name != "alone" {
		t.Errorf("over the socket: got %v, want the one host", hosts)
	}
	if d.namespace != "default" {
		t.Errorf("namespace over the socket: got %q, want default", d.namespace)
	}
}

func kubeconfig(t *testing.T, dir, server string) {
	t.Helper()
	pki, err := daemon.EnsurePKI(dir, nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := pki.WriteAdminKubeconfig(server); err != nil {
		t.Fatal(err)
	}
}

// socket answers every request with a list of one host of this name.
func socket(t *testing.T, dir, name string) {
	t.Helper()
	listener, err := net.Listen("unix", filepath.Join(dir, socketName))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/apis/metal3.io/v1alpha1/baremetalhosts" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"apiVersion":"metal3.io/v1alpha1","kind":"BareMetalHostList","items":[{"metadata":{"name":"`+name+`"}}]}`)
	})}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close(); os.Remove(listener.Addr().String()) })
}
