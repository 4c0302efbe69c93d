// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/desk/desktest"
	"metald.io/metald/internal/inventory"
)

const bootID = "0f0f0f0f-1111-2222-3333-444444444444"

// site is a daemon with one host, as far as the desk sees it.
type site struct {
	*Desk
	t     *testing.T
	store *inventory.Store

	mu        sync.Mutex
	host      Identified
	gone      bool
	strangers []v1alpha1.Hello
	order     chan v1alpha1.Order
}

func (s *site) Identify(context.Context, v1alpha1.Hello, netip.Addr) (Identified, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.host, nil
}

func (s *site) Epoch(context.Context, v1alpha1.HostRef) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return 0, apierrors.NewNotFound(schema.GroupResource{Resource: "baremetalhosts"}, s.host.Host.Name)
	}
	return s.host.Epoch, nil
}

func (s *site) Next(ctx context.Context, _ Session) (v1alpha1.Order, error) {
	select {
	case order := <-s.order:
		return order, nil
	case <-ctx.Done():
		return v1alpha1.Order{}, ctx.Err()
	}
}

func (s *site) Stranger(hello v1alpha1.Hello, _ netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.strangers = append(s.strangers, hello)
}

func (s *site) change(change func(*Identified)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.host)
}

func newSite(t *testing.T) *site {
	t.Helper()
	store, err := inventory.Open(t.TempDir(), inventory.Options{Logger: slog.New(slog.DiscardHandler), Now: time.Now, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Errorf("closing the store: %v", err)
		}
	})
	s := &site{t: t, store: store, order: make(chan v1alpha1.Order, 4), host: Identified{
		Known: true, Host: v1alpha1.HostRef{Namespace: "default", Name: "r1n01", UID: "uid-1"}, Epoch: 3,
	}}
	s.Desk = New(Config{
		Registrar: s, Orders: s, Inventories: store.Inventories(), Lookout: s, Logger: slog.New(slog.DiscardHandler),
		Now: time.Now, PerSource: 1000,
	})
	return s
}

// post sends a request and decodes its answer; a status that is not 200 comes back as its reason.
func post[Out any](s *site, path, token string, in any) (out Out, status int, reason string) {
	s.t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		s.t.Fatal(err)
	}
	r := httptest.NewRequestWithContext(s.t.Context(), http.MethodPost, path, bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	r.RemoteAddr = "172.22.0.9:4711"
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		var refused v1alpha1.AgentError
		if err := json.Unmarshal(w.Body.Bytes(), &refused); err != nil {
			s.t.Fatalf("%s answered %d with %q, which is no AgentError", path, w.Code, w.Body)
		}
		return out, w.Code, refused.Reason
	}
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
		s.t.Fatal(err)
	}
	return out, w.Code, ""
}

