// SPDX-License-Identifier: Apache-2.0

package diskless

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// content is a root of an odd length, so that its end is not a buffer's.
var content = bytes.Repeat([]byte("metald\x00"), 100_001)

func rootOf(b []byte) Root {
	sum := sha256.Sum256(b)
	return Root{SHA256: hex.EncodeToString(sum[:]), SizeBytes: int64(len(b))}
}

func serve(b []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "root.img", time.Time{}, bytes.NewReader(b))
	}
}

// breakAfter cuts the first connection after n bytes, as a daemon that is killed does.
func breakAfter(n int, next http.HandlerFunc) http.HandlerFunc {
	var calls atomic.Int32
	return func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1) > 1 {
			next(w, r)
			return
		}
		w.Header().Set("Content-Length", "700007")
		_, _ = w.Write(content[:n])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
}

func TestFetch(t *testing.T) {
	want := rootOf(content)
	other := append([]byte(nil), content...)
	other[300_000] ^= 1
	ignoreRange := func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Range")
		serve(content)(w, r)
	}
	var mismatch *MismatchError
	var status *StatusError
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		target  any // the error's type, nil for none
	}{
		{"whole", serve(content), nil},
		{"taken up after a break", breakAfter(300_000, serve(content)), nil},
		{"begun again where ranges are not known", breakAfter(300_000, ignoreRange), nil},
		{"one bit differs", serve(other), &mismatch},
		{"too short", serve(content[:1000]), &mismatch},
		{"too long", serve(append(other, 'x')), &mismatch},
		{"not there", http.NotFound, &status},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewServer(c.handler)
			defer server.Close()
			file := filepath.Join(t.TempDir(), "root.img")
			var last int64
			err := Fetch(t.Context(), server.Client(), server.URL+"/", want, file, func(done int64) { last = done })
			if c.target != nil {
				if !errors.As(err, c.target) {
					t.Fatalf("error %v (%T), want %T", err, err, c.target)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, content) {
				t.Errorf("%d bytes that differ from the %d served", len(got), len(content))
			}
			if last != want.SizeBytes {
				t.Errorf("last progress %d, want %d", last, want.SizeBytes)
			}
		})
	}
}

func TestFetchAsksForItsDigest(t *testing.T) {
	want := rootOf(content)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.URL.Path; got != "/boot/"+want.SHA256+"/root.img" {
			t.Errorf("asked for %s", got)
		}
		serve(content)(w, r)
	}))
	defer server.Close()
	if err := Fetch(t.Context(), server.Client(), server.URL, want, filepath.Join(t.TempDir(), "root.img"), nil); err != nil {
		t.Fatal(err)
	}
}

func TestFetchWaitsForAServerUntilItsContextEnds(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	url := server.URL
	server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := Fetch(ctx, http.DefaultClient, url, rootOf(content), filepath.Join(t.TempDir(), "root.img"), nil)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want the context's", err)
	}
}
