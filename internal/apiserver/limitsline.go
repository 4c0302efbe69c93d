// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"time"
)

const (
	// turn is how long a request counts as being worked on. What takes longer waits for its client, or is a long list, of which
	// priority and fairness lets few run: others need not wait for it. A write waits for the disk, the sooner the better, since
	// those that wait at the same time share one commit.
	turn      = 2 * time.Millisecond
	writeTurn = turn / 4
	// lineStep is how often the number of turns is thought over.
	lineStep = 20 * time.Millisecond
	// lineLate is how long something that could go on may wait for a core. All rooms share the cores, and DHCP's answers are
	// a millisecond's work: while this is exceeded, fewer requests are begun.
	lineLate = 500 * time.Microsecond
	// lookUp is for how long a core is left to others between two requests that had to wait.
	lookUp = 20 * time.Microsecond
	// restFor is how much longer than its requests took a client rests that does not heed refusals: a tenth of a core is left
	// to it, besides what refusing it costs.
	restFor = 9
	// heedlessShare of its places is left to such a client: what it gets to wait for would only be in the way of its refusals.
	heedlessShare = 16
	// heedWithin is the time in which a client may be refused heedRefusals times for each of its places. All that are behind
	// one certificate together may do ten times as much as there are places for, and if each waits for as long as it is told,
	// none of them is a flood.
	heedWithin   = tryAgain * time.Second
	heedRefusals = 10
)

// errTooMany is why a request does not get into the line.
var errTooMany = errors.New("too many requests")

// line lets requests begin, a few at a time: as many as keep the cores busy and no more, for what is begun too early waits
// for a core in a queue that knows no clients, together with everything else that the daemon does. Who has to wait stands
// in the line of its client, and the clients take turns.
type line struct {
	total, each int                          // how many may be here, of all clients and of one
	late        func() (time.Duration, bool) // how long others waited for a core since it was last called; false: too few to tell

	mutex   sync.Mutex
	guests  map[string]*guest // those that are here
	order   []*guest          // those that wait, the next first
	all     int
	begun   int // turns that are taken
	turns   int // how many there are
	thought time.Time
	scarce  bool      // somebody has waited since
	flooded time.Time // until then turns are counted: a client has not heeded its refusals
	rested  *time.Timer
}

// guest is a client with requests here.
type guest struct {
	here    int
	waiting []chan struct{} // each closed when its turn begins
	refused int             // since, for want of a place of its own
	since   time.Time
	rest    time.Time // none of its requests begins before
}

func newLine(total, each int, late func() (time.Duration, bool)) *line {
	l := &line{total: total, each: each, late: late, guests: map[string]*guest{}, turns: fewestTurns()}
	l.rested = time.AfterFunc(time.Hour, func() {
		l.mutex.Lock()
		defer l.mutex.Unlock()
		l.next()
	})
	l.rested.Stop()
	return l
}

// fewestTurns keeps each core busy.
func fewestTurns() int { return runtime.GOMAXPROCS(0) }

// enter waits for a turn of client, which lasts as long as its request does and no longer than turn. The caller leaves when its request has been answered, unless there is an error.
func (l *line) enter(ctx context.Context, client string, turn time.Duration) (leave func(), err error) {
	now := time.Now()
	l.mutex.Lock()
	g := l.guests[client]
	switch {
	case g != nil && g.here >= l.places(g, now):
		if g.refuse(now); !g.heeds(now, l.each) {
			l.flooded = now.Add(2 * heedWithin)
		}
		l.mutex.Unlock()
		return nil, errTooMany
	case l.all >= l.total:
		l.mutex.Unlock()
		return nil, errTooMany
	case g == nil:
		g = &guest{}
		l.guests[client] = g
	}
	g.here++
	l.all++
	l.think()
	if l.room(now) && len(l.order) == 0 && !now.Before(g.rest) {
		l.start(g, now)
		l.mutex.Unlock()
		return l.worked(client, g, turn), nil
	}
	l.scarce = true
	begin := make(chan struct{})
	if len(g.waiting) == 0 {
		l.order = append(l.order, g)
	}
	g.waiting = append(g.waiting, begin)
	l.next()
	l.mutex.Unlock()
	select {
	case <-begin:
		// Whoever is woken by what just ended runs next, and wakes the next when it ends: they would keep a core to themselves,
		// and a core that always has something to do looks at the network a hundred times a second only. In this moment it
		// does, and what has come there goes first.
		time.Sleep(lookUp)
		return l.worked(client, g, turn), nil
	case <-ctx.Done():
	}
	l.mutex.Lock()
	defer l.mutex.Unlock()
	select {
	case <-begin: // just now
		l.begun--
	default:
		g.waiting = slices.DeleteFunc(g.waiting, func(w chan struct{}) bool { return w == begin })
		if len(g.waiting) == 0 {
			l.order = slices.DeleteFunc(l.order, func(o *guest) bool { return o == g })
		}
	}
	l.gone(client, g)
	l.next()
	return nil, ctx.Err()
}