func (s *site) agent() v1alpha1.AgentFacts {
	s.t.Helper()
	object, err := s.store.Inventories().Get(s.t.Context(), "default", "r1n01")
	if apierrors.IsNotFound(err) {
		return v1alpha1.AgentFacts{}
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return *object.Status.Agent
}

func newTPM(t *testing.T) *desktest.TPM {
	t.Helper()
	tpm, err := desktest.New()
	if err != nil {
		t.Fatal(err)
	}
	return tpm
}

// hello is what a machine with this TPM, which may be nil, says.
func hello(tpm *desktest.TPM, mode string) v1alpha1.Hello {
	in := v1alpha1.Hello{
		Mode: mode, AgentVersion: "v0", BootID: bootID, MACs: []string{"52:54:00:00:00:01"}, BootMAC: "52:54:00:00:00:01",
		SystemUUID: "1c2d3e4f-0000-0000-0000-000000000001",
	}
	if tpm != nil {
		keys, _ := tpm.Keys()
		in.TPM = &keys
	}
	return in
}

// open says hello and proves.
func (s *site) open(tpm *desktest.TPM, mode string) v1alpha1.Session {
	s.t.Helper()
	challenge, status, reason := post[v1alpha1.Challenge](s, v1alpha1.HelloPath, "", hello(tpm, mode))
	if status != http.StatusOK {
		s.t.Fatalf("hello: %d %s", status, reason)
	}
	proof := v1alpha1.Proof{ChallengeID: challenge.ID}
	if tpm != nil {
		var err error
		if proof.Secret, err = tpm.Activate(challenge); err != nil {
			s.t.Fatal(err)
		}
	}
	session, status, reason := post[v1alpha1.Session](s, v1alpha1.ProvePath, "", proof)
	if status != http.StatusOK {
		s.t.Fatalf("prove: %d %s", status, reason)
	}
	return session
}

func of(session v1alpha1.Session, step string) v1alpha1.Message {
	return v1alpha1.Message{HostUID: session.Host.UID, Epoch: session.Epoch, Step: step}
}

func TestSessionFromHelloToDone(t *testing.T) {
	s := newSite(t)
	tpm := newTPM(t)
	session := s.open(tpm, v1alpha1.RamdiskMode)
	keys, _ := tpm.Keys()
	if got := s.agent(); got.Proof != ProofTPM || got.EKSHA256 != digestEK(keys.EK) || got.Epoch != 3 || got.BootID != bootID ||
		got.Mode != v1alpha1.RamdiskMode || got.FirstSeen == nil || got.LastSeen == nil {
		t.Errorf("after the proof the inventory holds %+v", got)
	}

	want := v1alpha1.Order{Message: of(session, v1alpha1.InspectStep)}
	s.order <- want
	got, status, _ := post[v1alpha1.Order](s, v1alpha1.NextPath, session.Token, of(session, ""))
	if diff := cmp.Diff(want, got); status != http.StatusOK || diff != "" {
		t.Errorf("next: %d\n%s", status, diff)
	}

	report := v1alpha1.Report{Message: of(session, v1alpha1.InspectStep), Facts: &v1alpha1.HostFacts{Kernel: "6.1"}}
	done := v1alpha1.Done{Message: of(session, v1alpha1.InspectStep), OK: true}
	for range 2 { // both may arrive twice
		if _, status, reason := post[struct{}](s, v1alpha1.ReportPath, session.Token, report); status != http.StatusOK {
			t.Errorf("report: %d %s", status, reason)
		}
		if _, status, reason := post[struct{}](s, v1alpha1.DonePath, session.Token, done); status != http.StatusOK {
			t.Errorf("done: %d %s", status, reason)
		}
	}
	after := s.agent()
	if after.Facts == nil || after.Facts.Kernel != "6.1" || after.Inspected != 3 {
		t.Errorf("the facts are not in the inventory: %+v", after)
	}
	if len(after.Steps) != 1 || !after.Steps[0].OK || after.Steps[0].Step != v1alpha1.InspectStep || after.Steps[0].Epoch != 3 {
		t.Errorf("got steps %+v, want one inspect of epoch 3", after.Steps)
	}
}

func TestTurnedAway(t *testing.T) {
	stranger := errors.New("stranger")
	for _, test := range []struct {
		name   string
		host   func(*Identified, *desktest.TPM)
		hello  func(*v1alpha1.Hello)
		status int
		reason string
		want   error
	}{
		{"unknown machine", func(h *Identified, _ *desktest.TPM) { h.Known = false }, nil, 404, "UnknownMachine", stranger},
		{"another TPM", func(h *Identified, _ *desktest.TPM) { h.PinnedEK = strings.Repeat("ab", 32) }, nil, 403, "TPMChanged", nil},
		{"pinned TPM, shows none", func(h *Identified, tpm *desktest.TPM) {
			keys, _ := tpm.Keys()
			h.PinnedEK, h.NoTPM = digestEK(keys.EK), "old board"
		}, func(in *v1alpha1.Hello) { in.TPM = nil }, 403, "TPMChanged", nil},
		{"no TPM, no exemption", nil, func(in *v1alpha1.Hello) { in.TPM = nil }, 403, "NoTPM", nil},
		{"not ordered", func(h *Identified, _ *desktest.TPM) {
			h.Refuse = &v1alpha1.AgentError{Reason: "NotOrdered", Message: "no boot was ordered"}
		}, nil, 403, "NotOrdered", nil},
		{"a key made in software", nil, func(in *v1alpha1.Hello) { in.TPM.AK = in.TPM.EK }, 403, "ProofFailed", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newSite(t)
			tpm := newTPM(t)
			real := s.open(tpm, v1alpha1.RamdiskMode)
			if test.host != nil {
				s.change(func(h *Identified) { test.host(h, tpm) })
			}
			in := hello(tpm, v1alpha1.RamdiskMode)
			if test.hello != nil {
				test.hello(&in)
			}
			_, status, reason := post[v1alpha1.Challenge](s, v1alpha1.HelloPath, "", in)
			if status != test.status || reason != test.reason {
				t.Errorf("got %d %s, want %d %s", status, reason, test.status, test.reason)
			}
			refusal := s.agent().Refusal
			if test.want == stranger {
				if refusal != nil || len(s.strangers) != 1 {
					t.Errorf("a stranger left refusal %+v and %d sightings", refusal, len(s.strangers))
				}
			} else if refusal == nil || refusal.Reason != test.reason || refusal.RemoteIP != "172.22.0.9" {
				t.Errorf("got refusal %+v, want %s from 172.22.0.9", refusal, test.reason)
			}
			// The host's own session does not suffer.
			s.order <- v1alpha1.Order{Message: of(real, v1alpha1.InspectStep)}
			if _, status, reason := post[v1alpha1.Order](s, v1alpha1.NextPath, real.Token, of(real, "")); status != http.StatusOK {
				t.Errorf("the real session then got %d %s", status, reason)
			}
		})
	}
}

