// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"metald.io/metald/api/v1alpha1"
)

// joinWithin is how long a kubelet may take to come up before the step counts as failed. Its bootstrap token does not
// live much longer.
const joinWithin = 5 * time.Minute

// carryOut does one step and tells the daemon how it ended, which it returns too. An error means that the session is
// over, or that the machine goes off.
func (a *Agent) carryOut(ctx context.Context, session v1alpha1.Session, order v1alpha1.Order) (well bool, err error) {
	a.Console.Say("order: %s", order.Step)
	began := time.Now()
	err = a.step(ctx, session, order)
	if err != nil && (stale(err) || ctx.Err() != nil) {
		return false, err
	}
	done := v1alpha1.Done{Message: message(session, order.Step), OK: err == nil}
	if err != nil {
		done.Text = err.Error()
		a.Console.Shout(fmt.Sprintf("the step %s went wrong.", order.Step), err.Error(), "The daemon is told, and decides what comes next.")
	} else {
		a.Console.Say("done: %s, after %.1f s", order.Step, time.Since(began).Seconds())
	}
	if err := a.send(ctx, func() error { return a.Daemon.Done(ctx, session.Token, done) }); err != nil {
		return done.OK, fmt.Errorf("reporting the end of %s: %w", order.Step, err)
	}
	if order.Step == v1alpha1.PowerOffStep {
		a.Console.Say("switching off")
		if err := a.Machine.PowerOff(); err != nil {
			a.Console.Shout("the machine does not switch itself off.", err.Error())
			return false, err
		}
		return true, errOff
	}
	return done.OK, nil
}

// step does what is ordered. A step that panics fails; it does not take the first program of the machine with it.
func (a *Agent) step(ctx context.Context, session v1alpha1.Session, order v1alpha1.Order) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic in step %s: %v at %.512s", order.Step, p, debug.Stack())
		}
	}()
	switch order.Step {
	case v1alpha1.InspectStep:
		facts := Fit(a.Machine.Facts(ctx))
		a.Console.Say("found %s", Summary(facts))
		report := v1alpha1.Report{Message: message(session, order.Step), Facts: facts}
		return a.send(ctx, func() error { return a.Daemon.Report(ctx, session.Token, report) })
	case v1alpha1.JoinStep:
		if order.Join == nil {
			return errors.New("the order to join holds no seed")
		}
		ctx, cancel := context.WithTimeout(ctx, joinWithin)
		defer cancel()
		return a.Machine.Join(ctx, *order.Join)
	case v1alpha1.PowerOffStep:
		return nil // after its Done
	default:
		return fmt.Errorf("agent %s does not know the step %q", a.Version, order.Step)
	}
}

// send repeats a message until the daemon has taken it, refuses it, or ctx ends. It may arrive twice.
func (a *Agent) send(ctx context.Context, call func() error) error {
	var pause backoff
	for {
		err := call()
		if err == nil || final(err) {
			return err
		}
		a.tell(err)
		if !pause.sleep(ctx) {
			return err
		}
	}
}
