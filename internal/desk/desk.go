// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/time/rate"

	"metald.io/metald/api/v1alpha1"
)

// Registrar knows the hosts.
type Registrar interface {
	// Identify says which host a machine claims to be. It must not believe the claim.
	Identify(ctx context.Context, hello v1alpha1.Hello, from netip.Addr) (Identified, error)
	// Epoch is the present epoch of a host; a session of an older one is fenced off. A host that is gone, or that was made
	// again with another UID, is an error of the kind apierrors.IsNotFound.
	Epoch(ctx context.Context, host v1alpha1.HostRef) (int64, error)
}

// Identified is the host that a machine claims to be, and what it has to show for it.
type Identified struct {
	// Known is false for a machine that no host matches.
	Known bool
	Host  v1alpha1.HostRef
	Epoch int64
	// PinnedEK is the sha256 of the host's endorsement key in hex, empty before the first inspection.
	PinnedEK string
	// NoTPM is a person's reason to let this host in without a TPM, empty where it needs one.
	NoTPM string
	// Refuse turns the machine away whatever it can prove, for instance with NotOrdered. It is written into the inventory.
	Refuse *v1alpha1.AgentError
}

// Orders says what an agent shall do.
type Orders interface {
	// Next blocks until there is work for the session's host or ctx ends; then it is a WaitStep, or ctx's error.
	Next(ctx context.Context, session Session) (v1alpha1.Order, error)
}

// Inventories is where facts go: inventory.Store's Inventories.
type Inventories interface {
	Create(ctx context.Context, object *v1alpha1.HostInventory) (*v1alpha1.HostInventory, error)
	Update(ctx context.Context, namespace, name string, change func(*v1alpha1.HostInventory) error) (*v1alpha1.HostInventory, error)
}

// Lookout is told of machines that no host matches.
type Lookout interface {
	Stranger(hello v1alpha1.Hello, from netip.Addr)
}

// Session is one agent that has proved who it is.
type Session struct {
	Host  v1alpha1.HostRef
	Epoch int64
	// Mode is where the agent runs: v1alpha1.RamdiskMode, InitrdMode or OSMode.
	Mode   string
	BootID string
	// Proof is "tpm" or "position".
	Proof string
	// EKSHA256 is the endorsement key that was proved, in hex; empty with proof by position.
	EKSHA256 string
	RemoteIP netip.Addr
	// RootHash is what the agent says of its root; it is not proved.
	RootHash string
	// Slot is the slot of its disk that the agent says the machine runs from or refuses; it is not proved.
	Slot string
}

// Proofs of a Session.
const (
	ProofTPM      = "tpm"
	ProofPosition = "position"
)

// Config is what a Desk works with. All but PerSource must be set.
type Config struct {
	Registrar   Registrar
	Orders      Orders
	Inventories Inventories
	Lookout     Lookout
	Logger      *slog.Logger
	Now         func() time.Time
	// PerSource is how many hellos and proofs a second one address may send, with a burst of ten seconds' worth; 0 is 2.
	PerSource rate.Limit
}

// Desk is the agents' endpoint: an http.Handler for the paths of v1alpha1.HelloPath and its siblings. It must be served
// over TLS only, for it hands out session tokens.
type Desk struct {
	registrar  Registrar
	orders     Orders
	lookout    Lookout
	logger     *slog.Logger
	now        func() time.Time
	limits     *limits
	challenges *challenges
	sessions   *sessions
	record     *record
	mux        *http.ServeMux
}

// New makes a Desk without sessions.
func New(c Config) *Desk {
	if c.PerSource == 0 {
		c.PerSource = 2
	}
	d := &Desk{
		registrar:  c.Registrar,
		orders:     c.Orders,
		lookout:    c.Lookout,
		logger:     c.Logger,
		now:        c.Now,
		limits:     newLimits(c.PerSource),
		challenges: newChallenges(),
		sessions:   newSessions(),
		record:     newRecord(c.Inventories, c.Now),
		mux:        http.NewServeMux(),
	}
	d.mux.HandleFunc("POST "+v1alpha1.HelloPath, answer(d, d.hello))
	d.mux.HandleFunc("POST "+v1alpha1.ProvePath, answer(d, d.prove))
	d.mux.HandleFunc("POST "+v1alpha1.NextPath, answer(d, d.next))
	d.mux.HandleFunc("POST "+v1alpha1.ReportPath, answer(d, d.report))
	d.mux.HandleFunc("POST "+v1alpha1.DonePath, answer(d, d.done))
	return d
}

// ServeHTTP answers an agent.
func (d *Desk) ServeHTTP(w http.ResponseWriter, r *http.Request) { d.mux.ServeHTTP(w, r) }
