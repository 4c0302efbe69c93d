// SPDX-License-Identifier: Apache-2.0

package pxetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// ipxeOptions is iPXE's option 175, noProxy in it the setting that spares it the wait for proxyDHCP.
const (
	ipxeOptions = dhcpv4.GenericOptionCode(175)
	noProxy     = 176
)

// ErrNothing is what firmware says that was told of no file.
var ErrNothing = errors.New("nothing to boot")

// TFTP fetches a file of a server.
type TFTP func(server netip.Addr, name string) ([]byte, error)

// Boot leases an address and fetches what it was told to boot, as firmware does: only from an answer of its own class. PXE
// firmware that gets a program by TFTP goes on as iPXE, and steps tells of each file on the way. The caller closes the body.
func (c *Client) Boot(ctx context.Context, web *http.Client, load TFTP) (url string, steps []string, body io.ReadCloser, err error) {
	ack, err := c.Lease(ctx)
	if err != nil {
		return "", nil, nil, err
	}
	file := c.BootFile(ack)
	switch {
	case file == "":
		return "", nil, nil, ErrNothing
	case c.User == "" && strings.HasPrefix(c.Class, "PXEClient"):
		server, _ := netip.AddrFromSlice(ack.ServerIPAddr.To4())
		if load == nil {
			return file, nil, nil, errors.New("no TFTP server")
		}
		program, err := load(server, file)
		if err != nil {
			return file, nil, nil, fmt.Errorf("fetching %s by TFTP: %w", file, err)
		}
		if !bytes.HasPrefix(program, []byte("MZ")) {
			return file, nil, nil, fmt.Errorf("starting %s: not a program", file)
		}
		next := IPXE(c.Segment, c.MAC, c.Arch)
		next.UUID, next.Retries = c.UUID, c.Retries
		url, steps, body, err = next.Boot(ctx, web, load)
		c.Last = next.Last
		return url, append([]string{fmt.Sprintf("%s by TFTP", file)}, steps...), body, err
	case c.User != "":
		if err := c.proxyPause(ctx, ack); err != nil {
			return file, nil, nil, err
		}
	}
	body, err = fetch(ctx, web, file)
	if err != nil || c.User == "" {
		return file, nil, body, err
	}
	return chain(ctx, web, file, body)
}

// chain is iPXE with what it fetched: a program is started, a script of one line fetches the program beside it. Programs get
// their file name for a command line, which a unified kernel image would take in place of its own.
func chain(ctx context.Context, web *http.Client, at string, script io.ReadCloser) (string, []string, io.ReadCloser, error) {
	text, err := io.ReadAll(io.LimitReader(script, 4096))
	script.Close()
	if err != nil {
		return at, nil, nil, fmt.Errorf("fetching boot file: %w", err)
	}
	lines := strings.Split(string(text), "\n")
	if lines[0] != "#!ipxe" || len(lines) != 3 || lines[2] != "" {
		return at, nil, nil, errors.New("starting the boot file under its own name: its command line would be that name")
	}
	program, ok := strings.CutPrefix(lines[1], "chain --name= ")
	if !ok || strings.ContainsAny(program, "/ ") {
		return at, nil, nil, fmt.Errorf("reading iPXE's script: %q", lines[1])
	}
	next := at[:strings.LastIndexByte(at, '/')+1] + program
	body, err := fetch(ctx, web, next)
	return next, []string{"a script"}, body, err
}

// proxyPause is what iPXE waits for a proxyDHCP server, unless it is told not to.
func (c *Client) proxyPause(ctx context.Context, ack *dhcpv4.DHCPv4) error {
	own := ack.Options.Get(ipxeOptions)
	for len(own) >= 2 && len(own) >= 2+int(own[1]) {
		if own[0] == noProxy && own[1] == 1 && own[2] == 1 {
			return nil
		}
		own = own[2+own[1]:]
	}
	select {
	case <-time.After(3 * time.Second):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func fetch(ctx context.Context, web *http.Client, url string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("reading boot file name: %w", err)
	}
	resp, err := web.Do(req)
	if err != nil {
		return nil, fmt.Errorf("fetching boot file: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("fetching boot file: status %s", resp.Status)
	}
	return resp.Body, nil
}

// BootFile is the URL or the TFTP name that the client takes from an answer, empty where it takes none.
func (c *Client) BootFile(answer *dhcpv4.DHCPv4) string {
	switch {
	case strings.HasPrefix(c.Class, "HTTPClient") && answer.ClassIdentifier() != "HTTPClient":
		return ""
	case strings.HasPrefix(c.Class, "PXEClient") && answer.ClassIdentifier() != "":
		return "" // EDK2 would ask a boot server on port 4011, which nobody here is
	case !strings.HasPrefix(c.Class, "HTTPClient") && !strings.HasPrefix(c.Class, "PXEClient"):
		return ""
	}
	if file := answer.BootFileNameOption(); file != "" {
		return file
	}
	return answer.BootFileName
}
