// SPDX-License-Identifier: Apache-2.0

package pxe_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"metald.io/metald/internal/pxe"
)

func TestFiles(t *testing.T) {
	b := blobs(t.TempDir())
	const content = "0123456789"
	digest := b.add(t, content)
	if err := os.Mkdir(filepath.Join(string(b), strings.Repeat("d", 64)), 0o700); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(pxe.NewFiles(b, nowhere{}, slog.New(slog.DiscardHandler)))
	defer server.Close()
	good := "/boot/" + digest + "/ramdisk.efi"
	for _, c := range []struct {
		name, method, path, header, value string
		status                            int
		body                              string
		want                              map[string]string
	}{
		{name: "whole", path: good, status: 200, body: content, want: map[string]string{"Content-Length": "10", "Content-Type": "application/efi", "ETag": `"` + digest + `"`, "Accept-Ranges": "bytes"}},
		{name: "under another name", path: "/boot/" + digest + "/root.img", status: 200, body: content, want: map[string]string{"Content-Type": "application/octet-stream"}},
		{name: "head", method: "HEAD", path: good, status: 200, want: map[string]string{"Content-Length": "10"}},
		{name: "range", path: good, header: "Range", value: "bytes=4-6", status: 206, body: "456", want: map[string]string{"Content-Range": "bytes 4-6/10"}},
		{name: "rest", path: good, header: "Range", value: "bytes=8-", status: 206, body: "89"},
		{name: "range past the end", path: good, header: "Range", value: "bytes=10-", status: 416, body: "invalid range: failed to overlap\n"},
		{name: "unchanged", path: good, header: "If-None-Match", value: `"` + digest + `"`, status: 304},
		{name: "post", method: "POST", path: good, status: 405, want: map[string]string{"Allow": "GET, HEAD"}},
		{name: "no such digest", path: "/boot/" + strings.Repeat("a", 64) + "/x", status: 404},
		{name: "a directory", path: "/boot/" + strings.Repeat("d", 64) + "/x", status: 500},
		{name: "digest in capitals", path: "/boot/" + strings.ToUpper(digest) + "/x", status: 404},
		{name: "short digest", path: "/boot/" + digest[1:] + "/x", status: 404},
		{name: "no name", path: "/boot/" + digest, status: 404},
		{name: "empty name", path: "/boot/" + digest + "/", status: 404},
		{name: "listing", path: "/boot/", status: 404},
		{name: "root", path: "/", status: 404},
		{name: "double slash", path: "//boot/" + digest + "/x", status: 404},
		{name: "escape", path: "/boot/../../etc/passwd", status: 404},
		{name: "escape, hidden", path: "/boot/%2e%2e/%2e%2e/etc/passwd", status: 404},
		{name: "escape in the name", path: "/boot/" + digest + "/..", status: 404},
		{name: "hidden slash", path: "/boot/" + digest + "/a%2fb", status: 404},
		{name: "query", path: good + "?x=1", status: 404},
	} {
		t.Run(c.name, func(t *testing.T) {
			method := c.method
			if method == "" {
				method = http.MethodGet
			}
			req, err := http.NewRequest(method, server.URL+c.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if c.header != "" {
				req.Header.Set(c.header, c.value)
			}
			resp, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != c.status || c.body != "" && string(body) != c.body {
				t.Errorf("got %d %q, want %d %q", resp.StatusCode, body, c.status, c.body)
			}
			for k, v := range c.want {
				if got := resp.Header.Get(k); got != v {
					t.Errorf("%s: got %q, want %q", k, got, v)
				}
			}
		})
	}
}

// stuck is a reader that takes nothing until it is let go.
type stuck struct {
	*httptest.ResponseRecorder
	release <-chan struct{}
}

func (s stuck) Write(b []byte) (int, error) {
	<-s.release
	return s.ResponseRecorder.Write(b)
}

// With every stream taken a new reader waits its turn, and is told to come back where none comes.
func TestFilesBoundsStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := blobs(t.TempDir())
		path := "/boot/" + b.add(t, "x") + "/x"
		files := pxe.NewFiles(b, nowhere{}, slog.New(slog.DiscardHandler))
		release := make(chan struct{})
		for range 256 {
			go files.ServeHTTP(stuck{httptest.NewRecorder(), release}, httptest.NewRequest("GET", path, nil))
		}
		synctest.Wait()
		get := func() (int, time.Duration) {
			start, w := time.Now(), httptest.NewRecorder()
			files.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
			return w.Code, time.Since(start)
		}
		if code, took := get(); code != http.StatusServiceUnavailable || took != 20*time.Second {
			t.Errorf("with all streams taken: got %d after %s, want 503 after 20s", code, took)
		}
		time.AfterFunc(time.Second, func() { close(release) })
		if code, took := get(); code != http.StatusOK || took != time.Second {
			t.Errorf("when a stream comes free: got %d after %s, want 200 after 1s", code, took)
		}
	})
}

