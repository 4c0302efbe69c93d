// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"sync"
	"time"

	"metald.io/metald/api/v1alpha1"
)

const (
	// challengeLife is how long a machine may take to open its credential. A slow discrete TPM needs a few seconds.
	challengeLife = 60 * time.Second
	// maxChallenges bounds the table; the oldest goes first.
	maxChallenges = 4096
	// sessionLife ends a session even when its agent stays: it says hello again.
	sessionLife = 24 * time.Hour
)

// pending is a challenge that waits for its proof.
type pending struct {
	hello  v1alpha1.Hello
	host   Identified
	secret []byte // nil where the proof is by position
	until  time.Time
}

// challenges holds what was asked of machines. Each is good once.
type challenges struct {
	mu    sync.Mutex
	open  map[string]pending
	order []string // by age; may name challenges that were taken
}

func newChallenges() *challenges { return &challenges{open: make(map[string]pending)} }

// put remembers a challenge and names it.
func (c *challenges) put(p pending) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for len(c.order) > 0 {
		oldest, found := c.open[c.order[0]]
		if found && oldest.until.After(now) && len(c.order) < maxChallenges {
			break
		}
		delete(c.open, c.order[0])
		c.order = c.order[1:]
	}
	id := token()
	p.until = now.Add(challengeLife)
	c.open[id] = p
	c.order = append(c.order, id)
	return id
}

// take ends a challenge, whether the secret is right or not, and says whether it was. A name that is not known, or no
// longer, is found false.
func (c *challenges) take(id string, secret []byte) (p pending, right, found bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, found = c.open[id]
	delete(c.open, id)
	if !found || time.Now().After(p.until) {
		return pending{}, false, false
	}
	return p, subtle.ConstantTimeCompare(secret, p.secret) == 1, true
}

// live is a session and what the door keeps beside it.
type live struct {
	Session
	until time.Time
	// end stops the long poll that waits for this session: there is at most one, and the newest wins, since an older one
	// has most likely lost its connection.
	end context.CancelFunc
}

// sessions holds the proved agents, one a host: who proves anew replaces what was before. Only a token's hash is kept.
type sessions struct {
	mu      sync.Mutex
	byToken map[[sha256.Size]byte]*live
	byHost  map[string][sha256.Size]byte // by UID
}

func newSessions() *sessions {
	return &sessions{byToken: make(map[[sha256.Size]byte]*live), byHost: make(map[string][sha256.Size]byte)}
}

// open starts a session and returns its token.
func (s *sessions) open(session Session) (string, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropLocked(session.Host.UID)
	secret := token()
	hash := sha256.Sum256([]byte(secret))
	until := time.Now().Add(sessionLife)
	s.byToken[hash] = &live{Session: session, until: until}
	s.byHost[session.Host.UID] = hash
	return secret, until
}

// find is the session with this token.
func (s *sessions) find(secret string) (Session, bool) {
	hash := sha256.Sum256([]byte(secret))
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.byToken[hash]
	if l == nil {
		return Session{}, false
	}
	if time.Now().After(l.until) {
		s.dropLocked(l.Host.UID)
		return Session{}, false
	}
	return l.Session, true
}

// poll makes the context of a session's long poll, and ends the one before it.
func (s *sessions) poll(ctx context.Context, secret string, most time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, most)
	hash := sha256.Sum256([]byte(secret))
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.byToken[hash]; l != nil {
		if l.end != nil {
			l.end()
		}
		l.end = cancel
	} else {
		cancel() // replaced just now
	}
	return ctx, cancel
}

// drop ends the session of a host, if it has one.
func (s *sessions) drop(uid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropLocked(uid)
}

func (s *sessions) dropLocked(uid string) {
	hash, found := s.byHost[uid]
	if !found {
		return
	}
	if l := s.byToken[hash]; l != nil && l.end != nil {
		l.end()
	}
	delete(s.byToken, hash)
	delete(s.byHost, uid)
}

// token is 256 random bits as text.
func token() string {
	var random [32]byte
	_, _ = rand.Read(random[:]) // never fails since Go 1.24
	return base64.RawURLEncoding.EncodeToString(random[:])
}
