// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"metald.io/metald/internal/cluster"
	"metald.io/metald/internal/inventory"
)

const (
	// ConfigVersion and ConfigKind head every configuration file.
	ConfigVersion = "config.metald.io/v1alpha1"
	ConfigKind    = "MetaldConfiguration"
)

// ErrNoConfig says that there is no configuration file, which is another matter than one that is wrong.
var ErrNoConfig = errors.New("no configuration file")

// Config is all that a person decides about one daemon. LoadConfig fills in the defaults and checks the whole.
type Config struct {
	APIVersion string        `yaml:"apiVersion"`
	Kind       string        `yaml:"kind"`
	API        APIConfig     `yaml:"api"`
	Agents     AgentsConfig  `yaml:"agents"`
	Boot       BootConfig    `yaml:"boot"`
	DHCP       DHCPConfig    `yaml:"dhcp"`
	TFTP       TFTPConfig    `yaml:"tftp"`
	BMC        BMCConfig     `yaml:"bmc"`
	Storage    StorageConfig `yaml:"storage"`
	Limits     LimitsConfig  `yaml:"limits"`
	Log        LogConfig     `yaml:"log"`
}

// APIConfig is the users' door.
type APIConfig struct {
	// Listen is the address and port of the Kubernetes API, TLS only.
	Listen string `yaml:"listen"`
	// Names are further DNS names and IP addresses for the serving certificate.
	Names []string `yaml:"names"`
	// Authentication is the path of an AuthenticationConfiguration (apiserver.config.k8s.io/v1), which says whose OpenID Connect
	// tokens let in beside client certificates; empty is nobody's. It is read again when it changes.
	Authentication string `yaml:"authentication"`
}

// AgentsConfig is the agents' door.
type AgentsConfig struct {
	// Listen is the address and port, TLS only; empty closes the door.
	Listen string `yaml:"listen"`
	// URL is how agents reach it; derived from Listen where that names one address.
	URL string `yaml:"url"`
}

// BootConfig is the plain HTTP server that firmware fetches boot files from.
type BootConfig struct {
	// Listen is the address and port; empty closes the server.
	Listen string `yaml:"listen"`
	// URL is how machines reach it; derived from Listen where that names one address.
	URL string `yaml:"url"`
}

// DHCPConfig says where DHCP answers: nowhere until an interface is listed.
type DHCPConfig struct {
	Interfaces []DHCPInterface `yaml:"interfaces"`
}

// DHCPInterface is one network that metald hands out addresses on.
type DHCPInterface struct {
	// Name is the network interface.
	Name string `yaml:"name"`
	// Server is metald's own address there, the DHCP server identifier.
	Server netip.Addr `yaml:"server"`
	// Subnet is the network as a prefix.
	Subnet netip.Prefix `yaml:"subnet"`
	// Range is what is handed out.
	Range AddressRange `yaml:"range"`
	// Router is the default gateway that machines are told; none where empty.
	Router netip.Addr `yaml:"router"`
	// DNS are the name servers that machines are told.
	DNS []netip.Addr `yaml:"dns"`
	// LeaseTime is how long an address is lent.
	LeaseTime time.Duration `yaml:"leaseTime"`
	// BesideOthers lets metald answer here although another DHCP server does. Unsafe unless ranges and hosts are kept apart.
	BesideOthers bool `yaml:"besideOthers"`
}

// TFTPConfig is the TFTP server that PXE firmware fetches its first loader from. Firmware that boots over HTTP needs none.
type TFTPConfig struct {
	// Listen is the address and port; empty closes the server.
	Listen string `yaml:"listen"`
	// Loaders are the files that it serves, and all that it serves.
	Loaders LoadersConfig `yaml:"loaders"`
}

// LoadersConfig has a UEFI network boot program for each architecture, such as iPXE's snponly.efi; none where empty.
type LoadersConfig struct {
	AMD64 string `yaml:"amd64"`
	ARM64 string `yaml:"arm64"`
}

// all are the loaders by architecture, in a fixed order.
func (l LoadersConfig) all() [][2]string {
	return [][2]string{{"amd64", l.AMD64}, {"arm64", l.ARM64}}
}

// AddressRange is inclusive at both ends; in the file it reads "172.22.0.100-172.22.0.199".
type AddressRange struct{ First, Last netip.Addr }

// UnmarshalText reads "first-last".
func (r *AddressRange) UnmarshalText(text []byte) error {
	first, last, found := strings.Cut(string(text), "-")
	if !found {
		return fmt.Errorf("%q is not a range: want first-last, as 172.22.0.100-172.22.0.199", text)
	}
	var err error
	if r.First, err = netip.ParseAddr(strings.TrimSpace(first)); err != nil {
		return fmt.Errorf("%q is not a range: %w", text, err)
	}
	if r.Last, err = netip.ParseAddr(strings.TrimSpace(last)); err != nil {
		return fmt.Errorf("%q is not a range: %w", text, err)
	}
	return nil
}

// BMCConfig is how baseboard controllers are looked after.
type BMCConfig struct {
	// PollInterval is how often each host's power is read.
	PollInterval time.Duration `yaml:"pollInterval"`
	// Sweep are the networks in which strange BMCs are looked for; none by default.
	Sweep []netip.Prefix `yaml:"sweep"`
	// SweepInterval is how often they are searched.
	SweepInterval time.Duration `yaml:"sweepInterval"`
}

