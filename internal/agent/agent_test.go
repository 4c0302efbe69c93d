// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"metald.io/metald/api/v1alpha1"
)

// script is a daemon that answers by a function, and counts.
type script struct {
	hello  func() error
	epoch  func() int64
	report func(token string, r v1alpha1.Report) error
	next   func(n int) (v1alpha1.Order, error)
	done   func(v1alpha1.Done) error
	// doneBy is done with the session's token.
	doneBy func(token string, d v1alpha1.Done) error

	hellos, nexts int
	dones         []v1alpha1.Done
	reports       []v1alpha1.Report
}

func (s *script) Hello(context.Context, v1alpha1.Hello) (v1alpha1.Challenge, error) {
	s.hellos++
	if s.hello != nil {
		return v1alpha1.Challenge{ID: "c"}, s.hello()
	}
	return v1alpha1.Challenge{ID: "c"}, nil
}

func (s *script) Prove(context.Context, v1alpha1.Proof) (v1alpha1.Session, error) {
	session := v1alpha1.Session{Token: fmt.Sprintf("t%d", s.hellos), Host: v1alpha1.HostRef{Name: "r1n01", UID: "uid-1"}, Epoch: 3}
	if s.epoch != nil {
		session.Epoch = s.epoch()
	}
	return session, nil
}

func (s *script) Next(ctx context.Context, token string, _ v1alpha1.Message) (v1alpha1.Order, error) {
	s.nexts++
	return s.next(s.nexts)
}

func (s *script) Report(_ context.Context, token string, r v1alpha1.Report) error {
	s.reports = append(s.reports, r)
	if s.report != nil {
		return s.report(token, r)
	}
	return nil
}

func (s *script) Done(_ context.Context, token string, d v1alpha1.Done) error {
	s.dones = append(s.dones, d)
	if s.doneBy != nil {
		return s.doneBy(token, d)
	}
	if s.done != nil {
		return s.done(d)
	}
	return nil
}

// metal is a machine without a TPM.
type metal struct {
	facts func() *v1alpha1.HostFacts
	join  func(context.Context) error
	off   int

	install func(context.Context, func(v1alpha1.StepProgress)) (bool, error)
	erase   func(context.Context, func(v1alpha1.StepProgress)) ([]v1alpha1.DriveErasure, error)
}

func (m *metal) Install(ctx context.Context, _ v1alpha1.InstallPlan, p func(v1alpha1.StepProgress)) (bool, error) {
	return m.install(ctx, p)
}

func (m *metal) Erase(ctx context.Context, _ v1alpha1.ErasePlan, p func(v1alpha1.StepProgress)) ([]v1alpha1.DriveErasure, error) {
	return m.erase(ctx, p)
}

func (m *metal) Hello() v1alpha1.Hello                               { return v1alpha1.Hello{MACs: []string{"52:54:00:00:00:01"}} }
func (m *metal) TPM() (TPM, error)                                   { return nil, nil }
func (m *metal) PowerOff() error                                     { m.off++; return nil }
func (m *metal) Facts(context.Context) *v1alpha1.HostFacts           { return m.facts() }
func (m *metal) Join(ctx context.Context, _ v1alpha1.JoinSeed) error { return m.join(ctx) }

func order(step string) v1alpha1.Order {
	o := v1alpha1.Order{Message: v1alpha1.Message{Step: step}}
	if step == v1alpha1.JoinStep {
		o.Join = &v1alpha1.JoinSeed{NodeName: "r1n01"}
	}
	if step == v1alpha1.InstallStep {
		o.Install = &v1alpha1.InstallPlan{ID: "0b5e"}
	}
	if step == v1alpha1.EraseStep {
		o.Erase = &v1alpha1.ErasePlan{Mode: v1alpha1.EraseFull}
	}
	return o
}

// run runs an agent in fake time for as long as it likes, at most d.
func run(t *testing.T, s *script, m *metal, d time.Duration) (err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		a := Agent{Daemon: s, Machine: m, Console: NewConsole(io.Discard), Mode: v1alpha1.RamdiskMode, Version: "v0"}
		err = a.Run(ctx)
	})
	return err
}

var errAway = errors.New("connection refused")

func refused(status int, reason string) error {
	return &RefusedError{Status: status, AgentError: v1alpha1.AgentError{Reason: reason}}
}

func TestAgentNeverGivesUp(t *testing.T) {
	for name, err := range map[string]error{
		"daemon away": errAway, "unknown machine": refused(404, "UnknownMachine"), "another TPM": refused(403, "TPMChanged"), "busy": refused(429, "Busy"),
	} {
		s := &script{hello: func() error { return err }}
		if got := run(t, s, &metal{}, time.Hour); !errors.Is(got, context.DeadlineExceeded) {
			t.Errorf("%s: ended with %v", name, got)
		}
		// Pauses double from 1 to 30 seconds, each cut to between half and all of it: 120 to 250 tries an hour.
		if s.hellos < 110 || s.hellos > 260 {
			t.Errorf("%s: said hello %d times in an hour", name, s.hellos)
		}
	}
}

func TestAgentSaysHelloAgainWhenItsSessionIsOver(t *testing.T) {
	for name, over := range map[string]error{"restarted daemon": refused(401, "NoSession"), "another epoch": refused(409, "OldEpoch")} {
		s := &script{next: func(n int) (v1alpha1.Order, error) {
			if n == 1 {
				return v1alpha1.Order{}, over
			}
			return order(v1alpha1.PowerOffStep), nil
		}}
		m := &metal{}
		if err := run(t, s, m, time.Hour); err != nil || s.hellos != 2 || m.off != 1 {
			t.Errorf("%s: ended with %v after %d hellos, off %d times", name, err, s.hellos, m.off)
		}
	}
}