func TestProofIsGoodOnce(t *testing.T) {
	s := newSite(t)
	tpm := newTPM(t)
	challenge, _, _ := post[v1alpha1.Challenge](s, v1alpha1.HelloPath, "", hello(tpm, v1alpha1.RamdiskMode))
	if _, status, reason := post[v1alpha1.Session](s, v1alpha1.ProvePath, "", v1alpha1.Proof{ChallengeID: challenge.ID,
		Secret: make([]byte, secretLen)}); status != 403 || reason != "ProofFailed" {
		t.Errorf("a wrong secret got %d %s", status, reason)
	}
	if refusal := s.agent().Refusal; refusal == nil || refusal.Reason != "ProofFailed" {
		t.Errorf("a wrong secret left refusal %+v", refusal)
	}
	secret, err := tpm.Activate(challenge)
	if err != nil {
		t.Fatal(err)
	}
	if _, status, reason := post[v1alpha1.Session](s, v1alpha1.ProvePath, "", v1alpha1.Proof{ChallengeID: challenge.ID,
		Secret: secret}); status != 403 || reason != "ProofFailed" {
		t.Errorf("the right secret after a wrong one got %d %s", status, reason)
	}
	if session := s.open(tpm, v1alpha1.RamdiskMode); session.Token == "" || s.agent().Refusal != nil {
		t.Errorf("a new hello got session %+v and left refusal %+v", session, s.agent().Refusal)
	}
}

func TestExemptedHostProvesByPosition(t *testing.T) {
	s := newSite(t)
	s.change(func(h *Identified) { h.NoTPM = "lab machine" })
	s.open(nil, v1alpha1.RamdiskMode)
	if got := s.agent(); got.Proof != ProofPosition || got.EKSHA256 != "" {
		t.Errorf("got proof %q and key %q, want position and none", got.Proof, got.EKSHA256)
	}
}

