// SPDX-License-Identifier: Apache-2.0

package pxe

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// BootPath is where the boot server has its files: BootPath + sha256 + "/" + any name.
const BootPath = "/boot/"

const (
	// streams bounds the files that are sent at once, so that DHCP and the other doors keep breathing under a storm of boots.
	streams = 256
	// streamWait is how long a request waits for its turn; firmware gives up after some time of silence, and asks again.
	streamWait = 20 * time.Second
	// slowest is the rate in bytes a second below which a reader loses its stream to others; a minute is free.
	slowest = 64 << 10
)

type files struct {
	blobs     Blobs
	transfers Transfers
	log       *slog.Logger
	slots     chan struct{}
}

// NewFiles serves GET and HEAD of /boot/{sha256}/{name}, with ranges. The digest alone finds the file; the name is for
// firmware that goes by a path's ending, and for people. Nothing else is there: no listing, no redirect, no cleaning of
// paths.
func NewFiles(blobs Blobs, transfers Transfers, log *slog.Logger) http.Handler {
	return &files{blobs: blobs, transfers: transfers, log: log, slots: make(chan struct{}, streams)}
}

func (f *files) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	digest, name, ok := splitBootPath(r.URL)
	if !ok {
		http.Error(w, "no such file", http.StatusNotFound)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD are served", http.StatusMethodNotAllowed)
		return
	}
	if program, ok := strings.CutSuffix(name, ScriptSuffix); ok && isFileName(program) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_, _ = io.WriteString(w, ipxeScript(program))
		return
	}
	if r.Method == http.MethodGet {
		if !f.enter(r) {
			w.Header().Set("Retry-After", "5")
			http.Error(w, "too many boots at once", http.StatusServiceUnavailable)
			return
		}
		defer func() { <-f.slots }()
	}
	f.serve(w, r, digest, name)
}

func (f *files) serve(w http.ResponseWriter, r *http.Request, digest, name string) {
	file, err := f.blobs.Open(digest)
	if errors.Is(err, fs.ErrNotExist) {
		f.log.Warn("boot file is missing", "image", digest, "name", name, "ip", remoteIP(r))
		http.Error(w, "no such file", http.StatusNotFound)
		return
	}
	if err != nil {
		f.log.Error("cannot open boot file", "image", digest, "name", name, "err", err)
		http.Error(w, "cannot open the file", http.StatusInternalServerError)
		return
	}
	defer file.Close()
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("mode is %s", info.Mode())
	}
	if err != nil {
		f.log.Error("cannot open boot file", "image", digest, "name", name, "err", err)
		http.Error(w, "cannot open the file", http.StatusInternalServerError)
		return
	}
	// Not every server of ours has deadlines (a test's recorder has none); where there are, a stuck reader loses its slot.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Minute + time.Duration(info.Size()/slowest)*time.Second))
	h := w.Header()
	h.Set("Content-Type", contentType(name))
	h.Set("ETag", `"`+digest+`"`)
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("X-Content-Type-Options", "nosniff")
	sent := &counter{ResponseWriter: w}
	if r.Method == http.MethodHead {
		http.ServeContent(sent, r, "", time.Time{}, file)
		return
	}
	start, ip := time.Now(), remoteIP(r)
	f.transfers.Began(ip, digest)
	http.ServeContent(sent, r, "", time.Time{}, file)
	f.transfers.Ended(ip, digest, sent.reachedEnd(info.Size()))
	f.log.Info("sent boot file", "image", digest, "name", name, "ip", ip, "bytes", sent.n, "of", info.Size(), "took", time.Since(start))
}

// enter waits for a slot.
func (f *files) enter(r *http.Request) bool {
	select {
	case f.slots <- struct{}{}:
		return true
	default:
	}
	timer := time.NewTimer(streamWait)
	defer timer.Stop()
	select {
	case f.slots <- struct{}{}:
		return true
	case <-timer.C:
	case <-r.Context().Done():
	}
	return false
}

// counter counts the body and keeps ReadFrom, behind which net/http has sendfile.
type counter struct {
	http.ResponseWriter
	n int64
}

// reachedEnd answers whether all that was promised went out, and whether that is the file or its last part.
func (c *counter) reachedEnd(size int64) bool {
	first, last, of := int64(0), size-1, size
	if part := c.Header().Get("Content-Range"); part != "" {
		if n, err := fmt.Sscanf(part, "bytes %d-%d/%d", &first, &last, &of); n != 3 || err != nil {
			return false
		}
	}
	return last == size-1 && c.n == last-first+1
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b)
	c.n += int64(n)
	return n, err
}

func (c *counter) ReadFrom(r io.Reader) (int64, error) {
	n, err := io.Copy(c.ResponseWriter, r)
	c.n += n
	return n, err
}

// ScriptSuffix behind a file's name is a script that has iPXE start that file.
const ScriptSuffix = ".ipxe"

// ipxeScript starts the program beside it. iPXE hands each program its own file name as the command line, and a unified kernel
// image takes a command line that it is handed for the kernel's, in place of the one it carries with the root hash; so the
// file is to have no name.
func ipxeScript(program string) string { return "#!ipxe\nchain --name= " + program + "\n" }

func contentType(name string) string {
	if strings.HasSuffix(name, ".efi") {
		return "application/efi" // EDK2 tells a program from a disk image by it
	}
	return "application/octet-stream"
}

// remoteIP is who asks; the zero address where that is not an IP address.
func remoteIP(r *http.Request) netip.Addr {
	from, _ := netip.ParseAddrPort(r.RemoteAddr)
	return from.Addr().Unmap()
}
