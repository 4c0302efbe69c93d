// SPDX-License-Identifier: Apache-2.0

package diskless

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// Fetch's patience with a server that is away or slow.
const (
	fetchPause = time.Second
	// fetchStall is how long a connection may give no byte at all before it is opened anew.
	fetchStall = 30 * time.Second
)

// StatusError is an answer that is neither the file nor a part of it.
type StatusError struct {
	URL    string
	Status string
	Code   int
}

func (e *StatusError) Error() string { return fmt.Sprintf("%s answers %s", e.URL, e.Status) }

// Fetch gets the root into the file at path by GET base/boot/SHA256/root.img, and checks its length and digest while it
// streams. A connection that breaks, stalls or is refused is taken up again where it ended, until ctx ends: a daemon may
// restart meanwhile. A wrong length or digest is a *MismatchError; a client error (4xx) is a *StatusError; both are final.
// progress may be nil; it is told the bytes so far, often.
func Fetch(ctx context.Context, client *http.Client, base string, root Root, path string, progress func(done int64)) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o400)
	if err != nil {
		return fmt.Errorf("making the root file: %w", err)
	}
	defer f.Close()
	if progress == nil {
		progress = func(int64) {}
	}
	get := &download{
		client: client, url: strings.TrimSuffix(base, "/") + "/boot/" + root.SHA256 + "/root.img",
		root: root, file: f, digest: newDigester(), progress: progress,
	}
	finished := false
	defer func() {
		if !finished {
			get.digest.finish()
		}
	}()
	for get.done < root.SizeBytes {
		err := get.some(ctx)
		var status *StatusError
		var wrong *MismatchError
		switch {
		case err == nil:
		case errors.As(err, &wrong), errors.As(err, &status) && status.Code/100 == 4, get.fileErr != nil:
			return err
		default:
			select {
			case <-ctx.Done():
				return fmt.Errorf("fetching the root: %w (last: %w)", context.Cause(ctx), err)
			case <-time.After(fetchPause):
			}
		}
	}
	finished = true
	if got := get.digest.finish(); got != root.SHA256 {
		return &MismatchError{What: "SHA-256 of the root", Got: got, Want: root.SHA256}
	}
	return f.Close()
}

type download struct {
	client   *http.Client
	url      string
	root     Root
	file     *os.File
	fileErr  error
	digest   *digester
	done     int64
	progress func(int64)
}

// some reads as much as one connection gives.
func (d *download) some(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(fetchStall, func() { cancel(fmt.Errorf("no byte for %s", fetchStall)) })
	defer stall.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url, nil)
	if err != nil {
		return fmt.Errorf("fetching the root: %w", err)
	}
	if d.done > 0 {
		req.Header.Set("Range", "bytes="+strconv.FormatInt(d.done, 10)+"-")
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return fmt.Errorf("fetching the root: %w", err)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusPartialContent && d.done > 0:
		if want := fmt.Sprintf("bytes %d-", d.done); !strings.HasPrefix(resp.Header.Get("Content-Range"), want) {
			return fmt.Errorf("fetching the root: asked for %s and got %q", want, resp.Header.Get("Content-Range"))
		}
	case resp.StatusCode == http.StatusOK:
		if resp.ContentLength >= 0 && resp.ContentLength != d.root.SizeBytes {
			return &MismatchError{
				What: "length of the root", Got: strconv.FormatInt(resp.ContentLength, 10), Want: strconv.FormatInt(d.root.SizeBytes, 10),
			}
		}
		if err := d.restart(); err != nil {
			return err
		}
	default:
		return fmt.Errorf("fetching the root: %w", &StatusError{URL: d.url, Status: resp.Status, Code: resp.StatusCode})
	}
	return d.copy(resp.Body, stall)
}

// restart forgets what came so far: this connection starts at the first byte.
func (d *download) restart() error {
	if d.done == 0 {
		return nil
	}
	d.done = 0
	d.digest.finish()
	d.digest = newDigester()
	if d.fileErr = d.file.Truncate(0); d.fileErr == nil {
		_, d.fileErr = d.file.Seek(0, io.SeekStart)
	}
	return d.fileErr
}

func (d *download) copy(body io.Reader, stall *time.Timer) error {
	for {
		buf := d.digest.buffer()
		n, err := body.Read(buf)
		d.digest.take(buf[:n])
		if n > 0 {
			stall.Reset(fetchStall)
			if d.done+int64(n) > d.root.SizeBytes {
				return &MismatchError{What: "length of the root", Got: "more", Want: strconv.FormatInt(d.root.SizeBytes, 10)}
			}
			if _, d.fileErr = d.file.Write(buf[:n]); d.fileErr != nil {
				return fmt.Errorf("writing the root file: %w", d.fileErr)
			}
			d.done += int64(n)
			d.progress(d.done)
		}
		switch {
		case errors.Is(err, io.EOF) && d.done < d.root.SizeBytes:
			return fmt.Errorf("fetching the root: %w", io.ErrUnexpectedEOF)
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("fetching the root: %w", err)
		}
	}
}
