// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"metald.io/metald/api/v1alpha1"
)

const (
	// maxBody bounds a request: an inspection of the largest machine is well below it.
	maxBody = 1 << 20
	// bodyWithin is how long a machine may take to send its request.
	bodyWithin = 20 * time.Second
)

// Reasons beside those that v1alpha1.AgentError lists: the agent tries again later.
const (
	reasonBusy     = "Busy"
	reasonInternal = "Internal"
)

// statusOf gives each reason its HTTP status. A reason that is not here was given by the Registrar: it is a refusal.
var statusOf = map[string]int{
	"BadRequest":     http.StatusBadRequest,
	"NoSession":      http.StatusUnauthorized,
	"UnknownMachine": http.StatusNotFound,
	"OldEpoch":       http.StatusConflict,
	reasonBusy:       http.StatusTooManyRequests,
	reasonInternal:   http.StatusInternalServerError,
}

// refusal is an answer that is not 200.
type refusal struct {
	v1alpha1.AgentError
}

func (r *refusal) Error() string { return r.Reason + ": " + r.Message }

// refuse makes a refusal with one of the wire's reasons.
func refuse(reason, format string, args ...any) error {
	return &refusal{v1alpha1.AgentError{Reason: reason, Message: fmt.Sprintf(format, args...)}}
}

// answer makes an HTTP handler of a function from a request to an answer.
func answer[In, Out any](d *Desk, handle func(*http.Request, netip.Addr, In) (Out, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		from := remote(r)
		var in In
		// A recorder in a test has no deadlines to set, which is no reason to refuse.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyWithin))
		err := decode(w, r, &in)
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
		var out Out
		if err == nil {
			out, err = handle(r, from, in)
		}
		if err != nil {
			d.fail(w, r, from, err)
			return
		}
		write(w, http.StatusOK, out)
	}
}

// fail writes an AgentError. What went wrong inside the daemon is logged, and not told to a machine.
func (d *Desk) fail(w http.ResponseWriter, r *http.Request, from netip.Addr, err error) {
	var refused *refusal
	if !errors.As(err, &refused) {
		if r.Context().Err() == nil {
			d.logger.Error("agent's request failed", "path", r.URL.Path, "ip", from, "err", err)
		}
		refused = &refusal{v1alpha1.AgentError{Reason: reasonInternal, Message: "the daemon could not answer; its log says why"}}
	}
	status, found := statusOf[refused.Reason]
	if !found {
		status = http.StatusForbidden
	}
	if status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "5")
	}
	write(w, status, refused.AgentError)
}

func write(w http.ResponseWriter, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil { // our own types always encode
		status, text = http.StatusInternalServerError, []byte(`{"reason":"Internal","message":"encoding the answer"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // the agent is gone: nobody is left to tell
}

// decode reads one JSON object, of a bounded size and with no field that this version does not know.
func decode(w http.ResponseWriter, r *http.Request, into any) error {
	if kind := r.Header.Get("Content-Type"); !strings.HasPrefix(kind, "application/json") {
		return refuse("BadRequest", "content type %q is not application/json", clip(kind, 64))
	}
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return refuse("BadRequest", "the request is larger than %d bytes", large.Limit)
		}
		return refuse("BadRequest", "reading the request: %s", clip(err.Error(), 256))
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return refuse("BadRequest", "reading the request: something follows the JSON object")
	}
	return nil
}

// remote is the address that a request came from, without an IPv6 zone or an IPv4-in-IPv6 dress.
func remote(r *http.Request) netip.Addr {
	pair, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{} // a handler called in process; all of those share one limit
	}
	return pair.Addr().Unmap().WithZone("")
}

// clip bounds a text that came from a machine, and keeps it on one line without control characters.
func clip(text string, most int) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0xfffd {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, " "))
	for most < len(text) && most > 0 && text[most]&0xc0 == 0x80 {
		most-- // do not cut a rune in two
	}
	if len(text) > most {
		return strings.TrimSpace(text[:most])
	}
	return strings.TrimSpace(text)
}
