// SPDX-License-Identifier: Apache-2.0

package pxe

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pin/tftp/v3"
)

// loaderFile writes n bytes that look like an EFI program.
func loaderFile(t *testing.T, n int) string {
	t.Helper()
	data := append([]byte("MZ"), bytes.Repeat([]byte{1, 2, 3, 4, 5}, n/5+1)...)[:n]
	path := filepath.Join(t.TempDir(), "snponly.efi")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReadLoader(t *testing.T) {
	path := loaderFile(t, 1000)
	l, err := ReadLoader("amd64", path)
	if err != nil || l.Name != "amd64/snponly.efi" || len(l.Data) != 1000 || len(l.SHA256) != 64 {
		t.Errorf("got %s of %d bytes, digest %q, %v; want amd64/snponly.efi of 1000 bytes with a digest", l.Name, len(l.Data), l.SHA256, err)
	}
	text := filepath.Join(t.TempDir(), "text.efi")
	if err := os.WriteFile(text, []byte("#!ipxe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(t.TempDir(), "none.efi"): "does not exist: Debian's package ipxe",
		loaderFile(t, maxLoader+1):             "is larger than 4 MiB",
		text:                                   "is no EFI program",
		"/tmp/a b.efi":                         `name of loader "a b.efi"`,
		t.TempDir():                            "reading loader",
	} {
		if _, err := ReadLoader("amd64", path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error with %q", path, err, want)
		}
	}
}

// serveTFTP runs a server on loopback and answers where.
func serveTFTP(t *testing.T, loader Loader, admit bool) (*TFTP, *net.UDPAddr) {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	s := NewTFTP([]Loader{loader}, func(netip.Addr) (string, bool) { return "h1", admit }, slog.New(slog.DiscardHandler))
	s.after = 50 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, conn) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("serving: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Serve does not end with its context")
		}
	})
	return s, conn.LocalAddr().(*net.UDPAddr)
}

func get(t *testing.T, to *net.UDPAddr, name string, blksize int) ([]byte, int64, error) {
	t.Helper()
	c, err := tftp.NewClient(to.String())
	if err != nil {
		t.Fatal(err)
	}
	c.RequestTSize(true)
	c.SetBlockSize(blksize)
	from, err := c.Receive(name, "octet")
	if err != nil {
		return nil, 0, err
	}
	size, _ := from.(tftp.IncomingTransfer).Size()
	var b bytes.Buffer
	_, err = from.WriteTo(&b)
	return b.Bytes(), size, err
}

// The loader comes whole at any block size, with its size told beforehand; nothing else is there.
func TestTFTP(t *testing.T) {
	// 2900 is two blocks of 1450: a last block without bytes must end it.
	for _, n := range []int{2, 511, 512, 2900, 300_000} {
		l, err := ReadLoader("amd64", loaderFile(t, n))
		if err != nil {
			t.Fatal(err)
		}
		_, addr := serveTFTP(t, l, true)
		for _, name := range []string{"amd64/snponly.efi", "/amd64/snponly.efi"} {
			for _, blksize := range []int{512, 1450, 1468} {
				got, size, err := get(t, addr, name, blksize)
				if err != nil || !bytes.Equal(got, l.Data) || size != int64(n) {
					t.Errorf("%s in blocks of %d: got %d bytes, size %d, %v; want %d", name, blksize, len(got), size, err, n)
				}
			}
		}
	}
	l, err := ReadLoader("amd64", loaderFile(t, 1000))
	if err != nil {
		t.Fatal(err)
	}
	_, addr := serveTFTP(t, l, true)
	for _, name := range []string{"", "snponly.efi", "amd64", "amd64/", "amd64/../amd64/snponly.efi", "/etc/passwd", "../../etc/passwd",
		"//amd64/snponly.efi", "AMD64/SNPONLY.EFI", "amd64\\snponly.efi", "amd64/snponly.efi%00", strings.Repeat("a", 400)} {
		if got, _, err := get(t, addr, name, 512); err == nil {
			t.Errorf("%q: got %d bytes, want an error", name, len(got))
		}
	}
	c, err := tftp.NewClient(addr.String())
	if err != nil {
		t.Fatal(err)
	}
	if to, err := c.Send("amd64/snponly.efi", "octet"); err == nil {
		if _, err = to.ReadFrom(strings.NewReader("MZ")); err == nil {
			t.Error("the server took a file")
		}
	}
}

// An address that nobody holds gets one error, however it asks.
func TestTFTPServesLeaseholdersOnly(t *testing.T) {
	l, err := ReadLoader("amd64", loaderFile(t, 1000))
	if err != nil {
		t.Fatal(err)
	}
	_, addr := serveTFTP(t, l, false)
	if got, _, err := get(t, addr, "amd64/snponly.efi", 512); err == nil || !strings.Contains(err.Error(), "access violation") {
		t.Errorf("got %d bytes, %v; want an access violation", len(got), err)
	}
}

// readRequest is RFC 1350's, with RFC 2348's and 2349's options where given.
func readRequest(name string, options ...string) []byte {
	return append([]byte{0, 1}, strings.Join(append([]string{name, "octet"}, options...), "\x00")+"\x00"...)
}

// A machine that asks and then is silent, as one whose address another has put on its request, gets few packets; and it
// holds its transfers for itself alone.
func TestTFTPIsBounded(t *testing.T) {
	l, err := ReadLoader("amd64", loaderFile(t, 5000))
	if err != nil {
		t.Fatal(err)
	}
	s, addr := serveTFTP(t, l, true)
	victim, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 2)})
	if err != nil {
		t.Fatal(err)
	}
	defer victim.Close()
	for range 50 {
		if _, err := victim.WriteTo(readRequest(l.Name, "blksize", "1400"), addr); err != nil {
			t.Fatal(err)
		}
	}
	data, refused := 0, 0
	_ = victim.SetReadDeadline(time.Now().Add(time.Duration(resends+4) * s.after))
	buf := make([]byte, 2000)
	for {
		n, _, err := victim.ReadFrom(buf)
		if err != nil {
			break
		}
		switch op := binary.BigEndian.Uint16(buf); {
		case op == 5 && strings.Contains(string(buf[:n]), "busy"):
			refused++
		case op == 3 || op == 6:
			data++
		}
	}
	if most := transfersEach * (1 + resends); data > most || data == 0 {
		t.Errorf("got %d packets of data and options for 50 requests, want between 1 and %d", data, most)
	}
	if want := 50 - transfersEach; refused != want {
		t.Errorf("%d requests were refused, want %d", refused, want)
	}
	if got, _, err := get(t, addr, l.Name, 512); err != nil || !bytes.Equal(got, l.Data) {
		t.Errorf("another machine: got %d bytes, %v", len(got), err)
	}
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		s.mu.Lock()
		left := fmt.Sprint(s.all, len(s.running))
		s.mu.Unlock()
		if left == "0 0" {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("transfers and addresses that are left: got %s, want none", left)
		}
	}
}
