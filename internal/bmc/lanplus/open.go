// SPDX-License-Identifier: Apache-2.0

package lanplus

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"github.com/bougou/go-ipmi/pkg/crypto"
	"github.com/bougou/go-ipmi/pkg/rmcpplus"
	"github.com/bougou/go-ipmi/pkg/types"
)

// privilege is what a session asks for: Operator may switch power and set the next boot, and no more is wanted.
const privilege = types.PrivilegeLevelOperator

// Limits of RMCP+ (IPMI 2.0, 13.20 and 22.30), in bytes.
const (
	MaxUsername = 16
	MaxPassword = 20
)

// errUnsuited is a suite that the BMC does not know: the next may be tried.
var errUnsuited = errors.New("the BMC does not know the cipher suite")

// Open opens a session on a connected UDP socket, which the Session then owns; on error the caller keeps it. It proves the
// password once: only where the BMC does not know a cipher suite, which it says before a password is used, is the next tried.
func Open(ctx context.Context, conn net.Conn, username, password string) (s *Session, err error) {
	defer survive(&err)
	if len(username) > MaxUsername || len(password) > MaxPassword {
		return nil, fmt.Errorf("%w: IPMI allows %d bytes of user name and %d of password", ErrRefused, MaxUsername, MaxPassword)
	}
	h := &handshake{line: newLine(conn), username: username, key: crypto.PadPassword20([]byte(password))}
	err = errUnsuited
	for _, id := range []types.CipherSuiteID{types.CipherSuiteID17, types.CipherSuiteID3} {
		h.suite = suiteOf(id)
		if err = h.propose(ctx); !errors.Is(err, errUnsuited) {
			break
		}
	}
	if errors.Is(err, errUnsuited) {
		return nil, fmt.Errorf("opening a session: %w", ErrSuite)
	}
	if err != nil {
		return nil, fmt.Errorf("opening a session: %w", err)
	}
	if err := h.prove(ctx); err != nil {
		return nil, fmt.Errorf("opening a session: %w", err)
	}
	s = &Session{line: h.line, keys: h.keys, console: h.console, bmc: h.bmc}
	if err := s.rise(ctx); err != nil {
		s.abandon()
		return nil, fmt.Errorf("opening a session: %w", err)
	}
	return s, nil
}

// handshake is a session that is being opened (IPMI 2.0, 13.15).
type handshake struct {
	*line
	keys
	username string
	key      []byte
	tag      uint8
	console  uint32 // our name of the session
	bmc      uint32 // the BMC's
}

// ask sends a message of the handshake, and waits for the one that answers it: of the right type, with our tag. Its second byte
// is the status; where that is no success, ipmi_sim sends no more than these two, though the specification has eight.
func (h *handshake) ask(ctx context.Context, kind, answer types.PayloadType, message []byte) (payload []byte, code types.RmcpStatusCode, err error) {
	packet := plainPacket(kind, message)
	err = h.exchange(ctx, func() ([]byte, error) { return packet, nil }, false, func(p []byte) bool {
		k, session, _, body, _, ok := header(p)
		if !ok || k != byte(answer) || session != 0 || len(body) < 2 || body[0] != h.tag || len(body) < 8 && body[1] == 0 {
			return false
		}
		payload, code = body, types.RmcpStatusCode(body[1])
		return true
	})
	return payload, code, err
}

// propose asks for a session with the suite, and takes no other for it.
func (h *handshake) propose(ctx context.Context) error {
	h.tag++
	h.console = nonzero()
	auth, integrity, secrecy := rmcpplus.NewAlgorithmPayloads(h.auth, h.integrity, h.secrecy)
	req := rmcpplus.OpenSessionRequest{MessageTag: h.tag, RemoteConsoleSessionID: h.console,
		AuthenticationPayload: auth, IntegrityPayload: integrity, ConfidentialityPayload: secrecy}
	body, code, err := h.ask(ctx, types.PayloadTypeRmcpOpenSessionRequest, types.PayloadTypeRmcpOpenSessionResponse, req.Pack())
	switch {
	case err != nil:
		return err
	case unsuited(code):
		return fmt.Errorf("%w %d: status %#02x (%s)", errUnsuited, h.id, uint8(code), code)
	case code != types.RmcpStatusCodeNoErrors:
		return meaning(code)
	}
	var res rmcpplus.OpenSessionResponse
	if err := res.Unpack(body); err != nil {
		return fmt.Errorf("%w: %w", ErrSpoilt, err)
	}
	switch {
	case res.RemoteConsoleSessionID != h.console || res.ManagedSystemSessionID == 0:
		return fmt.Errorf("%w: it opened another session", ErrSpoilt)
	case res.AuthAlg != uint8(h.auth) || res.IntegrityAlg != uint8(h.integrity) || res.CryptAlg != uint8(h.secrecy):
		// A BMC, or somebody between, that would have us speak without integrity or encryption.
		return fmt.Errorf("%w: asked for suite %d, it answered with algorithms %d, %d, %d", ErrSuite, h.id, res.AuthAlg, res.IntegrityAlg, res.CryptAlg)
	}
	h.bmc = res.ManagedSystemSessionID
	return nil
}

