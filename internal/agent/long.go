// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"time"

	"metald.io/metald/api/v1alpha1"
)

const (
	// reportEvery is the least time between two reports of progress, sameEvery where nothing has changed: work that cannot
	// say how far it is still says that it is alive.
	reportEvery = 5 * time.Second
	sameEvery   = 30 * time.Second
)

// errOver ends a long step whose host has gone on to another epoch: what it does is no longer wanted.
var errOver = errors.New("the host has gone on to another epoch")

// ending names a long step of one boot. The plan's digest is part of it: another plan is another step.
type ending struct {
	uid   string
	epoch int64
	step  string
	plan  [sha256.Size]byte
}

// endingOf names the step of an order, and says whether it is a long one: a step that must not be done twice because a
// daemon was restarted just when it ended.
func endingOf(session v1alpha1.Session, order v1alpha1.Order) (ending, bool) {
	var plan any
	switch order.Step {
	case v1alpha1.InstallStep:
		plan = order.Install
	case v1alpha1.EraseStep:
		plan = order.Erase
	default:
		return ending{}, false
	}
	text, err := json.Marshal(plan)
	if err != nil { // it came as JSON
		return ending{}, false
	}
	return ending{uid: session.Host.UID, epoch: session.Epoch, step: order.Step, plan: sha256.Sum256(text)}, true
}

// keep remembers how a long step ended until the daemon has taken it. What belongs to an older epoch is forgotten.
func (a *Agent) keep(key ending, done v1alpha1.Done) {
	for old := range a.ended {
		if old.uid != key.uid || old.epoch != key.epoch {
			delete(a.ended, old)
		}
	}
	if a.ended == nil {
		a.ended = make(map[ending]v1alpha1.Done)
	}
	a.ended[key] = done
}

// reporter tells the daemon how far a long step is. When the daemon has forgotten the session it opens another one, so
// that a daemon that was restarted does not take a machine at work for a dead one.
type reporter struct {
	agent *Agent
	step  string
	// work is what the step runs under: it ends with errOver when the host's epoch does.
	work context.Context
	quit context.CancelCauseFunc

	news  chan struct{} // holds one: there is something to tell
	ended chan struct{}

	mu      sync.Mutex
	latest  v1alpha1.StepProgress
	session v1alpha1.Session
}

var errEnded = errors.New("the step has ended")

// follow starts to report on a step.
func (a *Agent) follow(ctx context.Context, session v1alpha1.Session, step string) *reporter {
	r := &reporter{agent: a, step: step, session: session, news: make(chan struct{}, 1), ended: make(chan struct{})}
	r.work, r.quit = context.WithCancelCause(ctx)
	go r.run()
	return r
}

// note takes a word of progress, and never waits.
func (r *reporter) note(p v1alpha1.StepProgress) {
	r.mu.Lock()
	r.latest = p
	r.mu.Unlock()
	select {
	case r.news <- struct{}{}:
	default:
	}
}

// stop ends the reports and returns the session that is open now.
func (r *reporter) stop() v1alpha1.Session {
	r.quit(errEnded)
	<-r.ended
	return r.session
}

func (r *reporter) run() {
	defer close(r.ended)
	var told v1alpha1.StepProgress
	var at time.Time
	for {
		select {
		case <-r.work.Done():
			return
		case <-r.news:
		}
		r.mu.Lock()
		now := r.latest
		r.mu.Unlock()
		if now == told && time.Since(at) < sameEvery {
			continue
		}
		told, at = now, time.Now()
		r.tell(now)
		if !sleep(r.work, reportEvery-time.Since(at)) {
			return
		}
	}
}

// tell sends one report. One that is lost is lost: the next says more.
func (r *reporter) tell(p v1alpha1.StepProgress) {
	report := v1alpha1.Report{Message: message(r.session, r.step), Progress: &p}
	err := r.agent.Daemon.Report(r.work, r.session.Token, report)
	var refused *RefusedError
	switch {
	case !stale(err):
		return
	case errors.As(err, &refused) && refused.Status == http.StatusConflict:
		r.quit(errOver)
		return
	}
	session, err := r.agent.open(r.work)
	if err != nil {
		if r.work.Err() == nil {
			r.agent.tell(err)
		}
		return
	}
	if session.Host.UID != r.session.Host.UID || session.Epoch != r.session.Epoch {
		r.quit(errOver)
	}
	r.session = session
}
