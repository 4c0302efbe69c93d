// SPDX-License-Identifier: Apache-2.0

package network

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// Told is what systemd-networkd's DHCP client was told of the daemon: the device, its address and both URLs. It is for a
// machine in its OS that had no network in its initramfs. networkd keeps the options that a site may define in its lease
// files (run/systemd/netif/leases below root, one a device, by its index), where the device's .network file has
// RequestOptions=224 225. The second result is false while no lease names a daemon; the error then says what is wrong with
// those that are there.
func Told(root string) (Lease, bool, error) {
	dir := filepath.Join(root, "run/systemd/netif/leases")
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return Lease{}, false, nil
	}
	if err != nil {
		return Lease{}, false, fmt.Errorf("reading networkd's leases: %w", err)
	}
	var problems []error
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if errors.Is(err, fs.ErrNotExist) { // it has just ended
			continue
		}
		var l Lease
		if err == nil {
			l, err = networkdLease(text)
		}
		if err == nil && l.AgentURL == "" {
			continue
		}
		if err == nil {
			l.Device, l.MAC, err = deviceOf(root, f.Name())
		}
		if err == nil {
			return l, true, nil
		}
		problems = append(problems, fmt.Errorf("reading networkd's lease %s: %w", f.Name(), err))
	}
	return Lease{}, false, errors.Join(problems...)
}

// networkdLease reads the URLs from a lease file: lines of KEY=value, options as OPTION_225=hex.
func networkdLease(text []byte) (l Lease, err error) {
	for line := range bytes.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(string(line)), "=")
		var into *string
		var scheme string
		switch key {
		case fmt.Sprintf("OPTION_%d", bootURLOption.Code()):
			into, scheme = &l.BootURL, "http"
		case fmt.Sprintf("OPTION_%d", agentURLOption.Code()):
			into, scheme = &l.AgentURL, "https"
		default:
			continue
		}
		option, err := hex.DecodeString(value)
		if err != nil {
			return Lease{}, fmt.Errorf("%s is not hex", key)
		}
		if len(option) == 0 { // the daemon's configuration leaves it empty
			continue
		}
		if *into, err = siteURL(option, scheme); err != nil {
			return Lease{}, fmt.Errorf("%s: %w", key, err)
		}
	}
	return l, nil
}

// deviceOf finds a network device by its index.
func deviceOf(root, index string) (string, net.HardwareAddr, error) {
	found, err := filepath.Glob(filepath.Join(root, "sys/class/net/*/ifindex"))
	if err != nil {
		return "", nil, err
	}
	for _, f := range found {
		text, err := os.ReadFile(f)
		if err != nil || strings.TrimSpace(string(text)) != index {
			continue
		}
		dir := filepath.Dir(f)
		address, err := os.ReadFile(filepath.Join(dir, "address"))
		if err != nil {
			return "", nil, err
		}
		mac, err := net.ParseMAC(strings.TrimSpace(string(address)))
		return filepath.Base(dir), mac, err
	}
	return "", nil, fmt.Errorf("there is no network device %s", index)
}
