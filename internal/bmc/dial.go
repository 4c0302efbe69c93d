// SPDX-License-Identifier: Apache-2.0

package bmc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stmcginnis/gofish"
	"github.com/stmcginnis/gofish/common"
)

// Target is a BMC and how to be let in.
type Target struct {
	Address  Address
	Username string
	Password Secret
	// Pin is the sha256 of the BMC's leaf certificate in hex, as Certificate returned it; required where Address.Certified.
	Pin string
	// Stale is the session that an earlier connection left behind, as Sessioner named it; it is ended once a new one is open. A
	// daemon that was killed would fill the BMC's few sessions otherwise.
	Stale string `json:"-"`
	// Again does a login that comes after Dial's own, where the BMC has ended the session: who keeps a record of logins keeps it
	// here, and what it refuses is not done. nil just does it.
	Again func(ctx context.Context, login func(context.Context) error) error `json:"-"`
	// Dialer opens connections; nil means the network.
	Dialer Dialer `json:"-"`
}

// again is a login after the first.
func (t Target) again(ctx context.Context, login func(context.Context) error) error {
	if t.Again == nil {
		return login(ctx)
	}
	return t.Again(ctx, login)
}

const (
	pathSessions = "/redfish/v1/SessionService/Sessions"
	pathSystems  = "/redfish/v1/Systems"
	// grace is how long a login or a logout may still take after its caller has gone: a session must not be left behind.
	grace = 5 * time.Second
)

// redfish is a Controller over Redfish.
type redfish struct {
	target   Target
	wire     *wire
	sessions string // where sessions are opened
	systems  string // the collection of systems

	mu      sync.Mutex
	token   string
	session string // its path, to close it
	system  string // the path of our system
	refused error  // a login that was refused is not repeated on this connection
	closed  bool

	noHTTP atomic.Bool // the BMC lists no boot targets, and refused UEFI HTTP boot
}

var (
	_ Controller  = (*redfish)(nil)
	_ Inventorier = (*redfish)(nil)
	_ Sessioner   = (*redfish)(nil)
)

// Dial connects to a BMC by Redfish or, where the address says so, IPMI. With Redfish it checks the certificate against the pin,
// reads the service root, opens a session and finds the system; with IPMI it opens a session, in which both sides prove that
// they know the password and which is always encrypted. It makes one login and no second one. Errors: *PinChangedError, ErrCredentials, ErrUnreachable, ErrBusy (a full
// session table), ErrNotSupported.
func Dial(ctx context.Context, t Target) (Controller, error) {
	var c Controller
	var err error
	if t.Address.IPMI() {
		c, err = dialIPMI(ctx, t)
	} else {
		c, err = dial(ctx, t)
	}
	if err != nil {
		return nil, fmt.Errorf("dialing BMC %s: %w", t.Address, err)
	}
	return c, nil
}

func dial(ctx context.Context, t Target) (*redfish, error) {
	w, err := newWire(t)
	if err != nil {
		return nil, err
	}
	r := &redfish{target: t, wire: w, sessions: pathSessions, systems: pathSystems, system: t.Address.System}
	if err := r.open(ctx); err != nil {
		w.close()
		return nil, err
	}
	return r, nil
}

func (r *redfish) open(ctx context.Context) error {
	if err := r.readRoot(ctx); err != nil {
		return err
	}
	if err := r.login(ctx); err != nil {
		return err
	}
	if stale := r.target.Stale; strings.Contains(stale, strings.TrimSuffix(r.sessions, "/")+"/") && stale != r.session {
		_ = r.logout(ctx, r.token, stale) // it ends by itself too, later
	}
	if err := r.findSystem(ctx); err != nil {
		_ = r.Close(ctx) // the first error says more
		return err
	}
	return nil
}

func (r *redfish) bind(ctx context.Context, token string) *call {
	return &call{ctx: ctx, wire: r.wire, token: token, password: r.target.Password}
}

// readRoot reads the service root without credentials, and learns where sessions and systems are.
func (r *redfish) readRoot(ctx context.Context) error {
	var root gofish.Service
	var links struct {
		Systems common.Link
		Links   struct{ Sessions common.Link }
	}
	if _, err := r.bind(ctx, "").read(common.DefaultServiceRoot, &root, &links); err != nil {
		return fmt.Errorf("reading service root: %w", err)
	}
	if root.RedfishVersion == "" {
		return fmt.Errorf("reading service root: it is no Redfish service: %w", ErrNotSupported)
	}
	if l := links.Links.Sessions.String(); l != "" {
		r.sessions = l
	}
	if l := links.Systems.String(); l != "" {
		r.systems = l
	}
	return nil
}

