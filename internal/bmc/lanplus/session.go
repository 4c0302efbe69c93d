// SPDX-License-Identifier: Apache-2.0

package lanplus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/bougou/go-ipmi/pkg/command/app"
	"github.com/bougou/go-ipmi/pkg/types"
)

// again are the pauses after which a request is repeated; the last one goes on. A BMC that switches power may be deaf for a second.
var again = []time.Duration{time.Second, 2 * time.Second, 4 * time.Second}

// patience is for callers without a deadline.
const patience = 20 * time.Second

// line is a socket and how one waits on it.
type line struct {
	conn   net.Conn
	buffer []byte
}

func newLine(conn net.Conn) *line { return &line{conn: conn, buffer: make([]byte, maxDatagram)} }

// send does not wait for an answer.
func (l *line) send(packet []byte) {
	_ = l.conn.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = l.conn.Write(packet)
}

// exchange sends what packet makes, again and again unless once is set, until a datagram comes that match accepts, or ctx ends.
// Other datagrams are not looked at twice: anybody can send them.
func (l *line) exchange(ctx context.Context, packet func() ([]byte, error), once bool, match func([]byte) bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	end, _ := ctx.Deadline()
	stop := context.AfterFunc(ctx, func() { _ = l.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for try := 0; ctx.Err() == nil; try++ {
		if try == 0 || !once {
			p, err := packet()
			if err != nil {
				return err
			}
			l.send(p)
		}
		pause := time.Now().Add(again[min(try, len(again)-1)])
		if !pause.Before(end) {
			pause = end.Add(time.Second) // the last try: ctx ends the wait, and not a moment before it, which would be one try more
		}
		_ = l.conn.SetReadDeadline(pause)
		if ctx.Err() != nil { // it ended before the deadline was set, and would be forgotten
			break
		}
		for {
			n, err := l.conn.Read(l.buffer)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return fmt.Errorf("%w: %w", ErrSilent, err)
			}
			if match(append([]byte(nil), l.buffer[:n]...)) {
				return nil
			}
		}
	}
	return fmt.Errorf("%w: %w", ErrSilent, ctx.Err())
}

// Session is an open session. One command at a time: the caller sees to that.
type Session struct {
	*line
	keys
	console, bmc uint32
	sequence     uint32 // of the last packet sent
	heard        uint32 // of the last packet accepted: an older one is a replay
	request      uint8
}

// Suite is the number of the cipher suite that the session uses.
func (s *Session) Suite() int { return int(s.id) }

// Do sends a command and decodes its answer; res may be nil. With once, it is sent a single time, for what must not be done twice.
// A completion code other than 0 is a *CompletionError.
func (s *Session) Do(ctx context.Context, req types.Request, res types.Response, once bool) (err error) {
	defer survive(&err)
	data, err := s.command(ctx, req, once)
	if err != nil || res == nil {
		return err
	}
	if err := res.Unpack(data); err != nil {
		return fmt.Errorf("%s: %w: %w", req.Command().Name, ErrSpoilt, err)
	}
	return nil
}

func (s *Session) command(ctx context.Context, req types.Request, once bool) ([]byte, error) {
	cmd := req.Command()
	s.request = s.request%types.IPMIRequesterSequenceMax + 1
	var answer types.IPMIResponse
	// Each repetition is a packet of its own: a BMC drops a session sequence number that it has seen.
	packet := func() ([]byte, error) {
		s.sequence++
		return s.seal(s.bmc, s.sequence, message(cmd, s.request, req.Pack()))
	}
	err := s.exchange(ctx, packet, once, func(p []byte) bool {
		sequence, plain, ok := s.open(s.console, p)
		if !ok || sequence <= s.heard {
			return false
		}
		var r types.IPMIResponse
		if r.Unpack(plain) != nil || r.Command != cmd.ID || r.NetFn != cmd.NetFn+1 || r.RequesterSequence != s.request {
			return false
		}
		s.heard, answer = sequence, r
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cmd.Name, err)
	}
	if answer.CompletionCode != 0 {
		return nil, &CompletionError{Command: cmd.Name, Code: answer.CompletionCode}
	}
	return answer.Data, nil
}

func message(cmd types.Command, sequence uint8, data []byte) []byte {
	m := types.IPMIRequest{ResponderAddr: types.BMC_SA, NetFn: cmd.NetFn, RequesterAddr: types.RemoteConsole_SWID,
		RequesterSequence: sequence, Command: cmd.ID, CommandData: data}
	m.ComputeChecksum()
	return m.Pack()
}

// rise takes the privilege that was granted: a session begins as User.
func (s *Session) rise(ctx context.Context) error {
	err := s.Do(ctx, &app.SetSessionPrivilegeLevelRequest{PrivilegeLevel: privilege}, &app.SetSessionPrivilegeLevelResponse{}, false)
	var refused *CompletionError
	if errors.As(err, &refused) && refused.Code >= 0x80 && refused.Code <= 0x82 {
		return fmt.Errorf("%w: the account may not be %s: %w", ErrRefused, privilege, err)
	}
	return err
}

// Abandon ends a session without waiting for an answer, and closes the socket: for a BMC that says nothing.
func (s *Session) Abandon() {
	s.abandon()
	_ = s.conn.Close()
}

func (s *Session) abandon() {
	s.sequence++
	if p, err := s.seal(s.bmc, s.sequence, message(types.CommandCloseSession, 0, (&app.CloseSessionRequest{SessionID: s.bmc}).Pack())); err == nil {
		s.send(p)
	}
}

// Close ends the session on the BMC, and closes the socket. One that the BMC does not know any more is no error.
func (s *Session) Close(ctx context.Context) error {
	err := s.Do(ctx, &app.CloseSessionRequest{SessionID: s.bmc}, nil, false)
	_ = s.conn.Close()
	var gone *CompletionError
	if errors.As(err, &gone) {
		return nil
	}
	return err
}
