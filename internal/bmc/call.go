// SPDX-License-Identifier: Apache-2.0

package bmc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/stmcginnis/gofish/common"
)

// call is a wire bound to one context and to the session's token. To gofish it is the client of its objects; to bmclib,
// whose client knows neither contexts nor limits, it is the transport: neither library ever holds the password.
type call struct {
	ctx  context.Context
	wire *wire
	// token is the session's; empty before the login.
	token string
	// password is only looked for in what the BMC says, to be taken out of it.
	password Secret
	requests atomic.Int32

	mu  sync.Mutex
	err error // the first error that was no answer of the BMC
}

var (
	_ common.Client     = (*call)(nil)
	_ http.RoundTripper = (*call)(nil)
)

// RoundTrip sends a request of bmclib's client, with our context and our token instead of its own.
func (c *call) RoundTrip(req *http.Request) (*http.Response, error) {
	return c.send(req.Clone(c.ctx))
}

func (c *call) send(req *http.Request) (*http.Response, error) {
	resp, err := c.sendOne(req)
	if err == nil && req.Method == http.MethodGet && resp.StatusCode/100 == 2 {
		err = c.whole(resp)
	}
	if err != nil {
		return nil, c.note(err)
	}
	return resp, nil
}

// sendOne sends one request, counted, in the session.
func (c *call) sendOne(req *http.Request) (*http.Response, error) {
	if c.requests.Add(1) > maxRequests {
		return nil, fmt.Errorf("%w: more than %d resources", errExcess, maxRequests)
	}
	req.Close = false // gofish asks for one connection a request
	req.Header.Del("Connection")
	if c.token != "" {
		req.Header.Set("X-Auth-Token", c.token)
	}
	return c.wire.send(req)
}

// note keeps the first failure of the network: bmclib swallows errors, and half an inventory must not pass for a whole one.
func (c *call) note(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
	return err
}

func (c *call) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// do sends one request and turns a status that is no success into a StatusError.
func (c *call) do(method, path string, payload any, headers map[string]string) (*http.Response, error) {
	to, err := c.resolve(path)
	if err != nil {
		return nil, c.note(err)
	}
	var body []byte
	if payload != nil {
		if body, err = json.Marshal(payload); err != nil {
			return nil, fmt.Errorf("encoding request: %w", err)
		}
	}
	req, err := http.NewRequestWithContext(c.ctx, method, to.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("making request: %w", err)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("OData-Version", "4.0")
	req.Header.Set("User-Agent", "metald")
	if payload != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for k, v := range headers {
		req.Header.Set(k, v)
	}
	if method != http.MethodPost {
		// BMCs close idle connections early. This tells net/http that it may send again what a closing connection
		// swallowed; with no value it is not sent.
		req.Header["X-Idempotency-Key"] = nil
	}
	resp, err := c.send(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		return nil, c.refusal(req, resp)
	}
	return resp, nil
}

// resolve makes a URL of a link that the BMC gave. It must be a path: concatenating would let a link such as "@elsewhere/"
// choose the host.
func (c *call) resolve(link string) (*url.URL, error) {
	base, err := url.Parse(c.wire.address.URL())
	if err != nil {
		return nil, fmt.Errorf("parsing address: %w", err)
	}
	u, err := url.Parse(link)
	if err != nil {
		return nil, fmt.Errorf("%w: %s is no URL", errForeign, printable(link))
	}
	to := base.ResolveReference(u)
	if to.Scheme != base.Scheme || to.Host != base.Host || to.User != nil || !strings.HasPrefix(to.Path, "/") {
		return nil, fmt.Errorf("%w: %s", errForeign, printable(link))
	}
	return to, nil
}

func (c *call) refusal(req *http.Request, resp *http.Response) error {
	e := &StatusError{Method: req.Method, Path: printable(req.URL.Path), Status: resp.StatusCode}
	var body struct {
		Error struct {
			Code     string
			Message  string
			Extended []struct{ MessageID, Message string } `json:"@Message.ExtendedInfo"`
		}
	}
	raw, _ := io.ReadAll(resp.Body) // it is in memory
	if json.Unmarshal(raw, &body) == nil {
		e.MessageID, e.Message = body.Error.Code, body.Error.Message
		if x := body.Error.Extended; len(x) > 0 {
			e.MessageID, e.Message = x[0].MessageID, x[0].Message
		}
	}
	if p := c.password.Reveal(); p != "" {
		e.Message = strings.ReplaceAll(e.Message, p, redacted)
		e.MessageID = strings.ReplaceAll(e.MessageID, p, redacted)
	}
	e.MessageID, e.Message = printable(e.MessageID), printable(e.Message)
	return e
}

// read reads a resource into each of the given values.
func (c *call) read(path string, into ...any) (http.Header, error) {
	resp, err := c.do(http.MethodGet, path, nil, nil)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", printable(path), err)
	}
	for _, v := range into {
		if err := json.Unmarshal(raw, v); err != nil {
			return nil, fmt.Errorf("decoding %s: %w", printable(path), err)
		}
	}
	return resp.Header, nil
}

// Get and its siblings are what gofish calls.
func (c *call) Get(path string) (*http.Response, error) { return c.do(http.MethodGet, path, nil, nil) }

// GetWithHeaders is Get with headers.
func (c *call) GetWithHeaders(path string, headers map[string]string) (*http.Response, error) {
	return c.do(http.MethodGet, path, nil, headers)
}

// Post sends JSON.
func (c *call) Post(path string, payload any) (*http.Response, error) {
	return c.do(http.MethodPost, path, payload, nil)
}

// PostWithHeaders is Post with headers.
func (c *call) PostWithHeaders(path string, payload any, headers map[string]string) (*http.Response, error) {
	return c.do(http.MethodPost, path, payload, headers)
}

var errMultipart = errors.New("uploading files is not offered")

// PostMultipart is refused: nothing here uploads.
func (c *call) PostMultipart(string, map[string]io.Reader) (*http.Response, error) {
	return nil, errMultipart
}

// PostMultipartWithHeaders is refused: nothing here uploads.
func (c *call) PostMultipartWithHeaders(string, map[string]io.Reader, map[string]string) (*http.Response, error) {
	return nil, errMultipart
}

// Patch sends JSON.
func (c *call) Patch(path string, payload any) (*http.Response, error) {
	return c.do(http.MethodPatch, path, payload, nil)
}

// PatchWithHeaders is Patch with headers.
func (c *call) PatchWithHeaders(path string, payload any, headers map[string]string) (*http.Response, error) {
	return c.do(http.MethodPatch, path, payload, headers)
}

// Put sends JSON.
func (c *call) Put(path string, payload any) (*http.Response, error) {
	return c.do(http.MethodPut, path, payload, nil)
}

// PutWithHeaders is Put with headers.
func (c *call) PutWithHeaders(path string, payload any, headers map[string]string) (*http.Response, error) {
	return c.do(http.MethodPut, path, payload, headers)
}

// Delete deletes a resource.
func (c *call) Delete(path string) (*http.Response, error) {
	return c.do(http.MethodDelete, path, nil, nil)
}

// DeleteWithHeaders is Delete with headers.
func (c *call) DeleteWithHeaders(path string, headers map[string]string) (*http.Response, error) {
	return c.do(http.MethodDelete, path, nil, headers)
}
