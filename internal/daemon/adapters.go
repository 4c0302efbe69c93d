// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/apiserver"
	"metald.io/metald/internal/bmc"
	"metald.io/metald/internal/desk"
	"metald.io/metald/internal/inventory"
	"metald.io/metald/internal/provision"
	"metald.io/metald/internal/pxe"
)

// registrar lets the desk ask the mind who a machine may be.
type registrar struct{ mind *provision.Mind }

func (r registrar) Identify(_ context.Context, hello v1alpha1.Hello, _ netip.Addr) (desk.Identified, error) {
	ek := ""
	if hello.TPM != nil {
		sum := sha256.Sum256(hello.TPM.EK)
		ek = hex.EncodeToString(sum[:])
	}
	c := r.mind.Identify(hello, ek)
	return desk.Identified{Known: c.Known, Host: c.Host, Epoch: c.Epoch, PinnedEK: c.PinnedEK, NoTPM: c.NoTPM, Refuse: c.Refuse}, nil
}

func (r registrar) Epoch(_ context.Context, host v1alpha1.HostRef) (int64, error) {
	return r.mind.Epoch(host)
}

// orders lets the desk ask the mind what an agent shall do.
type orders struct{ mind *provision.Mind }

func (o orders) Next(ctx context.Context, s desk.Session) (v1alpha1.Order, error) {
	c := provision.Caller{Host: s.Host, Epoch: s.Epoch, Mode: s.Mode, BootID: s.BootID}
	if s.RemoteIP.IsValid() {
		c.IP = s.RemoteIP.Unmap().String()
	}
	return o.mind.Next(ctx, c)
}

// controllers is the way to real BMCs.
type controllers struct{}

func (controllers) Certificate(ctx context.Context, a bmc.Address) (string, *x509.Certificate, error) {
	return bmc.Certificate(ctx, a)
}

func (controllers) Dial(ctx context.Context, t bmc.Target) (bmc.Controller, error) {
	return bmc.Dial(ctx, t)
}

func (controllers) Sweep(ctx context.Context, prefixes []netip.Prefix, found func(bmc.Found)) error {
	return bmc.Sweep(ctx, prefixes, bmc.SweepOptions{}, found)
}

// leases keeps DHCP leases as raw records in the inventory's file.
type leases struct{ records *inventory.Records }

func (l leases) Leases(ctx context.Context) ([]pxe.Lease, error) {
	all, err := l.records.All(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading leases: %w", err)
	}
	list := make([]pxe.Lease, 0, len(all))
	for key, data := range all {
		var lease pxe.Lease
		if err := json.Unmarshal(data, &lease); err != nil {
			return nil, fmt.Errorf("reading lease %s: %w", key, err)
		}
		list = append(list, lease)
	}
	return list, nil
}

func (l leases) Save(ctx context.Context, lease pxe.Lease) error {
	data, err := json.Marshal(lease)
	if err != nil {
		return err
	}
	return l.records.Put(ctx, lease.Key(), data)
}

func (l leases) Remove(ctx context.Context, lease pxe.Lease) error {
	return l.records.Delete(ctx, lease.Key())
}

// readLoaders takes in what TFTP serves; nothing while it is closed.
func readLoaders(c TFTPConfig) (loaders []pxe.Loader, err error) {
	if c.Listen == "" {
		return nil, nil
	}
	for _, l := range c.Loaders.all() {
		if l[1] == "" {
			continue
		}
		loader, err := pxe.ReadLoader(l[0], l[1])
		if err != nil {
			return nil, fmt.Errorf("reading tftp.loaders.%s of the configuration: %w", l[0], err)
		}
		loaders = append(loaders, loader)
	}
	return loaders, nil
}

// holders are the DHCP servers, who know which host holds an address.
type holders []*pxe.DHCP

func (h holders) host(ip netip.Addr) (string, bool) {
	for _, d := range h {
		if host, ok := d.Holder(ip); ok {
			return host, true
		}
	}
	return "", false
}

// transfers tells the mind which host a boot file goes to: the one that holds the address.
type transfers struct {
	mind *provision.Mind
	holders
}

func (t transfers) Began(ip netip.Addr, digest string) {
	if host, _ := t.host(ip); host != "" {
		t.mind.TransferBegan(host, digest)
	}
}

func (t transfers) Ended(ip netip.Addr, digest string, whole bool) {
	if host, _ := t.host(ip); host != "" {
		t.mind.TransferEnded(host, digest, whole)
	}
}

// CheckFiles looks into the files that the configuration names and the API reads.
func (c Config) CheckFiles() error {
	if err := authentication(c.API.Authentication).Check(); err != nil {
		return fmt.Errorf("reading api.authentication of the configuration: %w", err)
	}
	return nil
}

// authentication is the file that says whose tokens let in, for the API to read; a path of "" is none.
func authentication(path string) apiserver.Document {
	if path == "" {
		return apiserver.Document{}
	}
	return apiserver.Document{Name: path, Read: func() ([]byte, error) { return os.ReadFile(path) }}
}
