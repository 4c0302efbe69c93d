// SPDX-License-Identifier: Apache-2.0

package bmc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"time"
)

// Certificate shakes hands with a BMC and returns the sha256 of its leaf certificate in hex, and the certificate. No
// request and no credentials are sent: it is how a pin is made and shown to a person.
func Certificate(ctx context.Context, a Address) (sha256hex string, leaf *x509.Certificate, err error) {
	return Target{Address: a}.Certificate(ctx)
}

// Certificate is the function of that name, over the target's own Dialer.
func (t Target) Certificate(ctx context.Context) (sha256hex string, leaf *x509.Certificate, err error) {
	if !t.Address.Certified() {
		return "", nil, fmt.Errorf("reading certificate of %s: neither IPMI nor plain HTTP has one: %w", t.Address, ErrNotSupported)
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	leaf, err = handshake(ctx, t.Dialer, t.Address.Authority())
	if err != nil {
		return "", nil, fmt.Errorf("reading certificate of %s: %w", t.Address, network(ctx, err))
	}
	return fingerprint(leaf), leaf, nil
}

func handshake(ctx context.Context, dial Dialer, authority string) (*x509.Certificate, error) {
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	raw, err := dial(ctx, "tcp", authority)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, //nolint:gosec // the certificate is what is asked for; nothing is sent
	})
	// The handshake is all that is wanted; a BMC that does not answer the goodbye must not hold us up.
	defer func() {
		_ = raw.SetDeadline(time.Now().Add(time.Second))
		_ = conn.Close()
	}()
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return conn.ConnectionState().PeerCertificates[0], nil
}
