// SPDX-License-Identifier: Apache-2.0

// Package fetch reads a file over HTTP as one stream, however often the connection breaks, and digests it on the way. It
// must not know what the bytes are or where they go: the diskless start and the writing of disks both read by it.
//
// Start reading at Open, then Reader.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// A Reader's patience with a server that is away or slow.
const (
	pause = time.Second
	// stall is how long a connection may give no byte at all before it is opened anew.
	stall = 30 * time.Second
)

// StatusError is an answer that is neither the file nor a part of it.
type StatusError struct {
	URL    string
	Status string
	Code   int
}

func (e *StatusError) Error() string { return fmt.Sprintf("%s answers %s", e.URL, e.Status) }

// final says whether asking again is of no use.
func (e *StatusError) final() bool {
	switch e.Code {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	}
	return e.Code/100 == 4
}

// LengthError is a file that is longer or shorter than was promised.
type LengthError struct {
	URL       string
	Got, Want int64
}

func (e *LengthError) Error() string {
	return fmt.Sprintf("%s has %d bytes, want %d", e.URL, e.Got, e.Want)
}

// ChangedError is a file that became another one while it was read.
type ChangedError struct{ URL string }

func (e *ChangedError) Error() string { return e.URL + " changed while it was being read" }

// File is one to be read.
type File struct {
	Client *http.Client
	URL    string
	// Size in bytes that the file must have, 0 where it is not known.
	Size int64
	// Patience is how long no byte may come before reading fails; 0 is until the context ends.
	Patience time.Duration
}

// Shown is a URL as it may be shown to people: without the password and the query, where signatures and tokens are.
func Shown(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "a URL that cannot be read"
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}

// Reader is the file's bytes in order. A connection that breaks, stalls or is refused is taken up again where it ended. Its
// errors are final: *StatusError of a client error (4xx), *LengthError, *ChangedError, or patience and context at an end.
type Reader struct {
	File
	ctx    context.Context
	done   int64
	size   int64 // -1 where nobody knows
	tag    string
	fed    time.Time
	body   io.ReadCloser
	stall  *time.Timer
	cancel context.CancelCauseFunc
}

// Open waits until the server gives the file's first answer.
func Open(ctx context.Context, file File) (*Reader, error) {
	r := &Reader{File: file, ctx: ctx, size: -1, fed: time.Now()}
	if file.Size > 0 {
		r.size = file.Size
	}
	if err := r.connect(); err != nil {
		return nil, err
	}
	return r, nil
}

// Length is the file's size in bytes, or -1 where neither the caller nor the server has said it.
func (r *Reader) Length() int64 { return r.size }

// Read gives the next bytes, and io.EOF when the file is whole.
func (r *Reader) Read(p []byte) (int, error) {
	for {
		if r.size >= 0 && r.done == r.size {
			return 0, io.EOF
		}
		if r.body == nil {
			if err := r.connect(); err != nil {
				return 0, err
			}
		}
		n, err := r.body.Read(p)
		if n > 0 {
			r.stall.Reset(stall)
			r.fed = time.Now()
			r.done += int64(n)
			if r.size >= 0 && r.done > r.size {
				return 0, &LengthError{URL: Shown(r.URL), Got: r.done, Want: r.size}
			}
			return n, nil // an error comes again with the next call
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF) && r.size < 0:
			return 0, io.EOF
		default:
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			r.drop()
			if err := r.wait(err); err != nil {
				return 0, err
			}
		}
	}
}

// Close ends the transfer.
func (r *Reader) Close() error {
	r.drop()
	return nil
}

func (r *Reader) drop() {
	if r.body != nil {
		r.stall.Stop()
		r.cancel(nil)
		_ = r.body.Close() // only read from
		r.body = nil
	}
}

// wait lets some time pass after a failure, unless the time is over.
func (r *Reader) wait(last error) error {
	if r.Patience > 0 && time.Since(r.fed) > r.Patience {
		return fmt.Errorf("fetching %s: no byte for %s: %w", Shown(r.URL), r.Patience, last)
	}
	select {
	case <-r.ctx.Done():
		return fmt.Errorf("fetching %s: %w (last: %w)", Shown(r.URL), context.Cause(r.ctx), last)
	case <-time.After(pause):
		return nil
	}
}

// connect asks for the rest of the file until it gets it.
func (r *Reader) connect() error {
	for {
		err := r.ask()
		var status *StatusError
		var length *LengthError
		var changed *ChangedError
		switch {
		case err == nil:
			return nil
		case errors.As(err, &length), errors.As(err, &changed), errors.As(err, &status) && status.final():
			return err
		}
		if err := r.wait(err); err != nil {
			return err
		}
	}
}

func (r *Reader) ask() (err error) {
	ctx, cancel := context.WithCancelCause(r.ctx)
	timer := time.AfterFunc(stall, func() { cancel(fmt.Errorf("no byte for %s", stall)) })
	var resp *http.Response
	defer func() {
		if err != nil {
			timer.Stop()
			if resp != nil {
				_ = resp.Body.Close() // its answer is of no use
			}
			cancel(nil)
		}
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.URL, nil)
	if err != nil {
		return &StatusError{URL: Shown(r.URL), Status: "nothing: it is no URL", Code: http.StatusBadRequest}
	}
	req.Header.Set("Accept-Encoding", "identity") // the bytes as they lie there: a digest is of those
	if r.done > 0 {
		req.Header.Set("Range", "bytes="+strconv.FormatInt(r.done, 10)+"-")
		if r.tag != "" {
			req.Header.Set("If-Range", r.tag)
		}
	}
	if resp, err = r.Client.Do(req); err != nil {
		if outer, ok := errors.AsType[*url.Error](err); ok {
			err = outer.Err // it repeats the URL, with all that is in it
		}
		return err
	}
	if err := r.accept(resp, timer); err != nil {
		return err
	}
	r.body, r.stall, r.cancel = resp.Body, timer, cancel
	return nil
}

// accept looks at an answer and leaves its body at the next byte.
func (r *Reader) accept(resp *http.Response, timer *time.Timer) error {
	switch {
	case resp.StatusCode == http.StatusPartialContent && r.done > 0:
		if want := fmt.Sprintf("bytes %d-", r.done); !strings.HasPrefix(resp.Header.Get("Content-Range"), want) {
			return fmt.Errorf("asked for %s and got %q", want, resp.Header.Get("Content-Range"))
		}
		return nil
	case resp.StatusCode != http.StatusOK:
		return &StatusError{URL: Shown(r.URL), Status: resp.Status, Code: resp.StatusCode}
	}
	tag := resp.Header.Get("ETag")
	if strings.HasPrefix(tag, "W/") {
		tag = "" // says nothing of single bytes
	}
	switch {
	case r.done > 0 && tag != "" && r.tag != "" && tag != r.tag:
		return &ChangedError{URL: Shown(r.URL)}
	case r.size >= 0 && resp.ContentLength >= 0 && resp.ContentLength != r.size:
		return &LengthError{URL: Shown(r.URL), Got: resp.ContentLength, Want: r.size}
	}
	if r.size < 0 && resp.ContentLength >= 0 {
		r.size = resp.ContentLength
	}
	r.tag = tag
	// A server without ranges begins again: what is known of it already is skipped. If it is not the same, the digest shows it.
	for skipped := int64(0); skipped < r.done; {
		n, err := io.CopyN(io.Discard, resp.Body, min(1<<20, r.done-skipped))
		if err != nil {
			return fmt.Errorf("skipping what was read before: %w", err)
		}
		timer.Reset(stall)
		skipped += n
	}
	return nil
}
