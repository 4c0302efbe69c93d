// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"metald.io/metald/api/v1alpha1"
)

const (
	// callFor bounds a call that the daemon answers at once; pollFor one that it may keep waiting for 30 seconds.
	callFor = 30 * time.Second
	pollFor = 45 * time.Second
	// maxAnswer bounds what the daemon may send: a seed with its certificates is a few KiB.
	maxAnswer = 1 << 20
)

// Client is the Daemon behind HTTPS.
type Client struct {
	base string
	http *http.Client
}

// NewClient makes a Daemon of the endpoint at base ("https://172.22.0.1:8443"). It believes what transport believes:
// that should be the site's CA and nothing else. It follows no redirect, for a token would go with it.
func NewClient(base string, transport http.RoundTripper) *Client {
	return &Client{
		base: strings.TrimSuffix(base, "/"),
		http: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Hello says who this machine claims to be.
func (c *Client) Hello(ctx context.Context, in v1alpha1.Hello) (out v1alpha1.Challenge, err error) {
	err = c.call(ctx, callFor, v1alpha1.HelloPath, "", in, &out)
	return out, err
}

// Prove answers a challenge.
func (c *Client) Prove(ctx context.Context, in v1alpha1.Proof) (out v1alpha1.Session, err error) {
	err = c.call(ctx, callFor, v1alpha1.ProvePath, "", in, &out)
	return out, err
}

// Next asks for an order.
func (c *Client) Next(ctx context.Context, token string, in v1alpha1.Message) (out v1alpha1.Order, err error) {
	err = c.call(ctx, pollFor, v1alpha1.NextPath, token, in, &out)
	return out, err
}

// Report sends facts.
func (c *Client) Report(ctx context.Context, token string, in v1alpha1.Report) error {
	return c.call(ctx, callFor, v1alpha1.ReportPath, token, in, &struct{}{})
}

// Done says how a step ended.
func (c *Client) Done(ctx context.Context, token string, in v1alpha1.Done) error {
	return c.call(ctx, callFor, v1alpha1.DonePath, token, in, &struct{}{})
}

func (c *Client) call(ctx context.Context, most time.Duration, path, token string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encoding the request: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("making the request: %w", err)
	}
	request.Header.Set("Content-Type", "application/json")
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return err // an *url.Error: it names the address and says what failed
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("reading the answer of %s: %w", c.base, err)
	}
	if response.StatusCode != http.StatusOK {
		refused := &RefusedError{Status: response.StatusCode}
		if json.Unmarshal(answer, &refused.AgentError) != nil || refused.Reason == "" {
			refused.Reason, refused.Message = "Unexpected", "the daemon answered "+response.Status
		}
		return refused
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("decoding the answer of %s: %w", c.base, err)
	}
	return nil
}
