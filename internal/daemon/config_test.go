// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"metald.io/metald/internal/inventory"
	"metald.io/metald/internal/inventory/etcd"
)

const head = "apiVersion: config.metald.io/v1alpha1\nkind: MetaldConfiguration\n"

// dhcp is a sound interface to spoil one key of.
const dhcp = head + `boot: {listen: "172.22.0.1:80"}
agents: {listen: "172.22.0.1:8443"}
api: {listen: "127.0.0.1:8443"}
dhcp:
  interfaces:
  - name: eth1
    server: 172.22.0.1
    subnet: 172.22.0.0/24
    range: 172.22.0.100-172.22.0.199
`

func TestConfigErrors(t *testing.T) {
	tests := []struct {
		name, file string
		want       []string // each line of the error, without the file's name
	}{
		{"empty", "", []string{" the file is empty: want apiVersion: config.metald.io/v1alpha1"}},
		{"not a mapping", "- a\n", []string{"1: : want keys and values"}},
		{"no version", "kind: MetaldConfiguration\n", []string{`1: apiVersion: "" is not a version this metald reads: want config.metald.io/v1alpha1`}},
		{"other kind", "apiVersion: config.metald.io/v1alpha1\nkind: Pod\n", []string{`2: kind: "Pod": want MetaldConfiguration`}},
		{"unknown key", head + "apii: {}\n", []string{`3: unknown key "apii": did you mean "api"?`}},
		{"unknown key in a list", dhcp + "    rooter: 172.22.0.254\n", []string{`12: unknown key "dhcp.interfaces[0].rooter": did you mean "router"?`}},
		{"unknown key like no other", head + "log:\n  colour: red\n", []string{`4: unknown key "log.colour": known here are format, level`}},
		{"twice", head + "log:\n  level: info\n  level: debug\n", []string{`5: key "log.level" is given twice, first in line 4`}},
		{"two faults are both told", head + "apii: {}\nlog: {leve: debug}\n", []string{
			`3: unknown key "apii": did you mean "api"?`, `4: unknown key "log.leve": did you mean "level"?`}},
		{"two documents", head + "---\n" + head, []string{" more than one document in the file"}},
		{"not a duration", head + "bmc: {pollInterval: often}\n", []string{`3: bmc.pollInterval: "often" is not a time.Duration`}},
		{"list for a value", head + "api: {listen: [a]}\n", []string{"3: api.listen: want one value"}},
		{"relative authentication", head + "api: {authentication: a.yaml}\n", []string{`3: api.authentication: "a.yaml": want an absolute path`}},
		{"value for a list", head + "api: {names: a}\n", []string{"3: api.names: want a list"}},
		{"alias", head + "api: &a {}\nagents: *a\n", []string{"4: agents: anchors and aliases are not read here: write the value out"}},
		{"no port", head + "api: {listen: 127.0.0.1}\n", []string{`3: api.listen: "127.0.0.1" is not address:port`}},
		{"port too high", head + "api: {listen: '127.0.0.1:84430'}\n", []string{`3: api.listen: "127.0.0.1:84430": 84430 is not a port`}},
		{"name for an address", head + "boot: {listen: 'host:80'}\n", []string{`3: boot.listen: "host:80": want an IP address of this machine before the port`}},
		{"one port twice", head + "agents: {listen: '127.0.0.1:8443'}\n", []string{"3: agents.listen: 127.0.0.1:8443 is api.listen already"}},
		{"plain URL for agents", head + "agents: {url: 'http://172.22.0.1'}\n", []string{`3: agents.url: "http://172.22.0.1": want https://host or https://host:port and nothing after it`}},
		{"URL with a path", head + "boot: {url: 'http://172.22.0.1/boot'}\n", []string{`3: boot.url: "http://172.22.0.1/boot": want http://host or http://host:port and nothing after it`}},
		{"sweep of a host", head + "bmc:\n  sweep: [10.0.0.0/24, 10.0.1.5/24]\n", []string{"4: bmc.sweep[1]: 10.0.1.5/24 has host bits set: want 10.0.1.0/24"}},
		{"etcd in the clear", head + "storage: {etcd: {endpoints: ['http://10.0.0.1:2379']}}\n", []string{
			`3: storage.etcd.endpoints[0]: "http://10.0.0.1:2379": want https for another machine: whoever can write to etcd owns every host`}},
		{"etcd without a port", head + "storage:\n  etcd:\n    endpoints: ['https://10.0.0.1']\n", []string{
			`5: storage.etcd.endpoints[0]: "https://10.0.0.1": want https://host:port and nothing after it`}},
		{"half an etcd", head + "storage:\n  etcd:\n    endpoints: ['https://10.0.0.1:2379', 'http://127.0.0.1:2379']\n    ca: ca.crt\n    key: /k\n    prefix: a/\n", []string{
			"5: storage.etcd.endpoints: some are https and some are not", `6: storage.etcd.ca: "ca.crt": want an absolute path`,
			"4: storage.etcd.certificate: certificate and key come together",
			`8: storage.etcd.prefix: prefix "a/": want one that begins with a slash and does not end with one, as /metald`}},
		{"certificate for nobody", head + "storage: {etcd: {endpoints: ['http://127.0.0.1:2379'], ca: /ca}}\n", []string{
			"3: storage.etcd.ca: is given, but no endpoint is https"}},
		{"etcd without endpoints", head + "storage: {etcd: {prefix: /x}}\n", []string{
			"3: storage.etcd.prefix: is given, but endpoints is empty: the inventory would be a file"}},
		{"log level", head + "log: {level: loud}\n", []string{`3: log.level: "loud": want debug, info, warn or error`}},
		{"no time to boot", head + "limits: {bootTimeout: 0s}\n", []string{"3: limits.bootTimeout: 0s is too short: want at least 1s"}},
		{"less than no cap", head + "limits: {destructiveActsPerHour: -2}\n", []string{
			"3: limits.destructiveActsPerHour: -2: want a number of acts, 0 for none allowed, or -1 for no cap"}},
		{"fewer than no boots", head + "limits: {bootsAtOnce: -1}\n", []string{"3: limits.bootsAtOnce: -1: want a number of hosts, or 0 for no limit"}},
		{"half an act", head + "limits: {destructiveActsPerHour: 1.5}\n", []string{`3: limits.destructiveActsPerHour: "1.5" is not a int`}},
		{"TFTP without a port", head + "tftp: {listen: 172.22.0.1}\n", []string{`3: tftp.listen: "172.22.0.1" is not address:port`}},
		{"loader that nobody serves", head + "tftp:\n  loaders: {amd64: /boot.efi}\n", []string{
			"4: tftp.loaders.amd64: is given, but tftp.listen is empty: nobody would serve it"}},
		{"loader somewhere", head + "tftp:\n  listen: :69\n  loaders: {arm64: boot.efi}\n", []string{
			`5: tftp.loaders.arm64: "boot.efi": want an absolute path`}},
		{"loader for a strange machine", head + "tftp:\n  listen: :69\n  loaders: {riscv: /boot.efi}\n", []string{
			`5: unknown key "tftp.loaders.riscv": known here are amd64, arm64`}},
		{"not a range", strings.Replace(dhcp, "172.22.0.100-172.22.0.199", "172.22.0.100", 1),
			[]string{`11: dhcp.interfaces[0].range: "172.22.0.100" is not a range: want first-last, as 172.22.0.100-172.22.0.199`}},
		{"range upside down", strings.Replace(dhcp, "100-172.22.0.199", "199-172.22.0.100", 1), []string{"11: dhcp.interfaces[0].range: 172.22.0.199 is after 172.22.0.100"}},
		{"range over the server", strings.Replace(dhcp, "172.22.0.100-", "172.22.0.1-", 1), []string{"11: dhcp.interfaces[0].range: holds the server's own address 172.22.0.1"}},
		{"range elsewhere", strings.Replace(dhcp, "172.22.0.100-172.22.0.199", "172.23.0.100-172.23.0.199", 1), []string{
			"11: dhcp.interfaces[0].range: 172.23.0.100 is outside of 172.22.0.0/24", "11: dhcp.interfaces[0].range: 172.23.0.199 is outside of 172.22.0.0/24"}},
		{"no range", strings.Replace(dhcp, "    range: 172.22.0.100-172.22.0.199\n", "", 1), []string{"8: dhcp.interfaces[0].range: must be given"}},
		{"IPv6", strings.Replace(dhcp, "172.22.0.0/24", "fd00::/64", 1), []string{"10: dhcp.interfaces[0].subnet: fd00::/64: only IPv4 is served"}},
		{"same interface twice", dhcp + `  - name: eth1
    server: 172.23.0.1
    subnet: 172.23.0.0/24
    range: 172.23.0.100-172.23.0.199
`, []string{`12: dhcp.interfaces[1].name: "eth1" is already dhcp.interfaces[0]`}},
		{"nowhere to boot from", strings.Replace(dhcp, `boot: {listen: "172.22.0.1:80"}`, "boot: {}", 1), []string{
			"3: boot.url: must be given: DHCP is on, and boot.listen does not say which address machines reach"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parseConfig("c.yaml", []byte(tt.file))
			if err == nil {
				t.Fatal("no error")
			}
			var got []string
			for line := range strings.SplitSeq(err.Error(), "\n") {
				got = append(got, strings.TrimPrefix(line, "c.yaml:"))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
		})
	}
}

var cmpAddr = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

func TestConfigDefaults(t *testing.T) {
	got, err := parseConfig("c.yaml", []byte(head))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(DefaultConfig(), got, cmpAddr); diff != "" {
		t.Errorf("a file with nothing but its head (-default +got):\n%s", diff)
	}
}

func TestConfigWhole(t *testing.T) {
	got, err := LoadConfig(filepath.Join("testdata", "whole.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		APIVersion: ConfigVersion,
		Kind:       ConfigKind,
		API:        APIConfig{Listen: "0.0.0.0:6443", Names: []string{"metald.example.com", "10.0.0.10"}},
		Agents:     AgentsConfig{Listen: ":8443", URL: "https://172.22.0.1:8443"},
		Boot:       BootConfig{Listen: "0.0.0.0:80", URL: "http://172.22.0.1"},
		DHCP: DHCPConfig{Interfaces: []DHCPInterface{{
			Name:      "br0",
			Server:    netip.MustParseAddr("172.22.0.1"),
			Subnet:    netip.MustParsePrefix("172.22.0.0/24"),
			Range:     AddressRange{First: netip.MustParseAddr("172.22.0.100"), Last: netip.MustParseAddr("172.22.0.199")},
			Router:    netip.MustParseAddr("172.22.0.254"),
			DNS:       []netip.Addr{netip.MustParseAddr("10.0.0.53"), netip.MustParseAddr("10.0.0.54")},
			LeaseTime: 10 * time.Minute, BesideOthers: true,
		}}},
		TFTP: TFTPConfig{Listen: ":69", Loaders: LoadersConfig{AMD64: "/usr/lib/ipxe/ipxe.efi", ARM64: "/opt/ipxe/arm64/snponly.efi"}},
		BMC: BMCConfig{PollInterval: 5 * time.Second, Sweep: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")},
			SweepInterval: 15 * time.Minute},
		Limits: LimitsConfig{BootTimeout: 5 * time.Minute, JoinTimeout: 6 * time.Minute, DestructiveActsPerHour: -1, BootsAtOnce: 2},
		Log:    LogConfig{Format: "json", Level: "debug"},
	}
	if diff := cmp.Diff(want, got, cmpAddr); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	if got, want := got.ServerURL(), "https://127.0.0.1:6443"; got != want {
		t.Errorf("server URL: got %s, want %s", got, want)
	}
	if diff := cmp.Diff([]string{"metald.example.com", "10.0.0.10", "172.22.0.1", "172.22.0.1"}, got.CertificateNames()); diff != "" {
		t.Errorf("certificate names (-want +got):\n%s", diff)
	}
}

// The example that people start from must itself be right, and say the true defaults.
func TestConfigExample(t *testing.T) {
	got, err := LoadConfig(filepath.Join("..", "..", "deploy", "metald.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	want := DefaultConfig()
	want.Agents = AgentsConfig{Listen: "172.22.0.1:9443", URL: "https://172.22.0.1:9443"}
	want.Boot = BootConfig{Listen: "172.22.0.1:80", URL: "http://172.22.0.1"}
	if diff := cmp.Diff(want, got, cmpAddr, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("deploy/metald.yaml (-defaults +file):\n%s", diff)
	}
}

// Each commented line of the example is a key that exists: uncommenting all of them gives a file that is read.
func TestConfigExampleUncommented(t *testing.T) {
	text := uncomment(t, filepath.Join("..", "..", "deploy", "metald.yaml"))
	got, err := parseConfig("uncommented", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if len(got.DHCP.Interfaces) != 1 || len(got.BMC.Sweep) != 1 || len(got.API.Names) != 2 {
		t.Errorf("uncommented example lost something: %+v", got)
	}
	if got.TFTP.Listen != ":69" || got.TFTP.Loaders.ARM64 == "" {
		t.Errorf("uncommented example lost TFTP: %+v", got.TFTP)
	}
	if got.TFTP.Loaders.AMD64 != debianLoader {
		t.Errorf("the loader that deploy/metald.yaml tells: got %s, want the default %s", got.TFTP.Loaders.AMD64, debianLoader)
	}
	if i := got.DHCP.Interfaces[0]; i.BesideOthers || i.LeaseTime != time.Hour {
		t.Errorf("the example tells besideOthers %v and leaseTime %s, want the defaults false and 1h", i.BesideOthers, i.LeaseTime)
	}
	got.DHCP, got.TFTP, got.BMC.Sweep, got.API.Names = DHCPConfig{}, TFTPConfig{}, nil, nil
	want := DefaultConfig()
	want.Agents = AgentsConfig{Listen: "172.22.0.1:9443", URL: "https://172.22.0.1:9443"}
	want.Boot = BootConfig{Listen: "172.22.0.1:80", URL: "http://172.22.0.1"}
	want.Storage.Encryption = "/etc/metald/encryption.yaml" // shows another than the default
	want.API.Authentication = "/etc/metald/authentication.yaml"
	if e := got.Storage.Etcd; !e.Used() || e.CA == "" || e.Certificate == "" || e.Key == "" || e.Prefix != etcd.DefaultPrefix {
		t.Errorf("uncommented example lost etcd, or does not tell its default prefix: %+v", e)
	}
	got.Storage.Etcd = inventory.EtcdConfig{}
	if diff := cmp.Diff(want, got, cmpAddr); diff != "" {
		t.Errorf("the defaults that deploy/metald.yaml tells (-true +told):\n%s", diff)
	}
}

// TFTP that is opened without a word about loaders serves Debian's.
func TestConfigLoader(t *testing.T) {
	for file, want := range map[string]LoadersConfig{
		"":                        {},
		"tftp: {listen: ':69'}\n": {AMD64: debianLoader},
		"tftp: {listen: ':69', loaders: {arm64: /a.efi}}\n": {ARM64: "/a.efi"},
	} {
		got, err := parseConfig("c.yaml", []byte(head+file))
		if err != nil || got.TFTP.Loaders != want {
			t.Errorf("%q: got %+v, %v; want %+v", file, got.TFTP.Loaders, err, want)
		}
	}
}

// A loader that is not there stops the daemon with the key and the package to install; what TFTP does not serve is not looked at.
func TestReadLoaders(t *testing.T) {
	none := filepath.Join(t.TempDir(), "snponly.efi")
	_, err := readLoaders(TFTPConfig{Listen: ":69", Loaders: LoadersConfig{AMD64: none}})
	want := "reading tftp.loaders.amd64 of the configuration: loader " + none + " does not exist: Debian's package ipxe has"
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got  %v\nwant %s ...", err, want)
	}
	if got, err := readLoaders(TFTPConfig{Loaders: LoadersConfig{AMD64: none}}); len(got) != 0 || err != nil {
		t.Errorf("closed: got %v, %v; want nothing", got, err)
	}
	if err := os.WriteFile(none, []byte("MZ"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := readLoaders(TFTPConfig{Listen: ":69", Loaders: LoadersConfig{AMD64: none, ARM64: none}})
	if err != nil || len(got) != 2 || got[0].Name == got[1].Name {
		t.Errorf("two architectures: got %v, %v; want two loaders of different names", got, err)
	}
}

func TestNoConfigIsNotBadConfig(t *testing.T) {
	_, err := LoadConfig(filepath.Join(t.TempDir(), "none.yaml"))
	if !errors.Is(err, ErrNoConfig) {
		t.Errorf("missing file: got %v, want ErrNoConfig", err)
	}
	_, err = LoadConfig(t.TempDir())
	if err == nil || errors.Is(err, ErrNoConfig) {
		t.Errorf("a directory: got %v, want an error that is not ErrNoConfig", err)
	}
}

func TestDeriveURL(t *testing.T) {
	one := DHCPConfig{Interfaces: []DHCPInterface{{Server: netip.MustParseAddr("172.22.0.1")}}}
	two := DHCPConfig{Interfaces: append(one.Interfaces, one.Interfaces...)}
	tests := []struct {
		listen string
		dhcp   DHCPConfig
		want   string
	}{
		{"10.0.0.1:80", DHCPConfig{}, "http://10.0.0.1"},
		{"10.0.0.1:8080", two, "http://10.0.0.1:8080"},
		{"[fd00::1]:80", DHCPConfig{}, "http://[fd00::1]"},
		{":80", one, "http://172.22.0.1"},
		{"[::]:8080", one, "http://172.22.0.1:8080"},
		{":80", two, ""},
		{":80", DHCPConfig{}, ""},
		{"", one, ""},
	}
	for _, tt := range tests {
		if got := deriveURL("http", tt.listen, "80", tt.dhcp); got != tt.want {
			t.Errorf("deriveURL(%q, %d networks): got %q, want %q", tt.listen, len(tt.dhcp.Interfaces), got, tt.want)
		}
	}
}
