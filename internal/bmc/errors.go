// SPDX-License-Identifier: Apache-2.0

package bmc

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// Errors on which control flow turns. They are wrapped: use errors.Is.
var (
	// ErrCredentials: the BMC refused the user or the password, or the account may not do this. Do not try again before a
	// person changed the credentials: BMCs lock accounts.
	ErrCredentials = errors.New("the BMC refused the credentials")
	// ErrNotSupported: this BMC, or this form of address, cannot do it. A retry cannot mend it.
	ErrNotSupported = errors.New("not supported")
	// ErrUnreachable: no answer in time, or no connection.
	ErrUnreachable = errors.New("the BMC is unreachable")
	// ErrBusy: the BMC answers, but not now: its session table is full, or it says so itself. Try again later.
	ErrBusy = errors.New("the BMC is busy")
	// ErrNotKept: the BMC reported success, and what it shows afterwards is not what was set.
	ErrNotKept = errors.New("the BMC did not keep what was set")
	// ErrClosed: the controller was used after Close.
	ErrClosed = errors.New("the connection to the BMC is closed")

	// errNoPin: TLS without a pin would show the password to whoever answers.
	errNoPin = errors.New("no certificate is pinned for this BMC")
	// errForeign: a link that the BMC gave leads to another machine. It is not followed.
	errForeign = errors.New("the BMC's link leads to another machine")
	// errExcess: an answer, or the number of answers, is beyond what a BMC has to say.
	errExcess = errors.New("the BMC says too much")
)

// PinChangedError says that the BMC showed another certificate than the one that was pinned. Nothing was sent to it.
type PinChangedError struct {
	// Pinned and Shown are the sha256 of the leaf certificate (DER), in hex.
	Pinned string
	Shown  string
}

func (e *PinChangedError) Error() string {
	return fmt.Sprintf("the BMC's certificate changed: pinned %s, shown %s", e.Pinned, e.Shown)
}

// StatusError is an HTTP status that is not a success, with what the BMC says of it.
type StatusError struct {
	Method string
	Path   string
	Status int
	// MessageID is the Redfish message, as Base.1.18.SessionLimitExceeded; empty where the BMC gave none.
	MessageID string
	// Message is the BMC's own text, bounded and printable.
	Message string
}

func (e *StatusError) Error() string {
	text := fmt.Sprintf("%s %s: status %d", e.Method, e.Path, e.Status)
	if e.Message != "" {
		text += ": " + e.Message
	}
	return text
}

// Is matches the sentinel errors that the status stands for.
func (e *StatusError) Is(target error) bool {
	full := strings.HasSuffix(e.MessageID, ".SessionLimitExceeded")
	switch target {
	case ErrBusy:
		return full || e.Status == http.StatusTooManyRequests || e.Status >= http.StatusBadGateway && e.Status <= http.StatusGatewayTimeout
	case ErrCredentials:
		return !full && (e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden)
	case ErrNotSupported:
		return e.Status == http.StatusMethodNotAllowed || e.Status == http.StatusNotImplemented
	}
	return false
}

func status(err error) int {
	var s *StatusError
	if errors.As(err, &s) {
		return s.Status
	}
	return 0
}

// network says what an error of the HTTP client means.
func network(ctx context.Context, err error) error {
	var pin *PinChangedError
	switch {
	case errors.As(err, &pin):
		return pin
	case errors.Is(err, errForeign), errors.Is(err, errExcess), errors.Is(err, ErrClosed):
		return err
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err() // the caller gave up: that says nothing of the BMC
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}
