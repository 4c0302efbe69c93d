// SPDX-License-Identifier: Apache-2.0

package bmc

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// Bounds on what one BMC may make us hold. They are far above what real BMCs answer on the resources that are read here.
const (
	maxBody     = 1 << 20 // bytes of one answer
	maxHeader   = 64 << 10
	maxDepth    = 64   // nesting of one answer
	maxElements = 1024 // elements of one array: each member of a collection becomes a request
	maxRequests = 2000 // requests of one call
	inFlight    = 2    // requests at a time
	// patience is for callers without a deadline.
	patience = time.Minute
)

// Dialer opens connections; net.Dialer's DialContext is one.
type Dialer func(ctx context.Context, network, address string) (net.Conn, error)

// wire is the one way to one BMC: no proxy, no redirect, no other machine, no compression (a small answer must not grow
// large), no certificate but the pinned one.
type wire struct {
	address Address
	client  *http.Client
	slots   chan struct{}
}

func newWire(t Target) (*wire, error) {
	var secure *tls.Config
	if !t.Address.Plain {
		if len(t.Pin) != sha256.Size*2 {
			return nil, errNoPin
		}
		secure = pinned(t.Pin)
	}
	dial := t.Dialer
	if dial == nil {
		dial = (&net.Dialer{KeepAlive: 30 * time.Second}).DialContext
	}
	authority := t.Address.Authority()
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if address != authority {
				return nil, fmt.Errorf("%w: %s", errForeign, printable(address))
			}
			return dial(ctx, network, address)
		},
		TLSClientConfig:        secure,
		TLSHandshakeTimeout:    20 * time.Second,
		MaxConnsPerHost:        inFlight,
		MaxIdleConnsPerHost:    1,
		IdleConnTimeout:        20 * time.Second,
		MaxResponseHeaderBytes: maxHeader,
		DisableCompression:     true,
	}
	w := &wire{address: t.Address, slots: make(chan struct{}, inFlight)}
	w.client = &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return w, nil
}

// pinned accepts one leaf certificate and no other. Names, dates and issuers are not looked at: BMCs have them wrong from
// the factory, and the pin says more. The check runs inside the handshake, before any byte of a request is sent.
func pinned(pin string) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection below is the verification
		VerifyConnection: func(s tls.ConnectionState) error {
			if shown := fingerprint(s.PeerCertificates[0]); !strings.EqualFold(shown, pin) {
				return &PinChangedError{Pinned: strings.ToLower(pin), Shown: shown}
			}
			return nil
		},
	}
}

func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// send sends one request to the BMC and reads its whole answer. The answer's Body is in memory and need not be closed.
func (w *wire) send(req *http.Request) (*http.Response, error) {
	if u := req.URL; u.Scheme != w.address.scheme() || u.Host != w.address.Authority() || u.User != nil {
		return nil, fmt.Errorf("%w: %s", errForeign, printable(u.Host))
	}
	ctx := req.Context()
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	select {
	case w.slots <- struct{}{}:
		defer func() { <-w.slots }()
	case <-ctx.Done():
		return nil, network(req.Context(), ctx.Err())
	}
	resp, err := w.client.Do(req.WithContext(ctx))
	if err != nil {
		return nil, network(req.Context(), err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return nil, network(req.Context(), fmt.Errorf("reading answer: %w", err))
	}
	// net/http may hand out what came while it gave up, such as the empty answer of a service that saw us leave.
	if err := ctx.Err(); err != nil {
		return nil, network(req.Context(), err)
	}
	if len(body) > maxBody {
		return nil, fmt.Errorf("%w: %s is larger than %d bytes", errExcess, printable(req.URL.Path), maxBody)
	}
	if err := bounded(body); err != nil {
		return nil, fmt.Errorf("reading %s: %w", printable(req.URL.Path), err)
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	resp.ContentLength = int64(len(body))
	return resp, nil
}

func (w *wire) close() { w.client.CloseIdleConnections() }

// bounded walks over JSON without building it, and refuses what nests too deeply or lists too much: the libraries above
// start one goroutine for each member of a collection.
func bounded(body []byte) error {
	var elements []int // commas met in each open array or object
	quoted, escaped := false, false
	for _, c := range body {
		switch {
		case escaped:
			escaped = false
		case quoted:
			escaped, quoted = c == '\\', c != '"'
		case c == '"':
			quoted = true
		case c == '{' || c == '[':
			if len(elements) == maxDepth {
				return fmt.Errorf("%w: more than %d levels", errExcess, maxDepth)
			}
			elements = append(elements, 1)
		case len(elements) == 0:
		case c == '}' || c == ']':
			elements = elements[:len(elements)-1]
		case c == ',':
			elements[len(elements)-1]++
			if elements[len(elements)-1] > maxElements {
				return fmt.Errorf("%w: more than %d elements", errExcess, maxElements)
			}
		}
	}
	return nil
}

// printable makes text that came from a BMC fit for a log line or a condition.
func printable(s string) string {
	const most = 200
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0xfffd || r >= 0x80 && r < 0xa0 || r >= 0x2028 && r <= 0x202e {
			return ' '
		}
		return r
	}, strings.TrimSpace(strings.ToValidUTF8(s, " ")))
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "..."
	}
	return s
}