// fromFile notes whether the body came by ReadFrom with the file behind it, the way that net/http turns into sendfile.
type fromFile struct {
	*httptest.ResponseRecorder
	file bool
}

func (f *fromFile) ReadFrom(r io.Reader) (int64, error) {
	if l, ok := r.(*io.LimitedReader); ok {
		_, f.file = l.R.(*os.File)
	}
	return io.Copy(f.ResponseRecorder, r)
}

func TestFilesKeepsSendfile(t *testing.T) {
	b := blobs(t.TempDir())
	w := &fromFile{ResponseRecorder: httptest.NewRecorder()}
	pxe.NewFiles(b, nowhere{}, slog.New(slog.DiscardHandler)).ServeHTTP(w, httptest.NewRequest("GET", "/boot/"+b.add(t, "x")+"/x", nil))
	if !w.file || w.Body.String() != "x" {
		t.Errorf("got body %q, from the file: %v; want x from the file", w.Body, w.file)
	}
}

// nowhere hears of transfers from many machines at once, and forgets.
type nowhere struct{}

func (nowhere) Began(netip.Addr, string)       {}
func (nowhere) Ended(netip.Addr, string, bool) {}

// road notes what it hears of transfers.
type road struct{ began, whole, broken int }

func (r *road) Began(netip.Addr, string) { r.began++ }

func (r *road) Ended(_ netip.Addr, _ string, whole bool) {
	if whole {
		r.whole++
	} else {
		r.broken++
	}
}

// breaking takes so many bytes and no more.
type breaking struct {
	*httptest.ResponseRecorder
	left int
}

func (w *breaking) Write(b []byte) (int, error) {
	if len(b) > w.left {
		n, _ := w.ResponseRecorder.Write(b[:w.left])
		w.left = 0
		return n, io.ErrClosedPipe
	}
	w.left -= len(b)
	return w.ResponseRecorder.Write(b)
}

func TestFilesTellsOfTransfers(t *testing.T) {
	b := blobs(t.TempDir())
	path := "/boot/" + b.add(t, "0123456789") + "/x"
	for _, c := range []struct {
		name, method, part string
		takes              int
		want               road
	}{
		{"whole", "GET", "", 10, road{1, 1, 0}},
		{"head", "HEAD", "", 10, road{}},
		{"last part", "GET", "bytes=4-", 10, road{1, 1, 0}},
		{"first part", "GET", "bytes=0-4", 10, road{1, 0, 1}},
		{"broken", "GET", "", 7, road{1, 0, 1}},
		{"last part, broken", "GET", "bytes=4-", 5, road{1, 0, 1}},
		{"bad part", "GET", "bytes=10-", 90, road{1, 0, 1}},
	} {
		r, road := httptest.NewRequest(c.method, path, nil), road{}
		if c.part != "" {
			r.Header.Set("Range", c.part)
		}
		pxe.NewFiles(b, &road, slog.New(slog.DiscardHandler)).ServeHTTP(&breaking{httptest.NewRecorder(), c.takes}, r)
		if road != c.want {
			t.Errorf("%s: got %+v, want %+v", c.name, road, c.want)
		}
	}
}
