// SPDX-License-Identifier: Apache-2.0

package bmc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"metald.io/metald/internal/bmc/bmctest"
)

// street is a network in memory: an address leads to a BMC of the test, to a wall, or to nothing.
type street struct {
	houses map[string]string // IP to the listener's HOST:PORT; "wall" never answers

	mu    sync.Mutex
	asked []string
	now   int // connections being opened
	most  int
}

func (s *street) dial(ctx context.Context, network, address string) (net.Conn, error) {
	s.mu.Lock()
	s.asked = append(s.asked, address)
	s.now++
	s.most = max(s.most, s.now)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.now--
		s.mu.Unlock()
	}()
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	switch to := s.houses[host]; to {
	case "":
		time.Sleep(time.Millisecond)
		return nil, errors.New("connection refused")
	case "wall":
		<-ctx.Done()
		return nil, ctx.Err()
	default:
		return (&net.Dialer{}).DialContext(ctx, network, to)
	}
}

func prefixes(t *testing.T, all ...string) []netip.Prefix {
	t.Helper()
	var list []netip.Prefix
	for _, s := range all {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	return list
}

func TestSweep(t *testing.T) {
	good, other, liar, web, slow := newRig(t, bmctest.Options{}), newRig(t, bmctest.Options{UUID: "00000000-0000-0000-0000-000000000000", Vendor: "Acme\x1b[31m"}),
		newRig(t, bmctest.Options{}), newRig(t, bmctest.Options{}), newRig(t, bmctest.Options{})
	liar.Fault(bmctest.Rule{Status: 200, Body: []byte(`{"RedfishVersion":"`), Fill: 1 << 26})
	web.Fault(bmctest.Rule{Status: 200, Body: []byte(`<html>`)})
	slow.Fault(bmctest.Rule{Hang: true})
	s := &street{houses: map[string]string{
		"10.0.0.1": good.target.Address.Authority(), "10.0.0.2": other.target.Address.Authority(), "10.0.0.3": liar.target.Address.Authority(),
		"10.0.0.4": web.target.Address.Authority(), "10.0.0.5": slow.target.Address.Authority(), "10.0.0.6": "wall",
		"10.0.0.0": good.target.Address.Authority(), "10.0.0.15": good.target.Address.Authority(), // never asked: no hosts
	}}
	var got []Found
	err := Sweep(t.Context(), prefixes(t, "10.0.0.0/28", "10.0.0.0/29", "10.0.0.9/32"), SweepOptions{Concurrency: 4, Timeout: 300 * time.Millisecond, Dialer: s.dial},
		func(f Found) { got = append(got, f) })
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(got, func(a, b Found) int { return strings.Compare(a.Address.Host, b.Address.Host) })
	want := []Found{
		{Address: Address{Driver: "redfish", Host: "10.0.0.1", Port: 443}, CertificateSHA256: good.target.Pin,
			UUID: "6d6574a1-0000-4000-8000-000000000001", Vendor: "Acme", Product: "Baseboard Management Controller", RedfishVersion: "1.18.0"},
		{Address: Address{Driver: "redfish", Host: "10.0.0.2", Port: 443}, CertificateSHA256: other.target.Pin,
			Vendor: "Acme [31m", Product: "Baseboard Management Controller", RedfishVersion: "1.18.0"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("found (-want +got):\n%s", diff)
	}
	slices.Sort(s.asked)
	if n := len(s.asked); n != 14 || len(slices.Compact(slices.Clone(s.asked))) != 14 {
		t.Errorf("asked %v, want each of 14 addresses once", s.asked)
	}
	if s.most > 4 || s.most < 2 {
		t.Errorf("%d at once, want up to 4", s.most)
	}
	for _, r := range good.Requests() {
		if r.Credentials != "" || r.Method != "GET" {
			t.Errorf("%s %s with %q credentials", r.Method, r.Path, r.Credentials)
		}
	}
}

func TestSweepRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, prefix string
		large, ok    bool
	}{
		{"a /20", "10.0.0.0/20", false, true},
		{"a /19", "10.0.0.0/19", false, false},
		{"a /19 that is wanted", "10.0.0.0/19", true, true},
		{"everything", "0.0.0.0/0", false, false},
		{"an IPv6 /64", "fd00::/64", false, false},
		{"an IPv6 /120", "fd00::/120", false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &street{}
			err := Sweep(t.Context(), prefixes(t, tt.prefix), SweepOptions{Large: tt.large, Concurrency: 512, Dialer: s.dial}, func(Found) {})
			if (err == nil) != tt.ok {
				t.Errorf("Sweep() = %v, want ok: %v", err, tt.ok)
			}
			if !tt.ok && len(s.asked) != 0 {
				t.Errorf("%d addresses were asked", len(s.asked))
			}
		})
	}
	if err := Sweep(t.Context(), []netip.Prefix{{}}, SweepOptions{}, func(Found) {}); err == nil {
		t.Error("an invalid prefix: no error")
	}
}

func TestSweepEndsWithItsContext(t *testing.T) {
	s := &street{houses: map[string]string{}}
	for i := range 255 {
		s.houses[fmt.Sprintf("10.0.0.%d", i)] = "wall"
	}
	start := time.Now()
	err := Sweep(soon(t), prefixes(t, "10.0.0.0/24"), SweepOptions{Concurrency: 2, Timeout: time.Hour, Dialer: s.dial}, func(Found) {})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Sweep() = %v, want the deadline", err)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("took %v", took)
	}
}

// BenchmarkSweep asks 254 addresses of which each is a BMC with TLS; client and BMCs share the cores.
func BenchmarkSweep(b *testing.B) {
	cert, err := bmctest.SelfSigned("bmc")
	if err != nil {
		b.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_ = bmctest.NewServer(bmctest.New(bmctest.NewMemoryMachine(described), bmctest.Options{}), cert).Serve(ctx, l)
	}()
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, l.Addr().String())
	}
	n := 0
	for b.Loop() {
		if err := Sweep(ctx, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}, SweepOptions{Dialer: dial}, func(Found) { n++ }); err != nil {
			b.Fatal(err)
		}
	}
	if n != 254*b.N {
		b.Fatalf("found %d of %d", n, 254*b.N)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Minutes(), "bmc/min")
}
