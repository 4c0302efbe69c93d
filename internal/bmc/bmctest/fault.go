// SPDX-License-Identifier: Apache-2.0

package bmctest

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Rule is a fault. The first part says which requests it meets, the second what the BMC then does. Effects may be joined;
// a rule with Hang or Status answers the request by itself, and the resource is not reached.
type Rule struct {
	// Method is the HTTP method; empty means any.
	Method string
	// Path is the path without a trailing slash; one that ends in "*" is a prefix; empty means any.
	Path string
	// Times is how many requests it meets before it goes; 0 means all.
	Times int

	// Delay is waited before anything else.
	Delay time.Duration
	// Hang never answers: it holds the request until the client gives up.
	Hang bool
	// Status, Header and Body are answered instead of the resource.
	Status int
	Header http.Header
	Body   []byte
	// Fill is written again and again until this many bytes were sent after Body (with Status).
	Fill int64

	// PowerState is what the system says instead of the truth.
	PowerState string
	// ForgetBoot answers a PATCH of Boot with success and keeps nothing.
	ForgetBoot bool
	// ForgetReset answers a reset with success and does nothing.
	ForgetReset bool
	// SessionsFull refuses every login as if the session table were full.
	SessionsFull bool
}

// Fault adds a rule, and returns what removes it. Rules are tried in the order in which they were added.
func (b *BMC) Fault(r Rule) (remove func()) {
	f := &rule{Rule: r}
	b.faults.add(f)
	return func() { b.faults.remove(f) }
}

type rule struct {
	Rule
	met int
}

// faults is the list of rules in force.
type faults struct {
	mu   sync.Mutex
	list []*rule
}

func (f *faults) add(r *rule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = append(f.list, r)
}

func (f *faults) remove(r *rule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = slices.DeleteFunc(f.list, func(x *rule) bool { return x == r })
}

func (r *Rule) meets(q *http.Request) bool {
	if r.Method != "" && r.Method != q.Method {
		return false
	}
	if prefix, ok := strings.CutSuffix(r.Path, "*"); ok {
		return strings.HasPrefix(q.URL.Path, prefix)
	}
	return r.Path == "" || r.Path == q.URL.Path
}

// take counts a request against the rules that it meets, and returns copies of them.
func (f *faults) take(q *http.Request) []Rule {
	f.mu.Lock()
	defer f.mu.Unlock()
	var met []Rule
	f.list = slices.DeleteFunc(f.list, func(r *rule) bool {
		if !r.meets(q) {
			return false
		}
		// A spent rule goes with the request after its last one, so that its effect lasts through that one.
		if r.Times > 0 && r.met == r.Times {
			return true
		}
		r.met++
		met = append(met, r.Rule)
		return false
	})
	return met
}

// effectKey carries the rules that a request met to the resource that it reaches.
type effectKey struct{}

// answered applies the rules that concern the transport, and says whether the request is done with.
func (f *faults) answered(w http.ResponseWriter, r *http.Request) bool {
	met := f.take(r)
	if len(met) == 0 {
		return false
	}
	*r = *r.WithContext(context.WithValue(r.Context(), effectKey{}, met))
	for _, rule := range met {
		if rule.Delay > 0 {
			select {
			case <-time.After(rule.Delay):
			case <-r.Context().Done():
				return true
			}
		}
		if rule.Hang {
			// The server notices that the client has gone only once the body is read.
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
			panic(http.ErrAbortHandler) // a plain return would answer 200 to a client that may still read
		}
		if rule.Status != 0 {
			rule.answer(w)
			return true
		}
	}
	return false
}

func (r *Rule) answer(w http.ResponseWriter) {
	for k, v := range r.Header {
		w.Header()[http.CanonicalHeaderKey(k)] = v
	}
	w.WriteHeader(r.Status)
	if _, err := w.Write(r.Body); err != nil {
		return
	}
	chunk := []byte(strings.Repeat("x", 32<<10))
	for left := r.Fill; left > 0; left -= int64(len(chunk)) {
		if _, err := w.Write(chunk[:min(left, int64(len(chunk)))]); err != nil {
			return
		}
	}
}

// effects are the rules that this request met.
func effects(ctx context.Context) []Rule {
	met, _ := ctx.Value(effectKey{}).([]Rule)
	return met
}

// effect says whether a rule that this request met has the effect.
func effect(ctx context.Context, has func(Rule) bool) bool {
	return slices.ContainsFunc(effects(ctx), has)
}
