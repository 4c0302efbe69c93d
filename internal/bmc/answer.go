// SPDX-License-Identifier: Apache-2.0

package bmc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

var errNoObject = errors.New("the BMC's answer is no JSON object")

// page is one page of a collection, decoded as gofish decodes it.
type page struct {
	ID      string            `json:"@odata.id"`
	Name    string            `json:"Name"`
	Members []json.RawMessage `json:"Members"`
	Next    string            `json:"Members@odata.nextLink"`
}

// whole makes the answer to a GET fit for gofish v0.20, which decodes members in goroutines of its own, where a panic ends
// the daemon. Two answers bring that about: "null" becomes a nil object whose methods it calls, and a collection in pages of
// which a later one fails makes it write one map from two goroutines. So an answer must be an object, and pages are read
// here and joined.
func (c *call) whole(resp *http.Response) error {
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("reading answer: %w", err)
	}
	where := printable(resp.Request.URL.Path)
	if !bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("{")) {
		return fmt.Errorf("reading %s: %w", where, errNoObject)
	}
	var all page
	if json.Unmarshal(body, &all) == nil && all.Next != "" {
		if body, err = c.join(all); err != nil {
			return fmt.Errorf("reading %s: %w", where, err)
		}
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	resp.ContentLength = int64(len(body))
	return nil
}

// join reads the pages after the first, and returns one collection.
func (c *call) join(all page) ([]byte, error) {
	for next := all.Next; next != ""; {
		to, err := c.resolve(next)
		if err != nil {
			return nil, err
		}
		req, err := http.NewRequestWithContext(c.ctx, http.MethodGet, to.String(), nil)
		if err != nil {
			return nil, fmt.Errorf("making request: %w", err)
		}
		req.Header.Set("Accept", "application/json")
		resp, err := c.sendOne(req)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusOK {
			return nil, c.refusal(req, resp)
		}
		var one page
		if err := json.NewDecoder(resp.Body).Decode(&one); err != nil {
			return nil, fmt.Errorf("decoding %s: %w", printable(next), err)
		}
		all.Members = append(all.Members, one.Members...)
		if len(all.Members) > maxElements {
			return nil, fmt.Errorf("%w: more than %d members", errExcess, maxElements)
		}
		next = one.Next
	}
	body, err := json.Marshal(map[string]any{
		"@odata.id": all.ID, "Name": all.Name, "Members": all.Members, "Members@odata.count": len(all.Members),
	})
	if err != nil {
		return nil, fmt.Errorf("joining pages: %w", err)
	}
	return body, nil
}
