// SPDX-License-Identifier: Apache-2.0

package bmc

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"
)

// SweepOptions say how a sweep goes about it; the zero value is usual.
type SweepOptions struct {
	// Port is the HTTPS port; 0 means 443.
	Port uint16
	// Concurrency is how many addresses are asked at once; 0 means 64.
	Concurrency int
	// Timeout is for one address; 0 means 10 s: BMCs are slow, and an address where nothing is costs as much.
	Timeout time.Duration
	// Large allows prefixes of more than 4096 addresses (an IPv4 /20, an IPv6 /116).
	Large bool
	// Dialer opens connections; nil means the network.
	Dialer Dialer
}

// Found is a Redfish service that answered.
type Found struct {
	Address Address
	// CertificateSHA256 is the sha256 of the leaf certificate that it showed, in hex.
	CertificateSHA256 string
	// The rest is what the service root says, without proof.
	UUID           string
	Vendor         string
	Product        string
	RedfishVersion string
}

// maxSweep is how many addresses a prefix may have unless Large is set.
const maxSweep = 4096

// Sweep asks every address of the prefixes for a Redfish service root, without credentials, and calls found for each that
// answers, one at a time and in no order. Each address gets one connection and one GET. It returns when all have
// been asked, or with ctx's error when ctx ends.
func Sweep(ctx context.Context, prefixes []netip.Prefix, o SweepOptions, found func(Found)) error {
	for _, p := range prefixes {
		if !p.IsValid() {
			return fmt.Errorf("sweeping: invalid prefix")
		}
		if bits := p.Addr().BitLen() - p.Bits(); !o.Large && bits > 12 {
			return fmt.Errorf("sweeping %s: more than %d addresses; say that this is wanted", p, maxSweep)
		}
	}
	o = o.filled()
	work := make(chan netip.Addr)
	var mu sync.Mutex // one call of found at a time
	var workers sync.WaitGroup
	for range o.Concurrency {
		workers.Go(func() {
			for ip := range work {
				if f, err := o.ask(ctx, ip); err == nil && ctx.Err() == nil {
					mu.Lock()
					found(f)
					mu.Unlock()
				}
			}
		})
	}
	err := feed(ctx, prefixes, work)
	close(work)
	workers.Wait()
	if err != nil {
		return fmt.Errorf("sweeping: %w", err)
	}
	return nil
}

func (o SweepOptions) filled() SweepOptions {
	if o.Port == 0 {
		o.Port = 443
	}
	if o.Concurrency <= 0 {
		o.Concurrency = 64
	}
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Second
	}
	if o.Dialer == nil {
		o.Dialer = (&net.Dialer{}).DialContext
	}
	return o
}

// feed sends each address once, also where prefixes overlap, and leaves out IPv4's network and broadcast addresses.
func feed(ctx context.Context, prefixes []netip.Prefix, work chan<- netip.Addr) error {
	for i, p := range prefixes {
		p = p.Masked()
		for ip := p.Addr(); p.Contains(ip); ip = ip.Next() {
			if edge(p, ip) || slices.ContainsFunc(prefixes[:i], func(q netip.Prefix) bool { return q.Contains(ip) && !edge(q.Masked(), ip) }) {
				continue
			}
			select {
			case work <- ip:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return ctx.Err()
}

func edge(p netip.Prefix, ip netip.Addr) bool {
	if !ip.Is4() || p.Bits() >= 31 {
		return false
	}
	return ip == p.Addr() || !p.Contains(ip.Next())
}

var errNoRedfish = errors.New("no Redfish service")

// ask reads one service root, and the certificate that came with it.
func (o SweepOptions) ask(ctx context.Context, ip netip.Addr) (Found, error) {
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	f := Found{Address: Address{Driver: "redfish", Host: ip.String(), Port: o.Port}}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return o.Dialer(ctx, network, net.JoinHostPort(ip.String(), strconv.Itoa(int(o.Port))))
		},
		TLSClientConfig: &tls.Config{
			MinVersion:         tls.VersionTLS12,
			InsecureSkipVerify: true, //nolint:gosec // nothing is sent that a stranger may not see
		},
		TLSHandshakeTimeout:    o.Timeout,
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeader,
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.Address.URL()+"/redfish/v1/", nil)
	if err != nil {
		return f, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "metald")
	resp, err := client.Do(req)
	if err != nil {
		return f, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return f, err
	}
	var root struct{ UUID, Vendor, Product, RedfishVersion string }
	if resp.StatusCode != http.StatusOK || bounded(body) != nil || json.Unmarshal(body, &root) != nil || root.RedfishVersion == "" {
		return f, errNoRedfish
	}
	if resp.TLS != nil && len(resp.TLS.PeerCertificates) > 0 {
		f.CertificateSHA256 = fingerprint(resp.TLS.PeerCertificates[0])
	}
	f.UUID, f.Vendor, f.Product = uuid(root.UUID), told(root.Vendor), told(root.Product)
	f.RedfishVersion = printable(root.RedfishVersion)
	return f, nil
}
