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
// over, or that the machine goes off. A long step may outlive its session; then another one takes its place.
func (a *Agent) carryOut(ctx context.Context, session *v1alpha1.Session, order v1alpha1.Order) (well bool, err error) {
	key, long := endingOf(*session, order)
	done, before := a.ended[key]
	if before {
		a.Console.Say("the step %s had ended before; telling the daemon again", order.Step)
	} else {
		if done, err = a.attempt(ctx, session, order, long); err != nil {
			return false, err
		}
		if long {
			a.keep(key, done)
		}
	}
	if err := a.send(ctx, func() error { return a.Daemon.Done(ctx, session.Token, done) }); err != nil {
		return done.OK, fmt.Errorf("reporting the end of %s: %w", order.Step, err)
	}
	delete(a.ended, key) // when the daemon has heard how it ended and asks again, it means it
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

// attempt does the work of a step. Its error means that the step did not end: the session is over, or the agent.
func (a *Agent) attempt(ctx context.Context, session *v1alpha1.Session, order v1alpha1.Order, long bool) (v1alpha1.Done, error) {
	a.Console.Say("order: %s", order.Step)
	began := time.Now()
	work, progress := ctx, func(v1alpha1.StepProgress) {}
	end := func() error { return nil }
	if long {
		r := a.follow(ctx, *session, order.Step)
		work, progress = r.work, r.note
		end = func() error {
			*session = r.stop()
			return context.Cause(r.work)
		}
	}
	done, err := a.step(work, *session, order, progress)
	if over := end(); errors.Is(over, errOver) {
		return done, over
	}
	if err != nil && (stale(err) || ctx.Err() != nil) {
		return done, err
	}
	done.Message, done.OK = message(*session, order.Step), err == nil
	if err != nil {
		done.Text = err.Error()
		a.Console.Shout(fmt.Sprintf("the step %s went wrong.", order.Step), err.Error(), "The daemon is told, and decides what comes next.")
	} else {
		a.Console.Say("done: %s, after %.1f s", order.Step, time.Since(began).Seconds())
	}
	return done, nil
}

// step does what is ordered. A step that panics fails; it does not take the first program of the machine with it.
func (a *Agent) step(ctx context.Context, session v1alpha1.Session, order v1alpha1.Order, progress func(v1alpha1.StepProgress)) (done v1alpha1.Done, err error) {
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
		return done, a.send(ctx, func() error { return a.Daemon.Report(ctx, session.Token, report) })
	case v1alpha1.InstallStep, v1alpha1.EraseStep:
		if a.Mode != v1alpha1.RamdiskMode {
			return done, fmt.Errorf("the step %s is for the ramdisk; this is mode %s", order.Step, a.Mode)
		}
		return a.disks(ctx, order, progress)
	case v1alpha1.JoinStep:
		if order.Join == nil {
			return done, errors.New("the order to join holds no seed")
		}
		ctx, cancel := context.WithTimeout(ctx, joinWithin)
		defer cancel()
		return done, a.Machine.Join(ctx, *order.Join)
	case v1alpha1.PowerOffStep:
		return done, nil // after its Done
	default:
		return done, fmt.Errorf("agent %s does not know the step %q", a.Version, order.Step)
	}
}

// disks does a step that writes to the machine's disks.
func (a *Agent) disks(ctx context.Context, order v1alpha1.Order, progress func(v1alpha1.StepProgress)) (done v1alpha1.Done, err error) {
	switch {
	case order.Step == v1alpha1.InstallStep && order.Install != nil:
		done.AlreadyThere, err = a.Machine.Install(ctx, *order.Install, progress)
	case order.Step == v1alpha1.EraseStep && order.Erase != nil:
		done.Erased, err = a.Machine.Erase(ctx, *order.Erase, progress)
	default:
		err = fmt.Errorf("the order to %s holds no plan", order.Step)
	}
	return done, err
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
