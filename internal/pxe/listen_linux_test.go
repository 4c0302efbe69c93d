// SPDX-License-Identifier: Apache-2.0

package pxe

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// nobody has no hosts and no leases.
type nobody struct{}

func (nobody) Boot(Machine) (Answer, bool)             { return Answer{Host: "h"}, true }
func (nobody) Leases(context.Context) ([]Lease, error) { return nil, nil }
func (nobody) Save(context.Context, Lease) error       { return nil }
func (nobody) Remove(context.Context, Lease) error     { return nil }
func (nobody) Seen(Machine, string)                    {}

func loopback() Subnet {
	return Subnet{Interface: "lo", Server: ip("127.0.0.1"), Prefix: netip.MustParsePrefix("127.0.0.0/8"), First: ip("127.0.0.9"), Last: ip("127.0.0.9"),
		LeaseTime: time.Hour, BootURL: "http://127.0.0.1", AgentURL: "https://127.0.0.1"}
}

// Over a real socket an answer comes from the server's address, whatever the kernel would choose, and Serve ends with its
// context. (The whole exchange needs port 68, and so rights: the lab has it.)
func TestServeOverSocket(t *testing.T) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- NewDHCP(loopback(), nobody{}, nobody{}, nobody{}, slog.New(slog.DiscardHandler)).Serve(ctx, conn)
	}()
	client, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 9)})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	out := replier(conn, ip("127.0.0.5"))
	if err := out(packet(t, dhcpv4.MessageTypeOffer).ToBytes(), client.LocalAddr().(*net.UDPAddr).AddrPort()); err != nil {
		t.Fatal(err)
	}
	_ = client.SetReadDeadline(time.Now().Add(5 * time.Second))
	_, from, err := client.ReadFromUDPAddrPort(make([]byte, 1500))
	if err != nil || from.Addr() != ip("127.0.0.5") {
		t.Errorf("got an answer from %s, %v; want it from 127.0.0.5", from, err)
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("serving: got %v, want nil", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("Serve does not end with its context")
	}
}

func TestServeNeedsItsAddress(t *testing.T) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for want, change := range map[string]func(*Subnet){
		"interface lo does not have the server's address 127.0.0.2: give it one (ip address add 127.0.0.2/8 dev lo)": func(s *Subnet) { s.Server = ip("127.0.0.2") },
		"looking at interface nope0": func(s *Subnet) { s.Interface = "nope0" },
	} {
		s := loopback()
		change(&s)
		err := NewDHCP(s, nobody{}, nobody{}, nobody{}, slog.New(slog.DiscardHandler)).Serve(t.Context(), conn)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}