// login opens a session. The request outlives its caller for a moment, so that a session that the BMC opens after all is
// known and closed.
func (r *redfish) login(ctx context.Context) error {
	type result struct {
		token, session string
		err            error
	}
	done := make(chan result)
	detached, cancel := outlive(ctx)
	go func() {
		defer cancel()
		var got result
		got.token, got.session, got.err = r.post(r.bind(detached, ""))
		select {
		case done <- got:
		case <-ctx.Done():
			if got.err == nil {
				r.logout(ctx, got.token, got.session)
			}
			r.wire.close()
		}
	}()
	select {
	case got := <-done:
		if got.err != nil {
			return fmt.Errorf("opening a session: %w", got.err)
		}
		r.token, r.session = got.token, got.session
		return nil
	case <-ctx.Done():
		return fmt.Errorf("opening a session: %w", network(ctx, ctx.Err()))
	}
}

// outlive is ctx with a little more time, also where ctx is cancelled.
func outlive(ctx context.Context) (context.Context, context.CancelFunc) {
	wait := patience
	if until, ok := ctx.Deadline(); ok {
		wait = max(0, time.Until(until)) + grace
	}
	return context.WithTimeout(context.WithoutCancel(ctx), wait)
}

// post is the login itself.
func (r *redfish) post(c *call) (token, session string, err error) {
	resp, err := c.Post(r.sessions, map[string]string{"UserName": r.target.Username, "Password": r.target.Password.Reveal()})
	if err != nil {
		return "", "", err
	}
	token, session = resp.Header.Get("X-Auth-Token"), resp.Header.Get("Location")
	if session == "" {
		var body common.Entity
		raw, _ := io.ReadAll(resp.Body) // it is in memory
		if json.Unmarshal(raw, &body) == nil {
			session = body.ODataID
		}
	}
	if token == "" {
		return "", "", fmt.Errorf("the BMC answered a login without X-Auth-Token: %w", ErrNotSupported)
	}
	return token, session, nil
}

// logout deletes a session, also where ctx has ended. One that is gone already is no error.
func (r *redfish) logout(ctx context.Context, token, session string) error {
	if token == "" || session == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	_, err := r.bind(ctx, token).Delete(session)
	switch status(err) {
	case http.StatusNotFound, http.StatusUnauthorized:
		return nil
	}
	return err
}

// findSystem settles which system is ours: the one that the address names, or the only one.
func (r *redfish) findSystem(ctx context.Context) error {
	c := r.bind(ctx, r.token)
	if r.system != "" {
		_, err := c.read(r.system, &common.Entity{})
		if status(err) == http.StatusNotFound {
			return fmt.Errorf("reading system: the BMC has no %s: %w", r.system, ErrNotSupported)
		} else if err != nil {
			return fmt.Errorf("reading system: %w", err)
		}
		return nil
	}
	all, err := common.GetCollection(c, r.systems)
	if err != nil {
		return fmt.Errorf("listing systems: %w", err)
	}
	if len(all.ItemLinks) != 1 {
		names := fmt.Sprint(all.ItemLinks)
		return fmt.Errorf("the BMC has %d systems %s: name one in the address: %w", len(all.ItemLinks), printable(names), ErrNotSupported)
	}
	if _, err := c.resolve(all.ItemLinks[0]); err != nil {
		return fmt.Errorf("listing systems: %w", err)
	}
	r.system = all.ItemLinks[0]
	return nil
}

// with runs f in the session. A BMC that restarted, or an idle session, ends the token: then it logs in once more, and
// repeats f. A login that was refused is not tried again.
func (r *redfish) with(ctx context.Context, f func(*call) error) error {
	token, err := r.current()
	if err != nil {
		return err
	}
	err = f(r.bind(ctx, token))
	if status(err) != http.StatusUnauthorized {
		return err
	}
	if token, err = r.renew(ctx, token); err != nil {
		return err
	}
	return f(r.bind(ctx, token))
}

func (r *redfish) current() (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return "", ErrClosed
	}
	return r.token, r.refused
}

// renew replaces a session that the BMC no longer knows. Callers that come at once share one login.
func (r *redfish) renew(ctx context.Context, old string) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closed:
		return "", ErrClosed
	case r.refused != nil:
		return "", r.refused
	case r.token != old:
		return r.token, nil
	}
	if err := r.target.again(ctx, r.login); err != nil {
		if errors.Is(err, ErrCredentials) {
			r.refused = err
		}
		return "", err
	}
	return r.token, nil
}

// Session names the session that is open on the BMC.
func (r *redfish) Session() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.session
}

// Close ends the session.
func (r *redfish) Close(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	err := r.logout(ctx, r.token, r.session)
	r.wire.close()
	if err != nil {
		return fmt.Errorf("closing the session on %s: %w", r.target.Address, err)
	}
	return nil
}
