// SPDX-License-Identifier: Apache-2.0

package bmc

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"metald.io/metald/internal/bmc/bmctest"
)

// TestShared: many callers share one session and two connections, and one new login when the session is lost.
func TestShared(t *testing.T) {
	g := newRig(t, bmctest.Options{})
	var mu sync.Mutex
	now, most := 0, 0
	counted := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		now++
		most = max(most, now)
		mu.Unlock()
		time.Sleep(time.Millisecond) // long enough for the others to come
		g.BMC.ServeHTTP(w, r)
		mu.Lock()
		now--
		mu.Unlock()
	})
	server := httptest.NewServer(counted)
	t.Cleanup(server.Close)
	var err error
	if g.target.Address, err = ParseAddress("redfish+http://" + strings.TrimPrefix(server.URL, "http://")); err != nil {
		t.Fatal(err)
	}
	g.target.Pin = "" // plain HTTP has none
	c := g.dial(t)
	g.DropSessions()
	var callers sync.WaitGroup
	for range 16 {
		callers.Go(func() {
			_, err := c.Power(t.Context())
			_, err2 := c.Identity(t.Context())
			if err := errors.Join(err, err2); err != nil {
				t.Error(err)
			}
		})
	}
	callers.Wait()
	if n := g.logins(); n != 2 {
		t.Errorf("%d logins, want 2: one, and one more after the session was lost", n)
	}
	if most != inFlight {
		t.Errorf("%d requests at a time, want %d", most, inFlight)
	}
	if n := g.Sessions(); n != 1 {
		t.Errorf("%d sessions, want 1", n)
	}
}

// TestStaleSession: who was killed leaves its session behind; who comes after ends it, so that the table never fills.
func TestStaleSession(t *testing.T) {
	g := newRig(t, bmctest.Options{})
	for n := range 10 {
		c, err := Dial(t.Context(), g.target)
		if err != nil {
			t.Fatalf("dial %d: %v", n, err)
		}
		if sessions := g.Sessions(); sessions != 1 {
			t.Fatalf("dial %d: %d sessions, want 1", n, sessions)
		}
		g.target.Stale = c.(Sessioner).Session()
		if n == 9 {
			if err := c.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
}