func TestFencedOff(t *testing.T) {
	for _, test := range []struct {
		name    string
		change  func(*site, *v1alpha1.Session)
		message func(*v1alpha1.Message)
		status  int
		reason  string
	}{
		{"the epoch went on", func(s *site, _ *v1alpha1.Session) { s.change(func(h *Identified) { h.Epoch++ }) }, nil, 409, "OldEpoch"},
		{"an old message", nil, func(m *v1alpha1.Message) { m.Epoch-- }, 409, "OldEpoch"},
		{"another host's message", nil, func(m *v1alpha1.Message) { m.HostUID = "uid-2" }, 409, "OldEpoch"},
		{"the host is gone", func(s *site, _ *v1alpha1.Session) { s.mu.Lock(); s.gone = true; s.mu.Unlock() }, nil, 401, "NoSession"},
		{"no token", func(_ *site, session *v1alpha1.Session) { session.Token = "" }, nil, 401, "NoSession"},
		{"a made-up token", func(_ *site, session *v1alpha1.Session) { session.Token = token() }, nil, 401, "NoSession"},
		{"a newer session", func(s *site, _ *v1alpha1.Session) { s.open(newTPM(s.t), v1alpha1.RamdiskMode) }, nil, 401, "NoSession"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newSite(t)
			session := s.open(newTPM(t), v1alpha1.RamdiskMode)
			if test.change != nil {
				test.change(s, &session)
			}
			before := s.agent()
			message := of(session, v1alpha1.InspectStep)
			if test.message != nil {
				test.message(&message)
			}
			s.order <- v1alpha1.Order{Message: message}
			for path, in := range map[string]any{
				v1alpha1.NextPath:   message,
				v1alpha1.ReportPath: v1alpha1.Report{Message: message, Facts: &v1alpha1.HostFacts{}},
				v1alpha1.DonePath:   v1alpha1.Done{Message: message, OK: true},
			} {
				if _, status, reason := post[struct{}](s, path, session.Token, in); status != test.status || reason != test.reason {
					t.Errorf("%s: got %d %s, want %d %s", path, status, reason, test.status, test.reason)
				}
			}
			if diff := cmp.Diff(before, s.agent()); diff != "" {
				t.Errorf("a fenced session changed the inventory:\n%s", diff)
			}
		})
	}
}

func TestInitrdOnlyRefuses(t *testing.T) {
	s := newSite(t)
	session := s.open(newTPM(t), v1alpha1.InitrdMode)
	for name, refused := range map[string]func() (struct{}, int, string){
		"next": func() (struct{}, int, string) {
			return post[struct{}](s, v1alpha1.NextPath, session.Token, of(session, ""))
		},
		"report": func() (struct{}, int, string) {
			return post[struct{}](s, v1alpha1.ReportPath, session.Token, v1alpha1.Report{Message: of(session, ""), Facts: &v1alpha1.HostFacts{}})
		},
		"another step": func() (struct{}, int, string) {
			return post[struct{}](s, v1alpha1.DonePath, session.Token, v1alpha1.Done{Message: of(session, v1alpha1.JoinStep), OK: true})
		},
		"a glad refusal": func() (struct{}, int, string) {
			return post[struct{}](s, v1alpha1.DonePath, session.Token, v1alpha1.Done{Message: of(session, v1alpha1.RefuseStep), OK: true})
		},
	} {
		if _, status, reason := refused(); status != 400 || reason != "BadRequest" {
			t.Errorf("%s: got %d %s, want 400 BadRequest", name, status, reason)
		}
	}
	if _, status, reason := post[struct{}](s, v1alpha1.DonePath, session.Token,
		v1alpha1.Done{Message: of(session, v1alpha1.RefuseStep), Text: "SHA-256 is a, want b\x1b[31m"}); status != http.StatusOK {
		t.Fatalf("refusing: %d %s", status, reason)
	}
	got := s.agent()
	if got.Refusal == nil || got.Refusal.Reason != "ImageRefused" || got.Refusal.Message != "SHA-256 is a, want b [31m" {
		t.Errorf("got refusal %+v", got.Refusal)
	}
	if len(got.Steps) != 1 || got.Steps[0].Step != v1alpha1.RefuseStep || got.Steps[0].OK {
		t.Errorf("got steps %+v, want one refusal", got.Steps)
	}
	ramdisk := s.open(newTPM(t), v1alpha1.RamdiskMode)
	if _, status, _ := post[struct{}](s, v1alpha1.DonePath, ramdisk.Token, v1alpha1.Done{Message: of(ramdisk, v1alpha1.RefuseStep)}); status != 400 {
		t.Errorf("the ramdisk could refuse an image: %d", status)
	}
}
