// SPDX-License-Identifier: Apache-2.0

package pxe

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"net"
	"net/netip"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/net/ipv4"
)

// A probe is a sound datagram from nobody to everybody.
func TestFromNowhere(t *testing.T) {
	packet := packet(t, dhcpv4.MessageTypeDiscover).ToBytes()
	d := fromNowhere(packet)
	h, err := ipv4.ParseHeader(d)
	if err != nil {
		t.Fatal(err)
	}
	if h.TotalLen != len(d) || h.Src.String() != "0.0.0.0" || h.Dst.String() != "255.255.255.255" || h.Protocol != 17 || checksum(d[:20]) != 0 {
		t.Errorf("got header %s with checksum off by %#x", h, checksum(d[:20]))
	}
	if from, to, length := binary.BigEndian.Uint16(d[20:]), binary.BigEndian.Uint16(d[22:]), binary.BigEndian.Uint16(d[24:]); from != 68 || to != 67 || int(length) != len(d)-20 {
		t.Errorf("got UDP from %d to %d, %d bytes; want from 68 to 67, %d bytes", from, to, length, len(d)-20)
	}
	got, ip, err := payloadOf(append(d, 0, 0, 0, 0)) // as Ethernet pads it
	if err != nil || ip != netip.IPv4Unspecified() || !bytes.Equal(got, packet) {
		t.Errorf("got %d bytes from %s, %v; want the packet of %d", len(got), ip, err, len(packet))
	}
}

func TestPayloadOfCutDatagrams(t *testing.T) {
	whole := fromNowhere([]byte("payload"))
	for n := range whole {
		if got, _, err := payloadOf(whole[:n]); err == nil {
			t.Errorf("cut to %d bytes: got %q, want an error", n, got)
		}
	}
	for name, spoil := range map[string]func([]byte){
		"IPv6":              func(d []byte) { d[0] = 0x65 },
		"header too short":  func(d []byte) { d[0] = 0x44 },
		"header too long":   func(d []byte) { d[0] = 0x4f },
		"UDP too short":     func(d []byte) { binary.BigEndian.PutUint16(d[24:], 7) },
		"UDP past the end":  func(d []byte) { binary.BigEndian.PutUint16(d[24:], 16) },
		"UDP of many bytes": func(d []byte) { binary.BigEndian.PutUint16(d[24:], 0xffff) },
	} {
		d := bytes.Clone(whole)
		spoil(d)
		if got, _, err := payloadOf(d); err == nil {
			t.Errorf("%s: got %q, want an error", name, got)
		}
	}
}

// What counts as another server's answer.
func TestAnswers(t *testing.T) {
	g := newGuard(nil, small, false, slog.New(slog.DiscardHandler), nil)
	if g.mac[0]&3 != 2 || bytes.Equal(g.mac, newGuard(nil, small, false, nil, nil).mac) {
		t.Errorf("asks as %s, want a random, locally administered MAC", g.mac)
	}
	answer := func(mt dhcpv4.MessageType, server string, mods ...dhcpv4.Modifier) []byte {
		mods = append(mods, func(p *dhcpv4.DHCPv4) { p.OpCode = dhcpv4.OpcodeBootReply })
		if server != "" {
			mods = append(mods, chosen(server))
		}
		return packet(t, mt, mods...).ToBytes()
	}
	for _, c := range []struct {
		name   string
		packet []byte
		from   string
		want   string
	}{
		{"offer", answer(dhcpv4.MessageTypeOffer, "10.0.0.5"), "10.0.0.5", "10.0.0.5"},
		{"acknowledgement by a relay", answer(dhcpv4.MessageTypeAck, "10.9.0.5"), "10.0.0.2", "10.9.0.5"},
		{"refusal", answer(dhcpv4.MessageTypeNak, "10.0.0.5"), "10.0.0.5", "10.0.0.5"},
		{"offer without an identifier", answer(dhcpv4.MessageTypeOffer, ""), "10.0.0.5", "10.0.0.5"},
		{"our own", answer(dhcpv4.MessageTypeOffer, "10.0.0.1"), "10.0.0.1", ""},
		{"our own, as a relay passes it on", answer(dhcpv4.MessageTypeAck, "10.0.0.1"), "10.0.0.2", ""},
		{"from our address with another identifier", answer(dhcpv4.MessageTypeAck, "10.0.0.5"), "10.0.0.1", ""},
		{"a request", packet(t, dhcpv4.MessageTypeRequest, chosen("10.0.0.5")).ToBytes(), "0.0.0.0", ""},
		{"BOOTP", answer(dhcpv4.MessageTypeNone, ""), "10.0.0.5", ""},
		{"noise", []byte("noise"), "10.0.0.5", ""},
		{"nothing", nil, "10.0.0.5", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := g.answers(c.packet, ip(c.from))
			if ok != (c.want != "") || ok && got.String() != c.want {
				t.Errorf("got %s, %v; want %q", got, ok, c.want)
			}
		})
	}
}

// FuzzAnswers reads any frame as the wire does.
func FuzzAnswers(f *testing.F) {
	f.Add(fromNowhere(packet(f, dhcpv4.MessageTypeOffer, chosen("10.0.0.5"), func(p *dhcpv4.DHCPv4) { p.OpCode = dhcpv4.OpcodeBootReply }).ToBytes()))
	g := newGuard(nil, small, false, slog.New(slog.DiscardHandler), nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		payload, from, err := payloadOf(b)
		if err != nil {
			return
		}
		if server, ok := g.answers(payload, from); ok && (server == small.Server || from == small.Server) {
			t.Errorf("takes our own answer for %s's", server)
		}
	})
}

func TestListenWireNeedsItsInterface(t *testing.T) {
	if _, err := net.InterfaceByName("nope0"); err == nil {
		t.Fatal("there is an interface nope0")
	}
	if _, err := ListenWire("nope0"); err == nil {
		t.Error("got a wire on an interface that is not there")
	}
}