// StorageConfig is how the inventory is kept.
type StorageConfig struct {
	// Encryption is the path of an EncryptionConfiguration (apiserver.config.k8s.io/v1) for Secrets, for instance with a KMS
	// plug-in; empty is encryption.yaml in the data directory, made with a key of its own at the first start.
	Encryption string `yaml:"encryption"`
	// Etcd is where the inventory is kept instead of in a file of the data directory; no endpoints is a file.
	Etcd inventory.EtcdConfig `yaml:"etcd"`
}

// LimitsConfig bounds what metald waits for, and what it does at a time. How long a host may stay in a state is part of the state table, not of the
// configuration.
type LimitsConfig struct {
	// BootTimeout is how long a boot that was ordered may take until the agent speaks.
	BootTimeout time.Duration `yaml:"bootTimeout"`
	// JoinTimeout is how long a bootstrap token lives, at most ten minutes.
	JoinTimeout time.Duration `yaml:"joinTimeout"`
	// DestructiveActsPerHour caps erases, image writes and power-offs of running hosts, all hosts together: 0 is none allowed,
	// -1 no cap.
	DestructiveActsPerHour int `yaml:"destructiveActsPerHour"`
	// BootsAtOnce is how many hosts may be on their way from power-on to their agent; 0 is no limit.
	BootsAtOnce int `yaml:"bootsAtOnce"`
}

// LogConfig is how the daemon speaks to its operator.
type LogConfig struct {
	// Format is text or json.
	Format string `yaml:"format"`
	// Level is debug, info, warn or error.
	Level string `yaml:"level"`
}

// DefaultConfig is a daemon that serves its API on loopback and touches no network.
func DefaultConfig() Config {
	return Config{
		APIVersion: ConfigVersion,
		Kind:       ConfigKind,
		API:        APIConfig{Listen: "127.0.0.1:8443"},
		BMC:        BMCConfig{PollInterval: 30 * time.Second, SweepInterval: 10 * time.Minute},
		Limits: LimitsConfig{
			// A server with 2 TB of memory takes more than ten minutes to train it before it asks the network for anything.
			BootTimeout: 20 * time.Minute,
			JoinTimeout: cluster.MaxGrant,
			// Enough for a person's work on a few hosts, too few for a mistake to reach a whole rack within the hour.
			DestructiveActsPerHour: 20,
		},
		Log: LogConfig{Format: "text", Level: "info"},
	}
}

// LoadConfig reads, completes and checks a configuration file. An error says each thing that is wrong, with the file's name and
// the line; a file that does not exist is ErrNoConfig.
func LoadConfig(path string) (Config, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Config{}, fmt.Errorf("%w at %s", ErrNoConfig, path)
	}
	if err != nil {
		return Config{}, fmt.Errorf("reading configuration: %w", err)
	}
	return parseConfig(path, data)
}

func parseConfig(file string, data []byte) (Config, error) {
	c := DefaultConfig()
	// The head has no default: a file must say which version of the format it is written in.
	c.APIVersion, c.Kind = "", ""
	lines, err := decodeStrictly(file, data, &c)
	if err != nil {
		return Config{}, err
	}
	c.complete()
	if err := c.check(file, lines); err != nil {
		return Config{}, err
	}
	return c, nil
}

// debianLoader is where Debian's package ipxe has the loader that runs on any UEFI network driver.
const debianLoader = "/usr/lib/ipxe/snponly.efi"

// complete derives what follows from what was said.
func (c *Config) complete() {
	if c.TFTP.Listen != "" && c.TFTP.Loaders == (LoadersConfig{}) {
		c.TFTP.Loaders.AMD64 = debianLoader
	}
	if c.Agents.URL == "" {
		c.Agents.URL = deriveURL("https", c.Agents.Listen, "443", c.DHCP)
	}
	if c.Boot.URL == "" {
		c.Boot.URL = deriveURL("http", c.Boot.Listen, "80", c.DHCP)
	}
	for i := range c.DHCP.Interfaces {
		if c.DHCP.Interfaces[i].LeaseTime == 0 {
			c.DHCP.Interfaces[i].LeaseTime = time.Hour
		}
	}
}

// deriveURL is how machines reach a listener: its own address, or, where it listens on all, metald's address on the only DHCP
// network. With several networks there is no one answer, and the person must say.
func deriveURL(scheme, listen, usual string, dhcp DHCPConfig) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return ""
	}
	if addr, err := netip.ParseAddr(host); host == "" || err == nil && addr.IsUnspecified() {
		if len(dhcp.Interfaces) != 1 || !dhcp.Interfaces[0].Server.IsValid() {
			return ""
		}
		host = dhcp.Interfaces[0].Server.String()
	}
	if port == usual {
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		return scheme + "://" + host
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}

// ServerURL is where a client on this machine reaches the API.
func (c Config) ServerURL() string {
	host, port, err := net.SplitHostPort(c.API.Listen)
	if err != nil {
		return ""
	}
	if addr, err := netip.ParseAddr(host); host == "" || err == nil && addr.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "https://" + net.JoinHostPort(host, port)
}

// CertificateNames is every name and address that clients and agents of this daemon may call it by.
func (c Config) CertificateNames() []string {
	names := append([]string{}, c.API.Names...)
	for _, listen := range []string{c.API.Listen, c.Agents.Listen} {
		host, _, err := net.SplitHostPort(listen)
		if addr, parseErr := netip.ParseAddr(host); err == nil && host != "" && !(parseErr == nil && addr.IsUnspecified()) {
			names = append(names, host)
		}
	}
	if u, err := url.Parse(c.Agents.URL); err == nil && u.Hostname() != "" {
		names = append(names, u.Hostname())
	}
	for _, d := range c.DHCP.Interfaces {
		names = append(names, d.Server.String())
	}
	return names
}
