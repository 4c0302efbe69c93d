// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/agent"
	"metald.io/metald/internal/desk"
	"metald.io/metald/internal/desk/desktest"
	"metald.io/metald/internal/inventory"
)

// mind gives a list of orders to the agents of one host, each once, and then lets them wait.
type mind struct {
	mu     sync.Mutex
	pinned string
	epoch  int64
	orders []v1alpha1.Order
	// restart makes the desk anew, as a daemon does that was restarted: it knows no session.
	restart func()
	desk    atomic.Pointer[desk.Desk]
}

var theHost = v1alpha1.HostRef{Namespace: "default", Name: "r1n01", UID: "uid-1"}

func (m *mind) Identify(context.Context, v1alpha1.Hello, netip.Addr) (desk.Identified, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return desk.Identified{Known: true, Host: theHost, Epoch: m.epoch, PinnedEK: m.pinned}, nil
}

func (m *mind) Epoch(context.Context, v1alpha1.HostRef) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.epoch, nil
}

func (m *mind) Next(ctx context.Context, s desk.Session) (v1alpha1.Order, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.orders) == 0 {
		m.mu.Unlock()
		<-ctx.Done()
		m.mu.Lock()
		return v1alpha1.Order{}, ctx.Err()
	}
	order := m.orders[0]
	m.orders = m.orders[1:]
	order.HostUID, order.Epoch = s.Host.UID, s.Epoch
	return order, nil
}

func (m *mind) Stranger(v1alpha1.Hello, netip.Addr) {}

// machine is a host with the given TPM.
type machine struct {
	open   func() (agent.TPM, error)
	joined chan v1alpha1.JoinSeed
	off    chan struct{}
	// installing is called by Install, and may be nil.
	installing func()
}

func (m *machine) Hello() v1alpha1.Hello {
	return v1alpha1.Hello{BootID: "0f0f0f0f-1111-2222-3333-444444444444", MACs: []string{"52:54:00:00:00:01"}}
}
func (m *machine) TPM() (agent.TPM, error) { return m.open() }
func (m *machine) Facts(context.Context) *v1alpha1.HostFacts {
	return &v1alpha1.HostFacts{Kernel: "6.1", CPU: v1alpha1.CPUFacts{Threads: 2}}
}
func (m *machine) Join(_ context.Context, seed v1alpha1.JoinSeed) error { m.joined <- seed; return nil }
func (m *machine) PowerOff() error                                      { close(m.off); return nil }

func (m *machine) Install(_ context.Context, plan v1alpha1.InstallPlan, progress func(v1alpha1.StepProgress)) (bool, error) {
	if m.installing != nil {
		m.installing() // and no word of progress, by which the agent would learn of a restart before the end
		return true, nil
	}
	progress(v1alpha1.StepProgress{Doing: "writing " + plan.Disk.Name, Done: 1, Total: 2})
	return true, nil
}

func (m *machine) Erase(_ context.Context, plan v1alpha1.ErasePlan, _ func(v1alpha1.StepProgress)) ([]v1alpha1.DriveErasure, error) {
	return []v1alpha1.DriveErasure{{Name: plan.Drives[0].Name, Method: "overwrite", OK: true}}, nil
}

// door serves a desk over TLS with a store of its own, and returns a client that trusts it alone.
func door(t *testing.T, m *mind) (*inventory.Store, *agent.Client) {
	t.Helper()
	store, err := inventory.Open(t.TempDir(), inventory.Options{Logger: slog.New(slog.DiscardHandler), Now: time.Now, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	m.restart = func() {
		m.desk.Store(desk.New(desk.Config{
			Registrar: m, Orders: m, Inventories: store.Inventories(), Lookout: m, Logger: slog.New(slog.DiscardHandler), Now: time.Now,
			PerSource: 1000,
		}))
	}
	m.restart()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { m.desk.Load().ServeHTTP(w, r) }))
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS13}
	server.StartTLS()
	t.Cleanup(server.Close)
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	tls, err := transport(authority)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tls.CloseIdleConnections)
	return store, agent.NewClient(server.URL, tls)
}

