// SPDX-License-Identifier: Apache-2.0

package bmctest

import (
	"crypto/rand"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// session is one row of the session table.
type session struct {
	id      string
	user    string
	token   string
	created time.Time
	used    time.Time
}

// sessionTable is limited, as it is in a BMC: clients that leak sessions lock themselves out.
type sessionTable struct {
	limit   int
	timeout time.Duration
	now     func() time.Time

	mu   sync.Mutex
	last int
	rows []*session
}

func newSessionTable(limit int, timeout time.Duration, now func() time.Time) *sessionTable {
	return &sessionTable{limit: limit, timeout: timeout, now: now}
}

// open adds a session, or returns nil where the table is full.
func (t *sessionTable) open(user string) *session {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire()
	if len(t.rows) >= t.limit {
		return nil
	}
	t.last++
	now := t.now()
	s := &session{id: strconv.Itoa(t.last), user: user, token: rand.Text(), created: now, used: now}
	t.rows = append(t.rows, s)
	return s
}

func (t *sessionTable) valid(token string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire()
	for _, s := range t.rows {
		if same(s.token, token) {
			s.used = t.now()
			return true
		}
	}
	return false
}

func (t *sessionTable) find(id string) *session {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire()
	for _, s := range t.rows {
		if s.id == id {
			return s
		}
	}
	return nil
}

func (t *sessionTable) close(id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(t.rows)
	t.rows = slices.DeleteFunc(t.rows, func(s *session) bool { return s.id == id })
	return len(t.rows) < n
}

func (t *sessionTable) clear() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows = nil
}

func (t *sessionTable) ids() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire()
	ids := make([]string, 0, len(t.rows))
	for _, s := range t.rows {
		ids = append(ids, s.id)
	}
	return ids
}

// expire drops idle sessions; the lock is held.
func (t *sessionTable) expire() {
	now := t.now()
	t.rows = slices.DeleteFunc(t.rows, func(s *session) bool { return now.Sub(s.used) > t.timeout })
}

// Sessions is how many sessions are open: after a well-behaved client, none.
func (b *BMC) Sessions() int { return len(b.table.ids()) }

// DropSessions ends all sessions, as a BMC does that restarts or whose password was changed.
func (b *BMC) DropSessions() { b.table.clear() }

// openSession is the login: POST to the sessions collection.
func (b *BMC) openSession(w http.ResponseWriter, r *http.Request) {
	var body struct {
		UserName string
		Password string
	}
	if !decode(w, r, &body) {
		return
	}
	if !b.known(body.UserName, body.Password) {
		fail(w, http.StatusUnauthorized, "ResourceAtUriUnauthorized",
			"While accessing the resource at '"+pathSessions+"', the service received an authorization error.")
		return
	}
	var s *session
	if !effect(r.Context(), func(f Rule) bool { return f.SessionsFull }) {
		s = b.table.open(body.UserName)
	}
	if s == nil {
		fail(w, http.StatusServiceUnavailable, "SessionLimitExceeded",
			"The session establishment failed due to the number of simultaneous sessions exceeding the limit of the implementation.")
		return
	}
	w.Header().Set("X-Auth-Token", s.token)
	w.Header().Set("Location", pathSessions+"/"+s.id)
	write(w, http.StatusCreated, b.session(s))
}

func (b *BMC) getSession(w http.ResponseWriter, r *http.Request) {
	s := b.table.find(r.PathValue("session"))
	if s == nil {
		missing(w, r)
		return
	}
	write(w, http.StatusOK, b.session(s))
}

func (b *BMC) closeSession(w http.ResponseWriter, r *http.Request) {
	if !b.table.close(r.PathValue("session")) {
		missing(w, r)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (b *BMC) session(s *session) object {
	return resource(pathSessions+"/"+s.id, "Session.v1_7_0.Session", "User Session", object{
		"UserName":    s.user,
		"Password":    nil,
		"SessionType": "Redfish",
		"CreatedTime": s.created.UTC().Format(time.RFC3339),
	})
}
