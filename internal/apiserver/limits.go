// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	genericapiserver "k8s.io/apiserver/pkg/server"
)

// Limits bound what clients may ask at the same time. A field that is 0 has its default.
type Limits struct {
	// Requests and Watches are of all clients together, RequestsPerClient and WatchesPerClient of one; those that wait for
	// their turn count.
	Requests, RequestsPerClient int
	Watches, WatchesPerClient   int
	// Seats are what priority and fairness shares between levels and users: a request takes one while it is worked on, a
	// long list up to ten.
	Seats int
	// Body is how large a request may be, in bytes.
	Body int64
	// Timeout is how long a request may take that is no watch.
	Timeout time.Duration
}

func (l Limits) complete() Limits {
	l.Requests, l.RequestsPerClient = cmp.Or(l.Requests, 400), cmp.Or(l.RequestsPerClient, 96)
	l.Watches, l.WatchesPerClient = cmp.Or(l.Watches, 10_000), cmp.Or(l.WatchesPerClient, 1_000)
	l.Seats = cmp.Or(l.Seats, 160)
	l.Body, l.Timeout = cmp.Or(l.Body, 3<<20), cmp.Or(l.Timeout, time.Minute)
	return l
}

// tryAgain is what a client that asks too much is told to wait, in seconds.
const tryAgain = 1

const (
	// refusalAfter is how long a refusal takes at least, refusalEach how far apart they are. A refusal takes some 40 µs of a
	// core with all that belongs to it, so that they take a sixth of one core at most.
	refusalAfter = 5 * time.Millisecond
	refusalEach  = time.Second / 4_000
)

// limit bounds requests before anything else is done for them: reading who a client is costs more than refusing it. There is
// no limit on the rate: a client that is alone has all the speed there is, and one that floods fills its own places only.
// Behind it, the library's priority and fairness shares what was let in between levels and users; see fair.
func limit(c *genericapiserver.Config, limits Limits) {
	limits = limits.complete()
	c.MaxRequestBodyBytes, c.RequestTimeout = limits.Body, limits.Timeout
	c.MaxRequestsInFlight, c.MaxMutatingRequestsInFlight = limits.Seats-limits.Seats/3, limits.Seats/3
	inner, own := c.BuildHandlerChainFunc, "Bearer "+c.LoopbackClientConfig.BearerToken
	c.BuildHandlerChainFunc = func(handler http.Handler, c *genericapiserver.Config) http.Handler {
		return &limiter{
			next: inner(handler, c), own: own, patience: limits.Timeout,
			requests: newLine(limits.Requests, limits.RequestsPerClient, newLateness().late),
			watches:  seats{total: limits.Watches, each: limits.WatchesPerClient, taken: map[string]int{}},
		}
	}
}

type limiter struct {
	next     http.Handler
	own      string // what the process itself authorizes with
	patience time.Duration
	requests *line
	watches  seats
	refusals pace
}

// unlimited paths are how others see whether the daemon lives.
var unlimited = []string{"/livez", "/readyz", "/healthz"}

// ServeHTTP implements http.Handler.
func (l *limiter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if slices.Contains(unlimited, r.URL.Path) || subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte(l.own)) == 1 {
		l.next.ServeHTTP(w, r)
		return
	}
	client := clientOf(r)
	if isWatch(r) {
		if !l.watches.take(client) {
			l.refuse(w, r, tooManyWatches)
			return
		}
		defer l.watches.free(client)
		l.next.ServeHTTP(w, r)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), l.patience)
	lasts := turn
	if changes(r.Method) {
		lasts = writeTurn
	}
	leave, err := l.requests.enter(ctx, client, lasts)
	cancel()
	if err != nil {
		l.refuse(w, r, tooManyRequests)
		return
	}
	defer leave()
	l.next.ServeHTTP(w, r)
}

// refuse answers in its own time: a connection on which thousands of requests are here already would keep a core busy with
// their refusals, and all of them together keep to a rate that leaves the core to others.
func (l *limiter) refuse(w http.ResponseWriter, r *http.Request, body []byte) {
	select {
	case <-time.After(l.refusals.next(time.Now())):
		tooMany(w, body)
	case <-r.Context().Done():
	}
}

// pace gives out moments one after the other.
type pace struct {
	mutex sync.Mutex
	last  time.Time
}

// next is how long it is until the next moment, at most the time after which a client may try again.
func (p *pace) next(now time.Time) time.Duration {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	soonest, latest := now.Add(refusalAfter), now.Add(tryAgain*time.Second)
	switch p.last = p.last.Add(refusalEach); {
	case p.last.Before(soonest):
		p.last = soonest
	case p.last.After(latest):
		p.last = latest
	}
	return p.last.Sub(now)
}

// isWatch tells requests that are meant to last, as the library does.
func isWatch(r *http.Request) bool {
	if r.Method != http.MethodGet {
		return false
	}
	if strings.Contains(r.URL.Path, "/watch/") {
		return true
	}
	if !strings.Contains(r.URL.RawQuery, "watch=") {
		return false
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	return err == nil && (query.Get("watch") == "true" || query.Get("watch") == "1")
}

// clientOf tells clients apart by what they show: a certificate, a token, or nothing but an address. Whether it is worth
// anything is found out later.
func clientOf(r *http.Request) string {
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		sum := sha256.Sum256(r.TLS.PeerCertificates[0].Raw)
		return "certificate " + string(sum[:])
	}
	if token := r.Header.Get("Authorization"); token != "" {
		sum := sha256.Sum256([]byte(token))
		return "token " + string(sum[:])
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	return "address " + host
}

// seats are what is being done at the moment. A client has an entry only while it has a seat, so there are never more
// entries than seats.
type seats struct {
	mutex       sync.Mutex
	total, each int
	all         int
	taken       map[string]int
}

func (s *seats) take(client string) bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.all >= s.total || s.taken[client] >= s.each {
		return false
	}
	s.all++
	s.taken[client]++
	return true
}

func (s *seats) free(client string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.all--
	if s.taken[client]--; s.taken[client] == 0 {
		delete(s.taken, client)
	}
}

var (
	tooManyRequests = tryAgainBody("requests")
	tooManyWatches  = tryAgainBody("watches")
)

// tryAgainBody is what a refusal says. It is made once: the one whom it is said to asks thousands of times a second.
func tryAgainBody(what string) []byte {
	body, err := json.Marshal(metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure,
		Code: http.StatusTooManyRequests, Reason: metav1.StatusReasonTooManyRequests,
		Message: "too many " + what + " at the same time: try again in a moment",
		Details: &metav1.StatusDetails{RetryAfterSeconds: tryAgain},
	})
	if err != nil {
		panic(err) // only another type can bring one
	}
	return body
}

// tooMany is the refusal that clients of Kubernetes know to wait and to try again after.
func tooMany(w http.ResponseWriter, body []byte) {
	w.Header()["Content-Type"] = jsonType
	w.Header()["Retry-After"] = tryAgainSeconds
	w.WriteHeader(http.StatusTooManyRequests)
	_, _ = w.Write(body) // a client that has gone is no trouble
}

var (
	jsonType        = []string{"application/json"}
	tryAgainSeconds = []string{strconv.Itoa(tryAgain)}
)