// ride runs an agent through the whole life of a session: inspected, joined, an order that it does not know, and off.
func ride(t *testing.T, open func() (agent.TPM, error)) v1alpha1.AgentFacts {
	t.Helper()
	m := &mind{epoch: 3, orders: []v1alpha1.Order{
		{Message: v1alpha1.Message{Step: v1alpha1.InspectStep}},
		{Message: v1alpha1.Message{Step: v1alpha1.EraseStep}, Erase: &v1alpha1.ErasePlan{
			Mode: v1alpha1.EraseFull, Drives: []v1alpha1.DiskTarget{{Name: "sda"}},
		}},
		{Message: v1alpha1.Message{Step: v1alpha1.InstallStep}, Install: &v1alpha1.InstallPlan{Disk: v1alpha1.DiskTarget{Name: "sda"}}},
		{Message: v1alpha1.Message{Step: v1alpha1.JoinStep}, Join: &v1alpha1.JoinSeed{NodeName: "r1n01"}},
		{Message: v1alpha1.Message{Step: v1alpha1.PowerOffStep}},
	}}
	store, client := door(t, m)
	host := &machine{open: open, joined: make(chan v1alpha1.JoinSeed, 1), off: make(chan struct{})}
	a := agent.Agent{Daemon: client, Machine: host, Console: agent.NewConsole(io.Discard), Mode: v1alpha1.RamdiskMode, Version: "v0"}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := a.Run(ctx); err != nil {
		t.Fatalf("running the agent: %v", err)
	}
	select {
	case <-host.off:
	default:
		t.Error("the machine was not switched off")
	}
	if seed := <-host.joined; seed.NodeName != "r1n01" {
		t.Errorf("joined with %+v", seed)
	}
	object, err := store.Inventories().Get(t.Context(), "default", "r1n01")
	if err != nil {
		t.Fatal(err)
	}
	got := *object.Status.Agent
	if got.Proof != desk.ProofTPM || got.Facts == nil || got.Facts.Kernel != "6.1" || got.Inspected != 3 {
		t.Errorf("the inventory holds %+v", got)
	}
	var steps []string
	for _, s := range got.Steps {
		if !s.OK {
			t.Errorf("the step %s failed: %s", s.Step, s.Message)
		}
		steps = append(steps, s.Step)
	}
	if got, want := strings.Join(steps, " "), "inspect erase install join poweroff"; got != want {
		t.Fatalf("got steps %q, want %q", got, want)
	}
	if erased := got.Steps[1].Erased; len(erased) != 1 || erased[0].Name != "sda" || !erased[0].OK {
		t.Errorf("got the records %+v of the erase", erased)
	}
	if !got.Steps[2].AlreadyThere {
		t.Errorf("got %+v, want an image that was there already", got.Steps[2])
	}
	return got
}

func TestAgentAtTheDesk(t *testing.T) {
	tpm, err := desktest.New()
	if err != nil {
		t.Fatal(err)
	}
	ride(t, func() (agent.TPM, error) { return tpm, nil })
}

// A daemon that is restarted just before a long step ends hears how it ended, and the work is not done again.
func TestDaemonRestartedAtTheEndOfAStep(t *testing.T) {
	install := v1alpha1.Order{Message: v1alpha1.Message{Step: v1alpha1.InstallStep}, Install: &v1alpha1.InstallPlan{Disk: v1alpha1.DiskTarget{Name: "sda"}}}
	m := &mind{epoch: 3, orders: []v1alpha1.Order{install, install, {Message: v1alpha1.Message{Step: v1alpha1.PowerOffStep}}}}
	store, client := door(t, m)
	tpm, err := desktest.New()
	if err != nil {
		t.Fatal(err)
	}
	installs := 0
	host := &machine{open: func() (agent.TPM, error) { return tpm, nil }, off: make(chan struct{}), installing: func() { installs++; m.restart() }}
	a := agent.Agent{Daemon: client, Machine: host, Console: agent.NewConsole(io.Discard), Mode: v1alpha1.RamdiskMode, Version: "v0"}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := a.Run(ctx); err != nil {
		t.Fatalf("running the agent: %v", err)
	}
	object, err := store.Inventories().Get(t.Context(), "default", "r1n01")
	if err != nil {
		t.Fatal(err)
	}
	steps := object.Status.Agent.Steps
	if installs != 1 || len(steps) != 2 || steps[0].Step != v1alpha1.InstallStep || !steps[0].OK {
		t.Errorf("installed %d times, and the inventory holds %+v", installs, steps)
	}
}

func TestAgentTrustsTheSitesAuthorityAlone(t *testing.T) {
	m := &mind{epoch: 1}
	_, right := door(t, m)
	tpm, err := desktest.New()
	if err != nil {
		t.Fatal(err)
	}
	keys, _ := tpm.Keys()
	in := v1alpha1.Hello{Mode: v1alpha1.RamdiskMode, BootID: "0f0f0f0f-1111-2222-3333-444444444444", MACs: []string{"52:54:00:00:00:01"}, TPM: &keys}
	if _, err := right.Hello(t.Context(), in); err != nil {
		t.Fatalf("the right authority: %v", err)
	}
	stranger := httptest.NewTLSServer(nil)
	defer stranger.Close()
	// httptest's servers share one certificate, so the other site's is made of a certificate authority that signed nothing.
	tls, err := transport(otherAuthority(t))
	if err != nil {
		t.Fatal(err)
	}
	wrong := agent.NewClient(stranger.URL, tls)
	if _, err := wrong.Hello(t.Context(), in); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a server of another authority: got %v", err)
	}
	if _, err := transport([]byte("no PEM")); err == nil {
		t.Error("an empty authority was taken")
	}
}