// prove is RAKP: each side shows that it knows the password. The BMC goes first, so nobody gets a proof of ours who did not
// know the password already.
func (h *handshake) prove(ctx context.Context) error {
	h.tag++
	first := rmcpplus.RAKPMessage1{MessageTag: h.tag, ManagedSystemSessionID: h.bmc, NameOnlyLookup: true,
		RequestedMaximumPrivilegeLevel: privilege, UsernameLength: uint8(len(h.username)), Username: []byte(h.username)}
	_, _ = rand.Read(first.RemoteConsoleRandomNumber[:])
	body, code, err := h.ask(ctx, types.PayloadTypeRAKPMessage1, types.PayloadTypeRAKPMessage2, first.Pack())
	if err != nil {
		return err
	}
	if code != types.RmcpStatusCodeNoErrors {
		return meaning(code)
	}
	second := rmcpplus.RAKPMessage2{AuthAlg: h.auth}
	if err := second.Unpack(body); err != nil {
		return fmt.Errorf("%w: %w", ErrSpoilt, err)
	}
	ours, theirs, guid := first.RemoteConsoleRandomNumber[:], second.ManagedSystemRandomNumber[:], second.ManagedSystemGUID[:]
	want, err := crypto.RAKP2AuthCode(h.auth, h.console, h.bmc, ours, theirs, guid, first.Role(), h.username, h.key)
	if err != nil {
		return err
	}
	h.tag++
	if second.RemoteConsoleSessionID != h.console || !crypto.Equal(want, second.KeyExchangeAuthenticationCode) {
		// It is told, so that it forgets the session; it need not answer.
		no := rmcpplus.RAKPMessage3{MessageTag: h.tag, RmcpStatusCode: types.RmcpStatusCodeInvalidIntegrityCheckValue, ManagedSystemSessionID: h.bmc}
		h.send(plainPacket(types.PayloadTypeRAKPMessage3, no.Pack()))
		return fmt.Errorf("%w: its own proof of the password does not match", ErrRefused)
	}
	proof, err := crypto.RAKP3AuthCode(h.auth, theirs, h.console, first.Role(), h.username, h.key)
	if err != nil {
		return err
	}
	sik, k1, k2, err := crypto.DeriveSessionKeys(h.auth, ours, theirs, first.Role(), h.username, h.key)
	if err != nil {
		return err
	}
	h.k1, h.k2 = k1, k2
	third := rmcpplus.RAKPMessage3{MessageTag: h.tag, ManagedSystemSessionID: h.bmc, KeyExchangeAuthenticationCode: proof}
	body, code, err = h.ask(ctx, types.PayloadTypeRAKPMessage3, types.PayloadTypeRAKPMessage4, third.Pack())
	if err != nil {
		(&Session{line: h.line, keys: h.keys, console: h.console, bmc: h.bmc}).abandon() // it may have been opened
		return err
	}
	if code != types.RmcpStatusCodeNoErrors {
		return meaning(code)
	}
	fourth := rmcpplus.RAKPMessage4{AuthAlg: h.auth}
	if err := fourth.Unpack(body); err != nil {
		return fmt.Errorf("%w: %w", ErrSpoilt, err)
	}
	if want, err = crypto.RAKP4ICV(h.auth, ours, h.bmc, guid, sik); err != nil {
		return err
	}
	if fourth.MgmtConsoleSessionID != h.console || !crypto.Equal(want, fourth.IntegrityCheckValue) {
		return fmt.Errorf("%w: the password is right, but the session's key is not: it has a key of its own (Kg), which is not supported", ErrSuite)
	}
	return nil
}

func nonzero() uint32 {
	var b [4]byte
	_, _ = rand.Read(b[:])
	return binary.LittleEndian.Uint32(b[:]) | 1
}

// survive turns a panic in the library, which reads what a stranger wrote, into an error.
func survive(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("%w: %v", ErrSpoilt, r)
	}
}
