// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"metald.io/metald/internal/apiserver"
	"metald.io/metald/internal/bmc/bmctest"
	"metald.io/metald/internal/daemon"
	"metald.io/metald/internal/inventory"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"metald": main})
}

// The scripts run against a real door over a real inventory; only the mind is away, so nothing touches the hosts they make.
func TestScripts(t *testing.T) {
	data := openDoor(t)
	makeNamespace(t, data, "strangers")
	makeNamespace(t, data, "watched")
	makeNamespace(t, data, "rack")
	makeNamespace(t, data, "held")
	makeNamespace(t, data, "audited")
	makeNamespace(t, data, "backed")
	makeNamespace(t, data, "operated")
	bmcPort := startBMC(t)
	testscript.Run(t, testscript.Params{
		Dir:           filepath.Join("testdata", "script"),
		UpdateScripts: *update,
		Cmds:          map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "until": untilMatch, "apply": apply(data), "ended": ended(data)},
		Setup: func(e *testscript.Env) error {
			e.Setenv("DATA", data)
			e.Setenv("BMC_PORT", bmcPort)
			e.Setenv("METALD_KUBECONFIG", daemon.AdminKubeconfig(data))
			e.Setenv("HOME", e.WorkDir)
			return nil
		},
	})
}

// startBMC serves one BMC on a port of 127.0.0.1, and returns the port.
func startBMC(t *testing.T) string {
	t.Helper()
	machine := bmctest.NewMemoryMachine(bmctest.Description{Manufacturer: "Example", Model: "X1", UUID: "4c4c4544-0000-1000-8000-000000000001"})
	cert, err := bmctest.SelfSigned("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(bmctest.New(machine, bmctest.Options{Username: "admin", Password: "hunter2"}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	server.StartTLS()
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func makeNamespace(t *testing.T, data, name string) {
	t.Helper()
	d, err := (&access{dataDir: data}).open()
	if err != nil {
		t.Fatal(err)
	}
	namespace := &corev1.Namespace{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}, ObjectMeta: metav1.ObjectMeta{Name: name}}
	if err := d.core.Post().Resource("namespaces").Body(namespace).Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
}

// apply is "apply FILE": the objects of a YAML file are made, with their status, which in life only the mind writes.
func apply(data string) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) != 1 {
			ts.Fatalf("usage: apply FILE")
		}
		d, err := (&access{dataDir: data}).open()
		ts.Check(err)
		for document := range strings.SplitSeq(ts.ReadFile(args[0]), "\n---\n") {
			var object unstructured.Unstructured
			ts.Check(yaml.Unmarshal([]byte(document), &object.Object))
			status, hasStatus := object.Object["status"]
			path := "/apis/" + object.GetAPIVersion() + "/namespaces/" + object.GetNamespace() + "/"
			if object.GetNamespace() == "" {
				path = "/apis/" + object.GetAPIVersion() + "/"
			}
			path += resources[object.GetKind()]
			send := func(r *rest.Request) {
				body, err := object.MarshalJSON()
				ts.Check(err)
				answer, err := r.Body(body).SetHeader("Content-Type", "application/json").DoRaw(context.Background())
				if err != nil {
					ts.Fatalf("%s %s: %v: %s", object.GetKind(), object.GetName(), err, answer)
				}
				ts.Check(object.UnmarshalJSON(answer))
			}
			send(d.core.Post().AbsPath(path))
			if hasStatus {
				object.Object["status"] = status
				send(d.core.Put().AbsPath(path, object.GetName(), "status"))
			}
		}
	}
}

// ended is "ended FILE USER": a kubeconfig with a login of the user that was over an hour ago.
func ended(data string) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) != 2 {
			ts.Fatalf("usage: ended FILE USER")
		}
		issued, err := daemon.SignLogin(data, daemon.Login{User: args[1], Life: time.Hour}, time.Now().Add(-2*time.Hour))
		ts.Check(err)
		text, err := issued.Kubeconfig(data, "", time.Now())
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(args[0]), text, 0o600))
	}
}

// resources are the kinds that apply knows.
var resources = map[string]string{"BareMetalHost": "baremetalhosts", "HostProgress": "hostprogresses", "HostInventory": "hostinventories",
	"NodePool": "nodepools", "Image": "images"}

// exits is "exits CODE PROGRAM ARGS...": the program must end with that very code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARGS...")
	}
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if want, err := strconv.Atoi(args[0]); err != nil || got != want {
		ts.Fatalf("exit code: got %d, want %s", got, args[0])
	}
}

// untilMatch is "until FILE PATTERN": within half a minute the whole file must match.
func untilMatch(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: until FILE PATTERN")
	}
	pattern, err := regexp.Compile(args[1])
	ts.Check(err)
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		text, err := os.ReadFile(ts.MkAbs(args[0]))
		if err == nil && pattern.Match(text) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%s does not match %s in 30 s:\n%s", args[0], args[1], text)
		}
	}
}

// openDoor serves the users' API from a fresh data directory until the test ends, and returns the directory.
func openDoor(t *testing.T) string {
	t.Helper()
	data := t.TempDir()
	pki, err := daemon.EnsurePKI(data, nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	store, err := inventory.Open(data, inventory.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := pki.WriteAdminKubeconfig("https://" + listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	server, err := apiserver.New(apiserver.Config{
		Etcd: store.Etcd(), Transformer: store.Transformer, Listener: listener, Certificate: pki.Certificate, Key: pki.Key, ClientCA: pki.ClientCA,
		Extra: daemon.ExtraPaths(store, slog.New(slog.DiscardHandler)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the door: %v", err)
		}
		if err := store.Close(); err != nil {
			t.Errorf("closing the inventory: %v", err)
		}
	})
	select {
	case <-server.Ready():
	case err := <-ended:
		t.Fatalf("the door did not open: %v", err)
	case <-time.After(time.Minute):
		t.Fatal("the door did not open in a minute")
	}
	if _, err := os.Stat(daemon.AdminKubeconfig(data)); err != nil {
		t.Fatal(err)
	}
	return data
}
