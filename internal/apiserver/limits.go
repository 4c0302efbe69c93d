// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	genericapiserver "k8s.io/apiserver/pkg/server"
)

// Limits bound what clients may ask at the same time. A field that is 0 has its default.
type Limits struct {
	// Requests and Watches are of all clients together, RequestsPerClient and WatchesPerClient of one.
	Requests, RequestsPerClient int
	Watches, WatchesPerClient   int
	// Body is how large a request may be, in bytes.
	Body int64
	// Timeout is how long a request may take that is no watch.
	Timeout time.Duration
}

func (l Limits) complete() Limits {
	l.Requests, l.RequestsPerClient = cmp.Or(l.Requests, 400), cmp.Or(l.RequestsPerClient, 96)
	l.Watches, l.WatchesPerClient = cmp.Or(l.Watches, 10_000), cmp.Or(l.WatchesPerClient, 1_000)
	l.Body, l.Timeout = cmp.Or(l.Body, 3<<20), cmp.Or(l.Timeout, time.Minute)
	return l
}

// tryAgain is what a client that asks too much is told to wait, in seconds.
const tryAgain = 1

// limit bounds requests before anything else is done for them: reading who a client is costs more than refusing it. It is
// fairness between clients by seats, not by rate: a client that is alone has all the speed there is, and one that floods
// fills its own seats only. The library's priority and fairness would queue by user and level; it lets system:masters, whom
// most of our clients are, pass without any bound, and its levels are kinds that would have to be stored and served.
func limit(c *genericapiserver.Config, limits Limits) {
	limits = limits.complete()
	c.MaxRequestBodyBytes, c.RequestTimeout = limits.Body, limits.Timeout
	// The library counts as well, after it knows the user, and lets administrators pass; ours is the one that binds.
	c.MaxRequestsInFlight, c.MaxMutatingRequestsInFlight = limits.Requests, limits.Requests
	inner, own := c.BuildHandlerChainFunc, "Bearer "+c.LoopbackClientConfig.BearerToken
	c.BuildHandlerChainFunc = func(handler http.Handler, c *genericapiserver.Config) http.Handler {
		return &limiter{
			next: inner(handler, c), own: own,
			requests: seats{total: limits.Requests, each: limits.RequestsPerClient, taken: map[string]int{}},
			watches:  seats{total: limits.Watches, each: limits.WatchesPerClient, taken: map[string]int{}},
		}
	}
}

type limiter struct {
	next              http.Handler
	own               string // what the process itself authorizes with
	requests, watches seats
}

// unlimited paths are how others see whether the daemon lives.
var unlimited = []string{"/livez", "/readyz", "/healthz"}

// ServeHTTP implements http.Handler.
func (l *limiter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if slices.Contains(unlimited, r.URL.Path) || subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte(l.own)) == 1 {
		l.next.ServeHTTP(w, r)
		return
	}
	from, what := &l.requests, "requests"
	if isWatch(r) {
		from, what = &l.watches, "watches"
	}
	client := clientOf(r)
	if !from.take(client) {
		tooMany(w, what)
		return
	}
	defer from.free(client)
	l.next.ServeHTTP(w, r)
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

// tooMany is the refusal that clients of Kubernetes know to wait and to try again after.
func tooMany(w http.ResponseWriter, what string) {
	body, err := json.Marshal(metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure,
		Code: http.StatusTooManyRequests, Reason: metav1.StatusReasonTooManyRequests,
		Message: "too many " + what + " at the same time: try again in a moment",
		Details: &metav1.StatusDetails{RetryAfterSeconds: tryAgain},
	})
	if err != nil {
		body = []byte("too many " + what)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Retry-After", "1")
	w.WriteHeader(http.StatusTooManyRequests)
	_, _ = w.Write(body) // a client that has gone is no trouble
}
