// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"testing"
	"time"

	"metald.io/metald/api/v1alpha1"
)

// writing takes d to write a disk, and says each second how far it is.
func writing(d time.Duration, times *int) func(context.Context, func(v1alpha1.StepProgress)) (bool, error) {
	return func(ctx context.Context, progress func(v1alpha1.StepProgress)) (bool, error) {
		*times++
		for at := time.Duration(0); at < d; at += time.Second {
			progress(v1alpha1.StepProgress{Doing: "writing", Done: int64(at), Total: int64(d)})
			if !sleep(ctx, time.Second) {
				return false, context.Cause(ctx)
			}
		}
		return false, nil
	}
}

// orders gives an order until its Done is taken, and then switches off.
func (s *script) orders(step string, taken *bool) {
	s.next = func(int) (v1alpha1.Order, error) {
		if *taken {
			return order(v1alpha1.PowerOffStep), nil
		}
		return order(step), nil
	}
}

func TestProgressIsReported(t *testing.T) {
	times, taken := 0, false
	s := &script{report: func(string, v1alpha1.Report) error { return errAway }} // a lost report is no failure
	s.orders(v1alpha1.InstallStep, &taken)
	s.done = func(v1alpha1.Done) error { taken = true; return nil }
	if err := run(t, s, &metal{install: writing(10*time.Minute, &times)}, time.Hour); err != nil {
		t.Fatal(err)
	}
	if n := len(s.reports); n < 10 || n > 121 {
		t.Errorf("10 minutes of work brought %d reports, want one a minute to one in 5 seconds", n)
	}
	for _, r := range s.reports {
		if r.Step != v1alpha1.InstallStep || r.Progress == nil || r.Facts != nil || r.Progress.Doing != "writing" {
			t.Fatalf("got the report %+v", r)
		}
	}
	if !s.dones[0].OK || times != 1 {
		t.Errorf("ended with %+v after %d times", s.dones[0], times)
	}
}

func TestProgressThatStandsStill(t *testing.T) {
	taken := false
	s := &script{done: func(v1alpha1.Done) error { taken = true; return nil }}
	s.orders(v1alpha1.EraseStep, &taken)
	m := &metal{erase: func(ctx context.Context, progress func(v1alpha1.StepProgress)) ([]v1alpha1.DriveErasure, error) {
		for range 600 {
			progress(v1alpha1.StepProgress{Doing: "ata-secure-erase of sda"})
			sleep(ctx, time.Second)
		}
		return []v1alpha1.DriveErasure{{Name: "sda", Error: "it is dead"}}, errors.New("sda: it is dead")
	}}
	if err := run(t, s, m, time.Hour); err != nil {
		t.Fatal(err)
	}
	if n := len(s.reports); n < 10 || n > 21 {
		t.Errorf("10 minutes at the same place brought %d reports, want one a minute to one in 30 seconds", n)
	}
	if got := s.dones[0]; got.OK || got.Text != "sda: it is dead" || len(got.Erased) != 1 {
		t.Errorf("got %+v, want a failure that has its records", got)
	}
}

// A daemon that is restarted while a machine works, or just when it ends, must not make it work twice.
func TestLongStepIsDoneOnceABoot(t *testing.T) {
	for _, test := range []struct {
		name string
		// What the daemon answers in the session with this token.
		report, done func(token string) error
		fails        bool
		want         int // times that the work is done
		hellos       int
	}{
		{name: "nothing happens", want: 1, hellos: 1},
		{name: "restarted during the work", report: func(token string) error {
			if token == "t1" {
				return refused(401, "NoSession")
			}
			return nil
		}, done: func(token string) error {
			if token == "t1" {
				return refused(401, "NoSession")
			}
			return nil
		}, want: 1, hellos: 2},
		{name: "restarted just at its end", done: func(token string) error {
			if token == "t1" || token == "t2" {
				return refused(401, "NoSession")
			}
			return nil
		}, want: 1, hellos: 3},
		{name: "failed, and asked again after the daemon has heard it", fails: true, want: 2, hellos: 1},
	} {
		times, taken := 0, false
		s := &script{}
		s.orders(v1alpha1.InstallStep, &taken)
		if test.report != nil {
			s.report = func(token string, _ v1alpha1.Report) error { return test.report(token) }
		}
		write := writing(time.Minute, &times)
		m := &metal{install: func(ctx context.Context, p func(v1alpha1.StepProgress)) (bool, error) {
			if there, err := write(ctx, p); err != nil || !test.fails || times > 1 {
				return there, err
			}
			return false, errors.New("write error")
		}}
		s.doneBy = func(token string, d v1alpha1.Done) error {
			if d.Step != v1alpha1.InstallStep {
				return nil
			}
			if test.done != nil {
				if err := test.done(token); err != nil {
					return err
				}
			}
			taken = d.OK
			return nil
		}
		if err := run(t, s, m, time.Hour); err != nil || !taken || times != test.want || s.hellos != test.hellos {
			t.Errorf("%s: ended with %v, taken %t, worked %d times, want %d, %d hellos, want %d",
				test.name, err, taken, times, test.want, s.hellos, test.hellos)
		}
	}
}

// What a new epoch asks for is another work, even if it is the same plan.
func TestLongStepEndsWithItsEpoch(t *testing.T) {
	for _, answer := range []error{refused(409, "OldEpoch"), refused(401, "NoSession")} {
		times, taken := 0, false
		s := &script{}
		s.epoch = func() int64 { return int64(2 + s.hellos) }
		s.orders(v1alpha1.InstallStep, &taken)
		s.report = func(token string, r v1alpha1.Report) error {
			if r.Epoch == 3 {
				return answer
			}
			return nil
		}
		s.doneBy = func(token string, d v1alpha1.Done) error {
			if d.Epoch == 3 && d.Step == v1alpha1.InstallStep {
				t.Errorf("%v: the end of a step of an old epoch was told: %+v", answer, d)
			}
			taken = d.Step == v1alpha1.InstallStep && d.OK
			return nil
		}
		var first error
		write := writing(time.Hour, &times)
		m := &metal{install: func(ctx context.Context, p func(v1alpha1.StepProgress)) (bool, error) {
			if times > 0 {
				times++
				return true, nil
			}
			_, first = write(ctx, p)
			return false, first
		}}
		if err := run(t, s, m, 2*time.Hour); err != nil || !errors.Is(first, errOver) || times != 2 || !s.dones[0].AlreadyThere {
			t.Errorf("%v: ended with %v; the work ended with %v, and was done %d times: %+v", answer, err, first, times, s.dones)
		}
	}
}

func TestDisksAreTheRamdisksAlone(t *testing.T) {
	a := Agent{Mode: v1alpha1.OSMode, Machine: &metal{}}
	for _, step := range []string{v1alpha1.InstallStep, v1alpha1.EraseStep} {
		if _, err := a.step(t.Context(), v1alpha1.Session{}, order(step), nil); err == nil {
			t.Errorf("mode os took the step %s", step)
		}
		a := Agent{Mode: v1alpha1.RamdiskMode, Machine: &metal{}}
		if _, err := a.step(t.Context(), v1alpha1.Session{}, v1alpha1.Order{Message: v1alpha1.Message{Step: step}}, nil); err == nil {
			t.Errorf("the step %s was done without a plan", step)
		}
	}
}