// worked is the end of a request that has begun; its turn ends before that if it takes long.
func (l *line) worked(client string, g *guest, turn time.Duration) (leave func()) {
	start, ended := time.Now(), false // ended: under the mutex
	end := func() {
		if !ended {
			ended = true
			l.begun--
			l.next()
		}
	}
	timer := time.AfterFunc(turn, func() {
		l.mutex.Lock()
		defer l.mutex.Unlock()
		end()
	})
	return func() {
		timer.Stop()
		now := time.Now()
		l.mutex.Lock()
		defer l.mutex.Unlock()
		if !g.heeds(now, l.each) {
			g.rest = now.Add(restFor * min(now.Sub(start), turn))
		}
		l.gone(client, g)
		l.think()
		end()
	}
}

// The rest is called with the mutex held.

// next begins what may begin.
func (l *line) next() {
	now := time.Now()
	soonest := time.Duration(-1)
	for tries := len(l.order); l.room(now) && tries > 0; tries-- {
		g := l.order[0]
		l.order = l.order[1:]
		if rest := g.rest.Sub(now); rest > 0 {
			l.order = append(l.order, g)
			if soonest < 0 || rest < soonest {
				soonest = rest
			}
			continue
		}
		begin := g.waiting[0]
		if g.waiting = g.waiting[1:]; len(g.waiting) > 0 {
			l.order = append(l.order, g)
			tries++
		}
		l.start(g, now)
		close(begin)
	}
	if soonest >= 0 {
		l.rested.Reset(soonest)
	}
}

// room tells whether one more may begin. While nobody floods all may that have a place: those who wait as they are told are
// few enough, and to be let in late costs them more than sharing the cores does.
func (l *line) room(now time.Time) bool { return l.begun < l.turns || now.After(l.flooded) }

// start takes a turn for a request of g.
func (l *line) start(g *guest, now time.Time) {
	l.begun++
	if !g.heeds(now, l.each) {
		g.rest = now.Add(restFor * turn) // one at a time: how long it really rests is known when that has ended
	}
}

// places is how many requests of a client may be here.
func (l *line) places(g *guest, now time.Time) int {
	if g.heeds(now, l.each) {
		return l.each
	}
	return max(l.each/heedlessShare, 1)
}

func (l *line) gone(client string, g *guest) {
	l.all--
	if g.here--; g.here == 0 {
		delete(l.guests, client)
	}
}

func (g *guest) refuse(now time.Time) {
	if now.Sub(g.since) > heedWithin {
		// One that came in large numbers a moment ago has to do better than merely not to be counted yet.
		g.refused /= 2
		g.since = now
	}
	g.refused++
}

// heeds tells whether the client waits when it is told to.
func (g *guest) heeds(now time.Time, each int) bool {
	return g.refused <= heedRefusals*each || now.Sub(g.since) > 2*heedWithin
}

// think has more requests begin while somebody waits and the cores have time, and fewer while they have none.
func (l *line) think() {
	now := time.Now()
	if now.Sub(l.thought) < lineStep {
		return
	}
	l.thought = now
	late, ok := l.late()
	switch {
	case ok && late > lineLate:
		l.turns = max(l.turns*3/4, fewestTurns())
	case l.scarce:
		l.turns = min(l.turns+max(l.turns/4, 1), l.total)
		l.next()
	}
	l.scarce = len(l.order) > 0
}