func TestAgentKeepsItsSessionWhileTheDaemonIsAway(t *testing.T) {
	s := &script{next: func(n int) (v1alpha1.Order, error) {
		if n < 20 {
			return v1alpha1.Order{}, errAway
		}
		return order(v1alpha1.PowerOffStep), nil
	}}
	if err := run(t, s, &metal{}, time.Hour); err != nil || s.hellos != 1 {
		t.Errorf("ended with %v after %d hellos, want 1", err, s.hellos)
	}
}

func TestAgentIsNoBusyLoop(t *testing.T) {
	s := &script{next: func(int) (v1alpha1.Order, error) { return order(v1alpha1.WaitStep), nil }}
	run(t, s, &metal{}, time.Minute)
	if s.nexts > 61 {
		t.Errorf("a daemon that answers wait at once was asked %d times a minute", s.nexts)
	}
	s = &script{next: func(int) (v1alpha1.Order, error) { return order("dance"), nil }}
	run(t, s, &metal{}, 10*time.Minute)
	if s.nexts > 50 {
		t.Errorf("a step that fails was tried %d times in 10 minutes", s.nexts)
	}
	s = &script{
		next: func(int) (v1alpha1.Order, error) { return order("dance"), nil },
		done: func(v1alpha1.Done) error { return refused(400, "BadRequest") },
	}
	run(t, s, &metal{}, 10*time.Minute)
	if s.hellos > 50 {
		t.Errorf("with a daemon that takes no end of a step it said hello %d times in 10 minutes", s.hellos)
	}
}

func TestSteps(t *testing.T) {
	fine := func() *v1alpha1.HostFacts { return &v1alpha1.HostFacts{Kernel: "6.1"} }
	for _, test := range []struct {
		name string
		step string
		m    *metal
		want v1alpha1.Done
	}{
		{"inspect", v1alpha1.InspectStep, &metal{facts: fine}, v1alpha1.Done{OK: true}},
		{"facts that panic", v1alpha1.InspectStep, &metal{facts: func() *v1alpha1.HostFacts { panic("odd firmware") }}, v1alpha1.Done{Text: "odd firmware"}},
		{"join", v1alpha1.JoinStep, &metal{join: func(context.Context) error { return nil }}, v1alpha1.Done{OK: true}},
		{"join that fails", v1alpha1.JoinStep, &metal{join: func(context.Context) error { return errors.New("no kubelet") }}, v1alpha1.Done{Text: "no kubelet"}},
		{"join that hangs", v1alpha1.JoinStep, &metal{join: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}, v1alpha1.Done{Text: "deadline exceeded"}},
		{"a step of a later version", "dance", &metal{}, v1alpha1.Done{Text: `does not know the step "dance"`}},
	} {
		s := &script{next: func(n int) (v1alpha1.Order, error) {
			if n == 1 {
				return order(test.step), nil
			}
			return order(v1alpha1.PowerOffStep), nil
		}}
		if err := run(t, s, test.m, time.Hour); err != nil {
			t.Errorf("%s: ended with %v", test.name, err)
			continue
		}
		got := s.dones[0]
		want := v1alpha1.Message{HostUID: "uid-1", Epoch: 3, Step: test.step}
		if diff := cmp.Diff(want, got.Message); diff != "" || got.OK != test.want.OK || !strings.Contains(got.Text, test.want.Text) {
			t.Errorf("%s: got %+v, want %+v %s", test.name, got, test.want, diff)
		}
		if reports := len(s.reports); (reports == 1) != (test.step == v1alpha1.InspectStep && got.OK) {
			t.Errorf("%s: %d reports", test.name, reports)
		}
	}
}

func TestDoneIsSentUntilItIsTaken(t *testing.T) {
	tries := 0
	s := &script{
		next: func(int) (v1alpha1.Order, error) { return order(v1alpha1.PowerOffStep), nil },
		done: func(v1alpha1.Done) error {
			if tries++; tries < 5 {
				return errAway
			}
			return nil
		},
	}
	m := &metal{}
	if err := run(t, s, m, time.Hour); err != nil || tries != 5 || m.off != 1 {
		t.Errorf("ended with %v after %d tries, off %d times", err, tries, m.off)
	}
}

func TestRefuse(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer func(n int) error
		want   int
		err    bool
	}{
		{"taken", func(int) error { return nil }, 1, false},
		{"daemon away at first", func(n int) error {
			if n < 3 {
				return errAway
			}
			return nil
		}, 3, false},
		{"old epoch at first", func(n int) error {
			if n < 2 {
				return refused(409, "OldEpoch")
			}
			return nil
		}, 2, false},
		{"not wanted", func(int) error { return refused(400, "BadRequest") }, 1, true},
	} {
		n := 0
		s := &script{done: func(d v1alpha1.Done) error {
			n++
			if d.OK || d.Step != v1alpha1.RefuseStep || d.Text != "digest differs" {
				t.Errorf("%s: got %+v", test.name, d)
			}
			return test.answer(n)
		}}
		synctest.Test(t, func(t *testing.T) {
			a := Agent{Daemon: s, Machine: &metal{}, Console: NewConsole(io.Discard), Mode: v1alpha1.InitrdMode}
			if err := a.Refuse(t.Context(), "digest differs"); (err != nil) != test.err {
				t.Errorf("%s: got %v", test.name, err)
			}
		})
		if n != test.want {
			t.Errorf("%s: sent %d times, want %d", test.name, n, test.want)
		}
	}
}
