// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// content has an odd length, so that its end is not a buffer's.
var content = bytes.Repeat([]byte("metald\x00"), 100_001)

func serve(b []byte, tag string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if tag != "" {
			w.Header().Set("ETag", tag)
		}
		http.ServeContent(w, r, "file", time.Time{}, bytes.NewReader(b))
	}
}

// breakAfter cuts the first connection after n bytes; next answers the others.
func breakAfter(n int, tag string, next http.HandlerFunc) http.HandlerFunc {
	var calls atomic.Int32
	return func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1) > 1 {
			next(w, r)
			return
		}
		w.Header().Set("ETag", tag)
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		_, _ = w.Write(content[:n])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
}

func TestRead(t *testing.T) {
	size := int64(len(content))
	noRange := func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Range")
		serve(content, `"one"`)(w, r)
	}
	noLength := func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(content[:400_000])
		w.(http.Flusher).Flush()
		_, _ = w.Write(content[400_000:])
	}
	var length *LengthError
	var changed *ChangedError
	var status *StatusError
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		size    int64
		target  any // the error's type, nil for none
	}{
		{"whole", serve(content, ""), size, nil},
		{"of unknown size", noLength, 0, nil},
		{"size as the server says", breakAfter(300_000, `"one"`, serve(content, `"one"`)), 0, nil},
		{"taken up after a break", breakAfter(300_000, "", serve(content, "")), size, nil},
		{"skipped where ranges are not known", breakAfter(300_000, `"one"`, noRange), size, nil},
		{"another file after a break", breakAfter(300_000, `"one"`, serve(content, `"two"`)), size, &changed},
		{"too short", serve(content[:1000], ""), size, &length},
		{"too long without saying so", noLength, 500_000, &length},
		{"not there", http.NotFound, size, &status},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewServer(c.handler)
			defer server.Close()
			r, err := Open(t.Context(), File{Client: server.Client(), URL: server.URL, Size: c.size})
			var got []byte
			if err == nil {
				defer r.Close()
				got, err = io.ReadAll(r)
			}
			if c.target != nil {
				if !errors.As(err, c.target) {
					t.Fatalf("error %v (%T), want %T", err, err, c.target)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, content) {
				t.Errorf("%d bytes that differ from the %d served", len(got), len(content))
			}
		})
	}
}

func TestPatienceEnds(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	url := server.URL
	server.Close()
	if _, err := Open(t.Context(), File{Client: http.DefaultClient, URL: url, Patience: time.Nanosecond}); err == nil {
		t.Error("no error from a server that is away, want one when patience ends")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, File{Client: http.DefaultClient, URL: url}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want the context's", err)
	}
}

func TestDigest(t *testing.T) {
	d := NewDigest(sha256.New())
	for rest := content; len(rest) > 0; {
		n := min(len(rest), 300_001) // more than a buffer
		if _, err := d.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if got, want := d.Sum(), sha256.Sum256(content); !bytes.Equal(got, want[:]) {
		t.Errorf("digest %x, want %x", got, want)
	}
}

func TestErrorsKeepSecrets(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	secret := "/image.raw?X-Amz-Signature=s3cret"
	gone := "http://user:s3cret@" + server.Listener.Addr().String()
	for _, url := range []string{gone + secret, "http://user:s3cret@127.0.0.1:1" + secret, "http://s3cret\x7f/"} {
		_, err := Open(t.Context(), File{Client: server.Client(), URL: url, Patience: time.Nanosecond})
		if err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("error %v, want one without secrets", err)
		}
	}
}
