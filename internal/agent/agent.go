// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"metald.io/metald/api/v1alpha1"
)

const (
	// waitFirst and waitMost bound the pause between two tries; it doubles from one to the other.
	waitFirst = time.Second
	waitMost  = 30 * time.Second
	// pollLeast is the least time between two orders to wait: a daemon that answers at once must not make this a busy loop.
	pollLeast = time.Second
)

// Agent carries out a daemon's orders on one machine.
type Agent struct {
	Daemon  Daemon
	Machine Machine
	Console *Console
	// Mode is where it runs: v1alpha1.RamdiskMode, InitrdMode or OSMode.
	Mode string
	// Version is the agent's, as it is shown in the inventory.
	Version string
	// Opened is called when a session was opened, and may be nil.
	Opened func(v1alpha1.Session)

	// ended are the long steps of this boot whose end the daemon has not taken yet.
	ended map[ending]v1alpha1.Done
}

// errOff ends the agent after the machine was told to switch itself off.
var errOff = errors.New("the machine is switching itself off")

// Run says hello and carries out orders until ctx ends or the machine is told to switch itself off; only then it returns.
func (a *Agent) Run(ctx context.Context) error {
	var pause backoff
	for {
		session, err := a.open(ctx)
		if err == nil {
			var worked bool
			worked, err = a.work(ctx, session)
			if worked {
				pause.reset()
			}
		}
		if errors.Is(err, errOff) {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		a.tell(err)
		if !pause.sleep(ctx) {
			return ctx.Err()
		}
	}
}

// Refuse tells the daemon that this machine does not boot its image, and why. It tries until ctx ends.
func (a *Agent) Refuse(ctx context.Context, why string) error {
	var pause backoff
	for {
		session, err := a.open(ctx)
		if err == nil {
			err = a.Daemon.Done(ctx, session.Token, v1alpha1.Done{Message: message(session, v1alpha1.RefuseStep), Text: why})
		}
		if err == nil || (final(err) && !stale(err)) {
			return err
		}
		if !pause.sleep(ctx) {
			return err
		}
	}
}

// open says hello and proves this machine's TPM.
func (a *Agent) open(ctx context.Context) (v1alpha1.Session, error) {
	hello := a.Machine.Hello()
	hello.Mode, hello.AgentVersion = a.Mode, a.Version
	tpm, err := a.Machine.TPM()
	if err != nil {
		return v1alpha1.Session{}, fmt.Errorf("opening the TPM: %w", err)
	}
	if tpm != nil {
		defer tpm.Close()
		keys, err := tpm.Keys()
		if err != nil {
			return v1alpha1.Session{}, fmt.Errorf("making the TPM's keys: %w", err)
		}
		hello.TPM = &keys
	}
	challenge, err := a.Daemon.Hello(ctx, hello)
	if err != nil {
		return v1alpha1.Session{}, fmt.Errorf("saying hello: %w", err)
	}
	proof := v1alpha1.Proof{ChallengeID: challenge.ID}
	if tpm != nil {
		if proof.Secret, err = tpm.Activate(challenge); err != nil {
			return v1alpha1.Session{}, fmt.Errorf("opening the daemon's credential: %w", err)
		}
	}
	session, err := a.Daemon.Prove(ctx, proof)
	if err != nil {
		return v1alpha1.Session{}, fmt.Errorf("proving the TPM: %w", err)
	}
	a.Console.Say("this is host %s (%s); the daemon accepts it", session.Host.Name, session.Host.Namespace)
	if a.Opened != nil {
		a.Opened(session)
	}
	return session, nil
}

// work carries out orders until the session is over. It says whether it got anywhere: a wait or a step that ended well.
func (a *Agent) work(ctx context.Context, session v1alpha1.Session) (worked bool, err error) {
	var pause, trouble backoff
	for {
		asked := time.Now()
		order, err := a.Daemon.Next(ctx, session.Token, message(session, ""))
		switch {
		case err == nil:
			pause.reset()
		case final(err) || ctx.Err() != nil: // a 4xx that is not stale cannot happen here; a new session is the way out
			return worked, fmt.Errorf("asking for orders: %w", err)
		default:
			a.tell(err)
			if !pause.sleep(ctx) {
				return worked, ctx.Err()
			}
			continue
		}
		if order.Step == v1alpha1.WaitStep {
			worked = true
			trouble.reset()
			a.Console.Say("waiting for orders")
			if short := pollLeast - time.Since(asked); short > 0 && !sleep(ctx, short) {
				return worked, ctx.Err()
			}
			continue
		}
		well, err := a.carryOut(ctx, &session, order)
		if err != nil {
			return worked || well, err
		}
		if well {
			worked = true
			trouble.reset()
		} else if !trouble.sleep(ctx) { // the same order again must not be the same failure at full speed
			return worked, ctx.Err()
		}
	}
}

// tell says at the console what keeps the agent from working, and what a person can do about it.
func (a *Agent) tell(err error) {
	var refused *RefusedError
	switch {
	case stale(err):
		a.Console.Say("this session is over; saying hello again")
	case errors.As(err, &refused) && refused.Reason == "UnknownMachine":
		hello := a.Machine.Hello()
		a.Console.Shout("the daemon does not know this machine.",
			fmt.Sprintf("MAC addresses: %v", hello.MACs), "System UUID:   "+hello.SystemUUID, "Serial number: "+hello.SerialNumber,
			"To do: list it in your hosts file and run `metald import`, or adopt it: `kubectl get sightings`.")
	case errors.As(err, &refused) && refused.Status == 403:
		a.Console.Shout("the daemon turns this machine away: "+refused.Reason+".", refused.Message)
	default:
		a.Console.Say("no luck yet: %v; trying again", err)
	}
}

func message(session v1alpha1.Session, step string) v1alpha1.Message {
	return v1alpha1.Message{HostUID: session.Host.UID, Epoch: session.Epoch, Step: step}
}

// backoff is the pause before another try. A thousand machines that lost one daemon must not come back as one.
type backoff struct{ wait time.Duration }

func (b *backoff) reset() { b.wait = 0 }

// sleep waits between half and all of the pause. It is false when ctx ended.
func (b *backoff) sleep(ctx context.Context) bool {
	b.wait = min(max(2*b.wait, waitFirst), waitMost)
	return sleep(ctx, b.wait/2+rand.N(b.wait/2))
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
