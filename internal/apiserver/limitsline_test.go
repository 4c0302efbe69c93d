// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// enter is a request that must be let in.
func (l *line) mustEnter(t *testing.T, client string) (leave func()) {
	t.Helper()
	leave, err := l.enter(t.Context(), client, turn)
	if err != nil {
		t.Fatalf("a request of %s: got %v, want it let in", client, err)
	}
	return leave
}

// untold is a machine that nothing is known of.
func untold() (time.Duration, bool) { return 0, false }

// oneTurn is a line in which one request is worked on at a time.
func oneTurn(total, each int) *line {
	l := newLine(total, each, untold)
	l.turns, l.thought = 1, time.Now().Add(time.Hour)
	l.flooded = l.thought
	return l
}

// TestNobodyFloods has many ask at once, who all begin; then one of them does not heed its refusals, and turns count.
func TestNobodyFloods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const each = 8
		l := newLine(100, each, untold)
		l.turns, l.thought = 1, time.Now().Add(time.Hour)
		for range each {
			l.mustEnter(t, "a")
			l.mustEnter(t, "b")
		}
		if l.begun != 2*each {
			t.Errorf("while nobody floods: got %d that began, want all %d", l.begun, 2*each)
		}
		for range heedRefusals*each + 1 {
			if _, err := l.enter(t.Context(), "a", turn); !errors.Is(err, errTooMany) {
				t.Fatalf("past its places: got %v, want %v", err, errTooMany)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), turn/2)
		defer cancel()
		if _, err := l.enter(ctx, "c", turn); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("in a flood, all turns taken: got %v, want to wait", err)
		}
	})
}

// TestClientsTakeTurns has one client ask five times before another asks once.
func TestClientsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := oneTurn(100, 100)
		leave := l.mustEnter(t, "busy")
		var got []string
		for _, client := range strings.Fields("busy busy busy busy other") {
			go func() {
				leave := l.mustEnter(t, client)
				got = append(got, client)
				leave()
			}()
			synctest.Wait()
		}
		leave()
		synctest.Wait()
		time.Sleep(time.Second)
		if want := strings.Fields("busy other busy busy busy"); !slices.Equal(got, want) {
			t.Errorf("the order: got %v, want %v", got, want)
		}
		if len(l.guests) != 0 || l.all != 0 || l.begun != 0 {
			t.Errorf("afterwards: got %d clients, %d requests, %d turns taken; want none", len(l.guests), l.all, l.begun)
		}
	})
}

// TestSlowRequestLetsOthersBegin has a request wait for its client for ever.
func TestSlowRequestLetsOthersBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := oneTurn(100, 2)
		start := time.Now()
		leave := l.mustEnter(t, "slow")
		l.mustEnter(t, "other")()
		if took := time.Since(start); took < turn || took > 2*turn {
			t.Errorf("the other waited %s, want a turn of %s", took, turn)
		}
		leave2 := l.mustEnter(t, "slow")
		if _, err := l.enter(t.Context(), "slow", turn); !errors.Is(err, errTooMany) {
			t.Errorf("a third request in two places: got %v, want %v", err, errTooMany)
		}
		leave()
		leave2()
		l.mustEnter(t, "slow")()
	})
}

// TestAllPlaces fills the line with clients of one request each.
func TestAllPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(2, 2, untold)
		l.turns = 2
		leave := l.mustEnter(t, "a")
		defer l.mustEnter(t, "b")()
		if _, err := l.enter(t.Context(), "c", turn); !errors.Is(err, errTooMany) {
			t.Errorf("got %v, want %v", err, errTooMany)
		}
		leave()
		l.mustEnter(t, "c")()
	})
}

// TestGivenUpInLine ends requests while they wait.
func TestGivenUpInLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := oneTurn(100, 100)
		leave := l.mustEnter(t, "a")
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 2)
		for _, client := range []string{"a", "b"} {
			go func() {
				_, err := l.enter(ctx, client, turn)
				ended <- err
			}()
		}
		synctest.Wait()
		cancel()
		for range 2 {
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want %v", err, context.Canceled)
			}
		}
		leave()
		if len(l.guests) != 0 || len(l.order) != 0 || l.begun != 0 {
			t.Errorf("afterwards: got %d clients, %d that wait, %d turns taken; want none", len(l.guests), len(l.order), l.begun)
		}
		l.mustEnter(t, "a")()
	})
}

