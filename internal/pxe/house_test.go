// SPDX-License-Identifier: Apache-2.0

package pxe_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"metald.io/metald/internal/pxe"
	"metald.io/metald/internal/pxe/pxetest"
)

func subnet() pxe.Subnet {
	return pxe.Subnet{
		Interface: "br0",
		Server:    netip.MustParseAddr("172.22.0.1"),
		Prefix:    netip.MustParsePrefix("172.22.0.0/24"),
		First:     netip.MustParseAddr("172.22.0.100"),
		Last:      netip.MustParseAddr("172.22.0.199"),
		Router:    netip.MustParseAddr("172.22.0.1"),
		DNS:       []netip.Addr{netip.MustParseAddr("172.22.0.1")},
		LeaseTime: time.Hour,
		BootURL:   "http://172.22.0.1:80/",
		AgentURL:  "https://172.22.0.1:8443",
	}
}

// policy knows machines by MAC.
type policy map[string]pxe.Answer

func (p policy) Boot(m pxe.Machine) (pxe.Answer, bool) {
	a, ok := p[m.MAC.String()]
	return a, ok
}

// book is a LeaseStore in memory that can fail, and takes its time.
type book struct {
	mu     sync.Mutex
	leases map[string]pxe.Lease
	broken error
	slow   time.Duration
}

func (b *book) Leases(context.Context) ([]pxe.Lease, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []pxe.Lease
	for _, l := range b.leases {
		all = append(all, l)
	}
	return all, nil
}

func (b *book) change(f func()) error {
	time.Sleep(b.slow)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broken == nil {
		f()
	}
	return b.broken
}

func (b *book) Save(_ context.Context, l pxe.Lease) error {
	return b.change(func() { b.leases[l.Key()] = l })
}

func (b *book) Remove(_ context.Context, l pxe.Lease) error {
	return b.change(func() { delete(b.leases, l.Key()) })
}

func (b *book) breakWith(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.broken = err
}

// lines are the leases without the parts that a scenario's time decides.
func (b *book) lines() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var lines []string
	for _, l := range b.leases {
		state := "running"
		if !l.Expires.After(time.Now()) {
			state = "ended"
		}
		lines = append(lines, fmt.Sprintf("%s %s %s %s %s\n", l.Interface, l.MAC, l.IP, l.Host, state))
	}
	sort.Strings(lines)
	return strings.Join(lines, "")
}

// lookout notes the unknown.
type lookout struct {
	mu   sync.Mutex
	seen []string
}

func (l *lookout) Seen(m pxe.Machine, what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = append(l.seen, m.MAC.String()+" "+what)
}

func (l *lookout) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.seen...)
}

// blobs is a directory of files named by their digest.
type blobs string

func (b blobs) Open(digest string) (*os.File, error) {
	return os.Open(filepath.Join(string(b), digest))
}

func (b blobs) add(t *testing.T, content string) string {
	t.Helper()
	digest := fmt.Sprintf("%x", sha256.Sum256([]byte(content)))
	if err := os.WriteFile(filepath.Join(string(b), digest), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return digest
}

// handlerClient is HTTP without a wire, for fake time. Its millisecond lets the server finish what it does after an answer.
type handlerClient struct{ http.Handler }

func (h handlerClient) RoundTrip(r *http.Request) (*http.Response, error) {
	time.Sleep(time.Millisecond)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result(), nil
}

// bench is a server with its surroundings, running until the test ends.
type bench struct {
	*pxe.DHCP
	segment *pxetest.Segment
	book    *book
	lookout *lookout
	blobs   blobs
	log     *strings.Builder
	player  *pxetest.Player
	stop    func() error
}

func newBench(t *testing.T, s pxe.Subnet, p pxe.BootPolicy, b *book) *bench {
	t.Helper()
	var mu sync.Mutex
	h := &bench{segment: pxetest.NewSegment(s.Server), book: b, lookout: &lookout{}, blobs: blobs(t.TempDir()), log: &strings.Builder{}}
	log := slog.New(slog.NewTextHandler(lockedWriter{&mu, h.log}, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == "took" {
			return slog.Attr{}
		}
		return a
	}}))
	h.DHCP = pxe.NewDHCP(s, p, b, h.lookout, log)
	h.player = &pxetest.Player{Segment: h.segment, Web: &http.Client{Transport: handlerClient{pxe.NewFiles(h.blobs, nowhere{}, log)}}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Serve(ctx, h.segment.Server()) }()
	h.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() {
		if err := h.stop(); err != nil {
			t.Errorf("serving: %v", err)
		}
	})
	return h
}

type lockedWriter struct {
	mu *sync.Mutex
	b  *strings.Builder
}

func (w lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

var errDiskFull = errors.New("disk full")
