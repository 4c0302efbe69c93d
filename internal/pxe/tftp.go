// SPDX-License-Identifier: Apache-2.0

package pxe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/pin/tftp/v3"
)

const (
	// transfersAtOnce bounds the TFTP transfers that run, transfersEach those to one address: firmware asks twice, first for
	// the size and then for the file, and may give the first up without a word.
	transfersAtOnce, transfersEach = 128, 4
	// A block is sent at most 1 + resends times, resendAfter apart, and then its transfer ends: with one block on its way at
	// a time that bounds what a request in another's name makes us send to it.
	resends     = 4
	resendAfter = time.Second
	// shutdownWait is how long the daemon's end waits for transfers.
	shutdownWait = time.Second
)

var errTransfersEnd = errors.New("the server is going down")

// TFTP serves loaders, and nothing else, to machines that hold a lease. There is no file system below it, and no writing.
type TFTP struct {
	loaders map[string]Loader
	admit   func(ip netip.Addr) (host string, ok bool)
	log     *slog.Logger
	after   time.Duration // resendAfter

	mu      sync.Mutex
	running map[netip.Addr]int
	all     int
}

// NewTFTP makes a server of loaders. admit says which addresses are served, and whose they are: a request costs less than
// its answer, so no other gets one.
func NewTFTP(loaders []Loader, admit func(ip netip.Addr) (host string, ok bool), log *slog.Logger) *TFTP {
	t := &TFTP{loaders: map[string]Loader{}, admit: admit, log: log, after: resendAfter, running: map[netip.Addr]int{}}
	for _, l := range loaders {
		t.loaders[l.Name] = l
	}
	return t
}

// Serve answers requests from conn until ctx ends, then closes it and returns nil. Each transfer has a port of its own, as
// RFC 1350 wants it.
func (t *TFTP) Serve(ctx context.Context, conn net.PacketConn) error {
	for _, l := range t.loaders {
		t.log.Info("serving loader by TFTP", "name", l.Name, "arch", l.Arch, "bytes", len(l.Data), "sha256", l.SHA256)
	}
	server := tftp.NewServer(func(name string, to io.ReaderFrom) error { return t.send(ctx, name, to) }, nil)
	server.SetTimeout(t.after)
	server.SetRetries(resends)
	server.SetBackoff(func(int) time.Duration { return 0 }) // the wait for the acknowledgement was pause enough
	stop := context.AfterFunc(ctx, server.Shutdown)
	defer stop()
	if err := server.Serve(conn); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serving TFTP: %w", err)
	}
	t.drain()
	return nil
}

// send is one read request.
func (t *TFTP) send(ctx context.Context, name string, to io.ReaderFrom) error {
	remote := to.(tftp.OutgoingTransfer).RemoteAddr()
	ip := remote.AddrPort().Addr().Unmap()
	attrs := []any{"ip", ip.String(), "name", printable(name)}
	host, known := t.admit(ip)
	if !known {
		t.log.Debug("refused a TFTP request: nobody holds that address", attrs...)
		return errors.New("access violation")
	}
	attrs = append(attrs, "host", host)
	if name == NoBoot {
		t.log.Debug("a machine heard that no boot is ordered for it", attrs...)
		return errors.New("no boot is ordered")
	}
	l, ok := t.loaders[strings.TrimPrefix(name, "/")]
	if !ok {
		t.log.Warn("a machine asked for a file that TFTP does not have", attrs...)
		return errors.New("file not found")
	}
	if !t.enter(ip) {
		t.log.Warn("too many TFTP transfers at once", attrs...)
		return errors.New("busy: ask again")
	}
	defer t.leave(ip)
	to.(tftp.OutgoingTransfer).SetSize(int64(len(l.Data)))
	start := time.Now()
	n, err := to.ReadFrom(&untilDone{ctx, bytes.NewReader(l.Data)})
	attrs = append(attrs, "bytes", n, "of", len(l.Data), "took", time.Since(start))
	switch {
	case err == nil:
		t.log.Info("sent loader", attrs...)
	case n == 0: // EDK2 asks for the size alone, and ends that with error 8
		t.log.Debug("TFTP transfer ended before it began", append(attrs, "err", err)...)
	default:
		t.log.Warn("TFTP transfer broke off", append(attrs, "err", err)...)
	}
	return nil // what went wrong on the wire has been said there
}

// untilDone ends a transfer at its next block when the daemon ends.
type untilDone struct {
	ctx context.Context
	r   io.Reader
}

func (u *untilDone) Read(b []byte) (int, error) {
	if u.ctx.Err() != nil {
		return 0, errTransfersEnd
	}
	return u.r.Read(b)
}

func (t *TFTP) enter(ip netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all >= transfersAtOnce || t.running[ip] >= transfersEach {
		return false
	}
	t.all++
	t.running[ip]++
	return true
}

func (t *TFTP) leave(ip netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all--
	if t.running[ip]--; t.running[ip] == 0 {
		delete(t.running, ip)
	}
}

// drain waits a moment for the transfers that run.
func (t *TFTP) drain() {
	for end := time.Now().Add(shutdownWait); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		t.mu.Lock()
		left := t.all
		t.mu.Unlock()
		if left == 0 {
			return
		}
	}
}
