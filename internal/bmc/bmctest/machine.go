// SPDX-License-Identifier: Apache-2.0

package bmctest

import (
	"context"
	"sync"
)

// Machine is what the BMC switches. Its methods are called from many requests at once.
type Machine interface {
	Powered(ctx context.Context) (bool, error)
	PowerOn(ctx context.Context) error
	PowerOff(ctx context.Context) error
	// Shutdown asks the operating system to go down (the ACPI power button); it returns before that is done.
	Shutdown(ctx context.Context) error
	// Reset restarts a powered machine at once.
	Reset(ctx context.Context) error
	// SetBootOnce sets Redfish's BootSourceOverrideTarget (None, UefiHttp, Pxe or Hdd) for the next boot, which consumes it.
	SetBootOnce(ctx context.Context, target string) error
	BootOnce(ctx context.Context) (string, error)
	Description() Description
}

// HTTPBooter is an optional ability of a Machine: to take the URI that its next UEFI HTTP boot fetches. A BMC whose machine
// has it not shows HttpBootUri as null and refuses to write it.
type HTTPBooter interface {
	SetHTTPBootURI(ctx context.Context, uri string) error
	HTTPBootURI(ctx context.Context) (string, error)
}

// Description is what the machine says of itself in its SMBIOS tables.
type Description struct {
	Manufacturer string
	Model        string
	SerialNumber string
	// UUID is the system UUID (SMBIOS type 1), as the firmware and DHCP option 97 show it.
	UUID        string
	BIOSVersion string
	// MACs are the addresses of the Ethernet ports, the boot port first.
	MACs []string
	// Processors and MemoryMiB may be left zero: then the BMC says nothing of them, as many do while the machine is off.
	Processors int
	MemoryMiB  int
}

// MemoryMachine is a Machine that is only a few variables.
type MemoryMachine struct {
	description Description

	mu      sync.Mutex
	powered bool
	once    string
	uri     string
	boots   []string
	busy    error
}

// NewMemoryMachine returns a machine that is off and has no boot override.
func NewMemoryMachine(d Description) *MemoryMachine {
	return &MemoryMachine{description: d, once: "None"}
}

// Description returns what NewMemoryMachine was given.
func (m *MemoryMachine) Description() Description { return m.description }

// Fail makes every later call of the machine return err, until it is called with nil.
func (m *MemoryMachine) Fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.busy = err
}

// Boots lists the boot target of each boot so far: the override that was consumed, or None.
func (m *MemoryMachine) Boots() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.boots...)
}

// Powered says whether the machine is on.
func (m *MemoryMachine) Powered(context.Context) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.powered, m.busy
}

// PowerOn boots the machine if it is off.
func (m *MemoryMachine) PowerOn(context.Context) error {
	return m.change(func() {
		if !m.powered {
			m.boot()
		}
	})
}

// PowerOff switches the machine off.
func (m *MemoryMachine) PowerOff(context.Context) error {
	return m.change(func() { m.powered = false })
}

// Shutdown switches the machine off: its operating system always obeys.
func (m *MemoryMachine) Shutdown(ctx context.Context) error { return m.PowerOff(ctx) }

// Reset boots the machine again if it is on.
func (m *MemoryMachine) Reset(context.Context) error {
	return m.change(func() {
		if m.powered {
			m.boot()
		}
	})
}

// SetBootOnce sets the override of the next boot.
func (m *MemoryMachine) SetBootOnce(_ context.Context, target string) error {
	return m.change(func() { m.once = target })
}

// BootOnce returns the override of the next boot.
func (m *MemoryMachine) BootOnce(context.Context) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.once, m.busy
}

// SetHTTPBootURI sets what the next UEFI HTTP boot fetches.
func (m *MemoryMachine) SetHTTPBootURI(_ context.Context, uri string) error {
	return m.change(func() { m.uri = uri })
}

// HTTPBootURI returns what the next UEFI HTTP boot fetches.
func (m *MemoryMachine) HTTPBootURI(context.Context) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.uri, m.busy
}

func (m *MemoryMachine) change(f func()) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.busy != nil {
		return m.busy
	}
	f()
	return nil
}

// boot consumes the override, as firmware does; the lock is held.
func (m *MemoryMachine) boot() {
	m.powered = true
	m.boots = append(m.boots, m.once)
	m.once = "None"
}
