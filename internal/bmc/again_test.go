// SPDX-License-Identifier: Apache-2.0

package bmc

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/bougou/go-ipmi/pkg/types"

	"metald.io/metald/internal/bmc/bmctest"
)

// again is a keeper of a record of logins: it counts them, and refuses when it cannot keep it.
type again struct {
	full error
	n    int
}

func (a *again) login(ctx context.Context, login func(context.Context) error) error {
	if a.full != nil {
		return a.full
	}
	a.n++
	return login(ctx)
}

// TestEachLaterLoginIsAsked: whoever keeps a record of logins hears of each that comes after Dial's, before it is sent; what
// it refuses is not sent.
func TestEachLaterLoginIsAsked(t *testing.T) {
	full := errors.New("the record is full")
	for _, kind := range []struct {
		name string
		// open answers a connection over a target with that keeper, how to end its session, and how many logins the BMC has met.
		open func(t *testing.T, keeper *again) (c Controller, lose func(), met func() int)
	}{
		{"redfish", func(t *testing.T, keeper *again) (Controller, func(), func() int) {
			g := newRig(t, bmctest.Options{})
			g.target.Again = keeper.login
			return g.dial(t), func() { g.DropSessions() }, g.logins
		}},
		{"ipmi", func(t *testing.T, keeper *again) (Controller, func(), func() int) {
			g := newIPMIRig(t, types.CipherSuiteID17)
			g.target.Again = keeper.login
			c := g.dial(t)
			return c, func() { c.used = time.Now().Add(-time.Hour) }, func() int { return g.met(types.PayloadTypeRAKPMessage1) }
		}},
	} {
		t.Run(kind.name, func(t *testing.T) {
			keeper := &again{}
			c, lose, met := kind.open(t, keeper)
			for want := range 3 {
				if keeper.n != want || met() != want+1 {
					t.Fatalf("%d later logins were asked for and %d logins sent, want %d and %d", keeper.n, met(), want, want+1)
				}
				lose()
				if _, err := c.Power(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			before := met()
			lose()
			keeper.full = full
			if _, err := c.Power(t.Context()); !errors.Is(err, full) {
				t.Errorf("with a record that is full: got %v, want its error", err)
			}
			if n := met(); n != before {
				t.Errorf("%d logins were sent that could not be recorded", n-before)
			}
			keeper.full = nil
			if _, err := c.Power(t.Context()); err != nil {
				t.Errorf("with room again: %v", err)
			}
		})
	}
}
