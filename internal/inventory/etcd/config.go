// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// DefaultPrefix is where metald's keys begin unless the configuration says otherwise.
const DefaultPrefix = "/metald"

// maxMessage is the largest request, in bytes; etcd's own limit, --max-request-bytes, is the one that is met first.
const maxMessage = 16 << 20

// Config says which etcd, and how it is reached.
type Config struct {
	// Endpoints are URLs, as https://10.0.0.1:2379. Without any, no etcd is used.
	Endpoints []string `yaml:"endpoints"`
	// CA is the path of the authorities of etcd's certificate, in PEM.
	CA string `yaml:"ca"`
	// Certificate and Key are the paths of what metald shows to etcd, in PEM. They are read again at each connection.
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"`
	// Prefix is before all keys; empty is DefaultPrefix.
	Prefix string `yaml:"prefix"`
}

// Used tells whether an etcd is configured.
func (c Config) Used() bool { return len(c.Endpoints) > 0 }

// Check calls bad with each thing that is wrong, and the name of the field that it is wrong with. It opens no file.
func (c Config) Check(bad func(field, format string, args ...any)) {
	if !c.Used() {
		for _, f := range append(c.files(), [2]string{"prefix", c.Prefix}) {
			if f[1] != "" {
				bad(f[0], "is given, but endpoints is empty: the inventory would be a file")
			}
		}
		return
	}
	secure := 0
	for i, e := range c.Endpoints {
		field := fmt.Sprintf("endpoints[%d]", i)
		u, err := url.Parse(e)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Port() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
			bad(field, "%q: want https://host:port and nothing after it", e)
			continue
		}
		if u.Scheme == "https" {
			secure++
		} else if !loopback(u.Hostname()) {
			bad(field, "%q: want https for another machine: whoever can write to etcd owns every host", e)
		}
	}
	if secure > 0 && secure < len(c.Endpoints) {
		bad("endpoints", "some are https and some are not")
	}
	for _, f := range c.files() {
		switch {
		case f[1] == "":
		case !filepath.IsAbs(f[1]):
			bad(f[0], "%q: want an absolute path", f[1])
		case secure == 0:
			bad(f[0], "is given, but no endpoint is https")
		}
	}
	if (c.Certificate == "") != (c.Key == "") {
		bad("certificate", "certificate and key come together")
	}
	if c.Prefix != "" {
		if err := checkPrefix(c.Prefix); err != nil {
			bad("prefix", "%v", err)
		}
	}
}

// files are the paths by the names of their fields.
func (c Config) files() [][2]string {
	return [][2]string{{"ca", c.CA}, {"certificate", c.Certificate}, {"key", c.Key}}
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// dial makes a client, which connects when it is asked something.
func dial(c Config) (*clientv3.Client, error) {
	config := clientv3.Config{
		Endpoints: c.Endpoints, MaxCallSendMsgSize: maxMessage,
		// A server that went without a word is noticed, and another one asked.
		DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 3 * time.Second, PermitWithoutStream: true,
		DialOptions: []grpc.DialOption{
			// A call waits for a connection as long as its own time lasts: an etcd that starts again is no error. How long an
			// answer is, the inventory's size says.
			grpc.WithDefaultCallOptions(grpc.WaitForReady(true), grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(maxMessage)),
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
				MinConnectTimeout: 3 * time.Second,
			}),
		},
		Logger: zap.NewNop(), // it tells every retry; we tell what comes of them
	}
	if strings.HasPrefix(c.Endpoints[0], "https:") {
		var err error
		if config.TLS, err = secured(c); err != nil {
			return nil, err
		}
	}
	client, err := clientv3.New(config)
	if err != nil {
		return nil, fmt.Errorf("making an etcd client: %w", err)
	}
	return client, nil
}

func secured(c Config) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		text, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("reading etcd's authorities: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("reading etcd's authorities: %s: %w", c.CA, errors.New("no certificate in it"))
		}
	}
	if c.Certificate == "" {
		return t, nil
	}
	load := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(c.Certificate, c.Key)
		if err != nil {
			return nil, fmt.Errorf("reading the certificate for etcd: %w", err)
		}
		return &pair, nil
	}
	if _, err := load(nil); err != nil {
		return nil, err
	}
	t.GetClientCertificate = load
	return t, nil
}

// cause finds out why an endpoint does not answer, as far as a connection tells: gRPC keeps that to itself.
func (c Config) cause(endpoint string) error {
	ctx, cancel := context.WithTimeout(context.Background(), causeLimit)
	defer cancel()
	u, err := url.Parse(endpoint)
	if err != nil {
		return err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return err
	}
	defer conn.Close()
	if u.Scheme != "https" {
		return errSilent
	}
	t, err := secured(c)
	if err != nil {
		return err
	}
	t.ServerName, t.NextProtos = u.Hostname(), []string{"h2"}
	secure := tls.Client(conn, t)
	if err := secure.HandshakeContext(ctx); err != nil {
		return err
	}
	// A refusal of our certificate comes after our end of the handshake.
	_ = secure.SetReadDeadline(time.Now().Add(causeLimit)) // a connection that has no deadlines ends with the context
	if _, err := secure.Read(make([]byte, 1)); err != nil {
		return err
	}
	return errSilent
}

// causeLimit is how long the search for a cause may take.
const causeLimit = time.Second

var errSilent = errors.New("it accepts connections and says nothing")

// hosts are the endpoints as a person reads them.
func (c Config) hosts() string {
	var all []string
	for _, e := range c.Endpoints {
		u, err := url.Parse(e)
		if err != nil {
			continue
		}
		all = append(all, net.JoinHostPort(u.Hostname(), u.Port()))
	}
	return strings.Join(all, ", ")
}