// flood keeps a client at its limit for a time, each request taking each, and counts.
func (l *line) flood(ctx context.Context, client string, each time.Duration) (served, refused int) {
	for ctx.Err() == nil {
		leave, err := l.enter(ctx, client, turn)
		if errors.Is(err, errTooMany) {
			refused++
			time.Sleep(time.Millisecond)
			continue
		}
		if err == nil {
			served++
			time.Sleep(each)
			leave()
		}
	}
	return served, refused
}

// TestHeedlessClientRests has one client ask on and on although it is refused, and another ask in as many ways at once as it
// may have places.
func TestHeedlessClientRests(t *testing.T) {
	for name, test := range map[string]struct {
		clients  int // that ask at the same time
		min, max int // served of at most 1,000
	}{
		"as many as it has places": {8, 950, 1000},
		"twice as many":            {16, 60, 300},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := oneTurn(100, 8)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				served := make(chan int)
				for range test.clients {
					go func() {
						n, _ := l.flood(ctx, "flood", time.Millisecond)
						served <- n
					}()
				}
				total := 0
				for range test.clients {
					total += <-served
				}
				if total < test.min || total > test.max {
					t.Errorf("served: got %d, want %d to %d", total, test.min, test.max)
				}
				time.Sleep(3 * heedWithin)
				start := time.Now()
				for range 10 {
					l.mustEnter(t, "flood")()
				}
				if took := time.Since(start); took > 0 {
					t.Errorf("after it heeded: ten requests waited %s, want nothing", took)
				}
			})
		})
	}
}

// TestManyWhoHeed counts refusals of all that are behind one certificate: ten times as many as have places may come again each
// second, as they are told to.
func TestManyWhoHeed(t *testing.T) {
	const each = 8
	g, now := &guest{}, time.Now()
	for second := range 5 {
		for n := range heedRefusals * each / 2 {
			if g.refuse(now.Add(time.Duration(second)*(heedWithin+time.Millisecond) + time.Duration(n)*time.Millisecond)); !g.heeds(g.since, each) {
				t.Fatalf("second %d: heedless after %d refusals of ten times %d", second, n+1, each)
			}
		}
	}
	for range heedRefusals * each {
		g.refuse(g.since)
	}
	if g.heeds(g.since, each) {
		t.Error("twice as many refusals, and it heeds")
	}
	if !g.heeds(g.since.Add(2*heedWithin+1), each) {
		t.Error("it is held against it for longer than two seconds")
	}
}

// TestTurnsFollowTheCores tells the line that the cores have time, and then that they have none.
func TestTurnsFollowTheCores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := time.Duration(0)
		l := newLine(50, 50, func() (time.Duration, bool) { return late, true })
		l.flooded = time.Now().Add(time.Hour)
		work := func() {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			done := make(chan bool)
			for range 50 {
				go func() {
					l.flood(ctx, "writer", turn)
					done <- true
				}()
			}
			for range 50 {
				<-done
			}
		}
		work()
		if l.turns < 40 {
			t.Errorf("with time to spare: got %d turns, want one for nearly each of 50 that wait", l.turns)
		}
		late = 10 * time.Millisecond
		work()
		if want := runtime.GOMAXPROCS(0); l.turns != want {
			t.Errorf("with none: got %d turns, want %d, one a core", l.turns, want)
		}
	})
}

// TestRefusalsKeepTheirDistance asks for many at once, and for one long after.
func TestRefusalsKeepTheirDistance(t *testing.T) {
	var p pace
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for n, want := range []time.Duration{refusalAfter, refusalAfter + refusalEach, refusalAfter + 2*refusalEach} {
		if got := p.next(now); got != want {
			t.Errorf("refusal %d: got %s, want %s", n, got, want)
		}
	}
	for range 100_000 {
		p.next(now)
	}
	if got := p.next(now); got != tryAgain*time.Second {
		t.Errorf("after very many: got %s, want %ds", got, tryAgain)
	}
	if got := p.next(now.Add(2 * tryAgain * time.Second)); got != refusalAfter {
		t.Errorf("a moment later: got %s, want %s", got, refusalAfter)
	}
}

// TestLateness makes goroutines wait for a core.
func TestLateness(t *testing.T) {
	l := newLateness()
	done := make(chan bool)
	for range 50 * runtime.GOMAXPROCS(0) {
		go func() {
			for start := time.Now(); time.Since(start) < 2*time.Millisecond; {
			}
			done <- true
		}()
	}
	for range 50 * runtime.GOMAXPROCS(0) {
		<-done
	}
	if late, ok := l.late(); !ok || late < time.Millisecond {
		t.Errorf("fifty for each core, of two milliseconds each: got %s, %t; want more than 1ms", late, ok)
	}
}
