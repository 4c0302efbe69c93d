// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"

	"metald.io/metald/internal/daemon"
)

// serviceUnit is what a release installs to run the daemon.
const serviceUnit = "metald.service"

// setupText is the least configuration of a daemon that boots machines: one network, all doors on one address.
const setupText = `# Written by metald setup. What else can be said, and what the defaults are: /usr/share/doc/metald/examples/config.yaml
apiVersion: config.metald.io/v1alpha1
kind: MetaldConfiguration
agents:
  listen: %[1]s:9443
boot:
  listen: %[1]s:80
dhcp:
  interfaces:
  - name: %[2]s
    server: %[1]s
    subnet: %[3]s
    range: %[4]s
`

// releasedLoader is what PXE firmware fetches first, where a release was installed.
const releasedLoader = "/usr/share/metald/snponly.efi"

// setupTFTP serves it; firmware that boots over HTTP needs none.
const setupTFTP = `tftp:
  listen: %s:69
  loaders:
    amd64: %s
`

func newSetupCommand() *cobra.Command {
	var iface, address, addresses, config, loader string
	var start bool
	c := &cobra.Command{
		Use: "setup --interface NAME --range FIRST-LAST", Short: "Write the first configuration and start the service",
		Long: `Write the configuration for one provisioning network, and have systemd start the daemon, now and at each boot.

The interface must have its address already; DHCP hands out the range that is given and nothing else, and must be the only DHCP
server of that network. A configuration that is there is not changed: edit it and restart the service.`,
		Example: "  metald setup --interface eth1 --range 172.22.0.100-172.22.0.199",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if iface == "" || addresses == "" {
				return usageErrorf("--interface and --range are needed")
			}
			server, err := addressOf(iface, address)
			if err != nil {
				return err
			}
			text := fmt.Appendf(nil, setupText, server.Addr(), iface, server.Masked(), addresses)
			if _, err := os.Stat(loader); err == nil {
				text = fmt.Appendf(text, setupTFTP, server.Addr(), loader)
			}
			if err := writeConfig(config, text); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s: DHCP and boot files on %s (%s), %s handed out\n", config, iface, server.Masked(), addresses)
			if !start {
				return nil
			}
			return startService(c.Context(), c.OutOrStdout(), config)
		},
	}
	c.Flags().StringVar(&iface, "interface", "", "the network interface that machines boot from")
	c.Flags().StringVar(&address, "address", "", "which of the interface's addresses to serve on, where it has several")
	c.Flags().StringVar(&addresses, "range", "", "the addresses that DHCP hands out, both ends included")
	c.Flags().StringVar(&config, "config", defaultConfig, "configuration file")
	c.Flags().StringVar(&loader, "loader", releasedLoader, "what PXE firmware fetches first; without that file there is no TFTP")
	c.Flags().BoolVar(&start, "start", true, "start the service")
	return c
}

// addressOf is the wanted IPv4 address of an interface, or its only one, with its network.
func addressOf(iface, wanted string) (netip.Prefix, error) {
	i, err := net.InterfaceByName(iface)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("looking at interface %s: %w", iface, err)
	}
	addrs, err := i.Addrs()
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("looking at interface %s: %w", iface, err)
	}
	var found []netip.Prefix
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLinkLocalUnicast() &&
			(wanted == "" || p.Addr().String() == wanted) {
			found = append(found, p)
		}
	}
	switch {
	case len(found) == 0 && wanted != "":
		return netip.Prefix{}, fmt.Errorf("interface %s does not have the address %s", iface, wanted)
	case len(found) == 0:
		return netip.Prefix{}, fmt.Errorf("interface %s has no IPv4 address: give it one first (ip address add 172.22.0.1/24 dev %s)", iface, iface)
	case len(found) > 1:
		return netip.Prefix{}, fmt.Errorf("interface %s has %d IPv4 addresses: say with --address which one to serve on", iface, len(found))
	}
	return found[0], nil
}

// writeConfig writes a configuration that the daemon will accept, and never over another one.
func writeConfig(path string, text []byte) error {
	old, err := os.ReadFile(path)
	if err == nil && bytes.Equal(old, text) {
		return nil
	}
	if err == nil {
		return fmt.Errorf("there is a configuration already: edit %s, then systemctl restart %s", path, serviceUnit)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the configuration: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("writing the configuration: %w", err)
	}
	fresh, err := os.CreateTemp(filepath.Dir(path), ".config-*.yaml")
	if err != nil {
		return fmt.Errorf("writing the configuration: %w", err)
	}
	defer os.Remove(fresh.Name())
	_, err = fresh.Write(text)
	if err := errors.Join(err, fresh.Chmod(0o644), fresh.Sync(), fresh.Close()); err != nil {
		return fmt.Errorf("writing the configuration: %w", err)
	}
	if _, err := daemon.LoadConfig(fresh.Name()); err != nil {
		return fmt.Errorf("checking what was asked for: %w", err)
	}
	// A link, unlike a rename, does not replace what somebody else has put there meanwhile.
	if err := os.Link(fresh.Name(), path); err != nil {
		return fmt.Errorf("writing the configuration: %w", err)
	}
	return nil
}

// startService has systemd start the daemon; metald.service is ready only when the daemon serves.
func startService(ctx context.Context, out io.Writer, config string) error {
	// sd_booted(3) looks at the same folder.
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		_, err := fmt.Fprintf(out, "systemd does not run here; start the daemon with: metald serve --config %s\n", config)
		return err
	}
	for _, verb := range []string{"enable", "restart"} {
		if text, err := exec.CommandContext(ctx, "systemctl", "--quiet", verb, serviceUnit).CombinedOutput(); err != nil {
			return fmt.Errorf("starting the service: systemctl %s: %w: %s", verb, err, bytes.TrimSpace(text))
		}
	}
	_, err := fmt.Fprintln(out, serviceUnit+" is up, and starts with the machine; next: metald import hosts.csv")
	return err
}
