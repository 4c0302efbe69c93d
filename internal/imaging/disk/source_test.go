// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"bytes"
	"crypto/md5"
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/imaging/fetch"
)

// TestConnectionBreaks cuts the connection in the middle of an image that is unpacked on its way.
func TestConnectionBreaks(t *testing.T) {
	image := rawImage(t, 16*mib, "gpt")
	packed := packZstd(t, image)
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 1 {
			w.Header().Set("Content-Length", strconv.Itoa(len(packed)))
			_, _ = w.Write(packed[:len(packed)/2])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		if got := r.Header.Get("Range"); got == "" {
			t.Error("the image was asked for from its beginning again")
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(packed))
	}))
	defer server.Close()
	p := rawPlan("x.raw.zst", packed, md5.New(), "md5", nil)
	p.plan.Raw.URL = server.URL + "/x.raw.zst"
	r := newRAM(rawDiskSize)
	_, err := run(t.Context(), Options{Plan: p.plan, Source: &HTTP{Client: server.Client(), Patience: time.Minute}}, r, "sda", 512)
	if err != nil {
		t.Fatal(err)
	}
	if err := holds(r, image); err != nil {
		t.Error(err)
	}
	if got := asked.Load(); got != 2 {
		t.Errorf("asked %d times, want 2", got)
	}
}

func TestHTTP(t *testing.T) {
	s := newSample(lab)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		parts := strings.Split(r.URL.Path, "/")
		if b, ok := s.shelf.files[parts[min(2, len(parts)-1)]]; ok && parts[1] == "boot" {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
			return
		}
		http.NotFound(w, r)
	}))
	defer server.Close()
	source := &HTTP{Client: server.Client(), Base: server.URL + "/"}
	r := newRAM(lab)
	if _, err := run(t.Context(), Options{Plan: s.plan, Source: source, Architecture: "amd64"}, r, "vda", 512); err != nil {
		t.Fatal(err)
	}
	if err := s.check(r, 512); err != nil {
		t.Error(err)
	}
	var status *fetch.StatusError
	if _, err := source.File(t.Context(), v1alpha1.File{SHA256: "00", SizeBytes: 1}, "root.img"); !errors.As(err, &status) {
		t.Errorf("error %v, want the server's", err)
	}
	if _, _, err := source.URL(t.Context(), server.URL+"/none"); !errors.As(err, &status) {
		t.Errorf("error %v, want the server's", err)
	}
	// A file of another length than the plan's is the image's fault, found before the disk is touched.
	s.plan.Image.Loader.SizeBytes++
	r = newRAM(lab)
	var wrong *ImageError
	if _, err := run(t.Context(), Options{Plan: s.plan, Source: source, Architecture: "amd64"}, r, "vda", 512); !errors.As(err, &wrong) || len(r.ops) != 0 {
		t.Errorf("error %v after %d operations, want that the image is wrong and none", err, len(r.ops))
	}
}
