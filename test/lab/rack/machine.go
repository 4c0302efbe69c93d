// SPDX-License-Identifier: Apache-2.0

package rack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"metald.io/metald/internal/bmc/bmctest"
)

// The one-time boot targets, in Redfish's words. A machine's firmware boots from the network in one of two ways.
const (
	bootNone = "None"
	bootHTTP = "UefiHttp"
	bootPXE  = "Pxe"
	bootDisk = "Hdd"
)

// Machine is a QEMU virtual machine as its BMC sees it: off is no process, on is a process. It runs inside the rack's
// network namespace and outlives the program that started it.
type Machine struct {
	rack *Rack
	spec Spec
	log  *slog.Logger

	mu   sync.Mutex
	qemu *qmp
}

var _ bmctest.Machine = (*Machine)(nil)

// OpenMachine finds the machine's files, makes them where they are missing, and takes over a QEMU that still runs.
func OpenMachine(ctx context.Context, r *Rack, spec Spec, logger *slog.Logger) (*Machine, error) {
	m := &Machine{rack: r, spec: spec, log: logger}
	for _, dir := range []string{m.path("tpm"), r.sockets(), r.Path("run"), r.Path("log")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("making machine %s: %w", spec.Name, err)
		}
	}
	if _, err := os.Stat(m.path("vars.fd")); errors.Is(err, os.ErrNotExist) {
		if err := copyFile(m.path("vars.fd"), firmwareVars); err != nil {
			return nil, fmt.Errorf("making the firmware's variables of %s: %w", spec.Name, err)
		}
	}
	disk, err := os.OpenFile(m.rack.DiskFile(m.spec.Name), os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("making the disk of %s: %w", spec.Name, err)
	}
	defer disk.Close()
	if err := disk.Truncate(diskBytes); err != nil { // sparse: it costs what is written to it
		return nil, fmt.Errorf("making the disk of %s: %w", spec.Name, err)
	}
	if _, ok := r.Running(m.qemuName()); ok {
		if m.qemu, err = dialQMP(ctx, m.socket("qmp"), m.event); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *Machine) path(name string) string   { return m.rack.Path("machines", m.spec.Name, name) }
func (m *Machine) socket(name string) string { return m.rack.socket(m.spec.Name, name) }
func (m *Machine) qemuName() string          { return m.spec.Name + ".qemu" }
func (m *Machine) tpmName() string           { return m.spec.Name + ".swtpm" }

func (r *Rack) socket(machine, name string) string {
	return filepath.Join(r.sockets(), machine+"."+name)
}

// Description implements bmctest.Machine.
func (m *Machine) Description() bmctest.Description {
	return bmctest.Description{
		Manufacturer: manufacturer, Model: product, SerialNumber: m.spec.Serial, UUID: m.spec.UUID,
		BIOSVersion: "OVMF 2022.11", MACs: []string{m.spec.MAC},
	}
}

// Powered implements bmctest.Machine.
func (m *Machine) Powered(context.Context) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.on(), nil
}

// on asks for the process too: the connection of a QEMU that was killed lives for a moment longer.
func (m *Machine) on() bool {
	if m.qemu == nil || !m.qemu.alive() {
		return false
	}
	_, running := m.rack.Running(m.qemuName())
	return running
}

// SetBootOnce implements bmctest.Machine. On a running machine it takes effect at its next reset.
func (m *Machine) SetBootOnce(ctx context.Context, target string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !slices.Contains(m.spec.bootTargets(), target) {
		return fmt.Errorf("setting the one-time boot of %s: its firmware cannot boot from %s", m.spec.Name, target)
	}
	if err := os.WriteFile(m.path("boot-once"), []byte(target), 0o644); err != nil {
		return fmt.Errorf("setting the one-time boot of %s: %w", m.spec.Name, err)
	}
	if m.on() {
		if err := m.aim(ctx, target); !errors.Is(err, errGone) {
			return err
		}
	}
	return nil // it is off, and told when it starts
}

// BootOnce implements bmctest.Machine.
func (m *Machine) BootOnce(context.Context) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.once()
}

func (m *Machine) once() (string, error) {
	text, err := os.ReadFile(m.path("boot-once"))
	if errors.Is(err, os.ErrNotExist) {
		return bootNone, nil
	}
	if err != nil {
		return "", fmt.Errorf("reading the one-time boot of %s: %w", m.spec.Name, err)
	}
	return string(text), nil
}

// aim sets what the firmware will be told at the next reset. QEMU hands the firmware its list of boot devices when the
// machine resets, so a change now does not touch the boot that runs. A device without an index is not tried at all.
func (m *Machine) aim(ctx context.Context, target string) error {
	index := -1
	if target == m.spec.Network {
		index = 0
	}
	return m.qemu.do(ctx, "qom-set", map[string]any{"path": "/machine/peripheral/nic0", "property": "bootindex", "value": index})
}

// consume forgets the one-time boot because a boot has just followed it.
func (m *Machine) consume(ctx context.Context) error {
	if err := os.Remove(m.path("boot-once")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("clearing the one-time boot of %s: %w", m.spec.Name, err)
	}
	return m.aim(ctx, bootNone)
}

func (m *Machine) event(name string) {
	if name != "RESET" {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.on() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := m.consume(ctx); err != nil && !errors.Is(err, errGone) {
		m.log.Error("clearing the one-time boot", "host", m.spec.Name, "err", err)
	}
}

// PowerOn implements bmctest.Machine.
func (m *Machine) PowerOn(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.on() {
		return nil
	}
	m.log.Info("power on", "host", m.spec.Name)
	once, err := m.once()
	if err != nil {
		return err
	}
	if err := m.startTPM(ctx); err != nil {
		return err
	}
	os.Remove(m.socket("qmp"))
	if err := m.spawn(m.qemuName(), append([]string{"qemu-system-x86_64"}, m.arguments(once)...)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	if m.qemu, err = dialQMP(ctx, m.socket("qmp"), m.event); err != nil {
		return fmt.Errorf("powering on %s: %w: %s", m.spec.Name, err, m.rack.lastLine(m.qemuName()))
	}
	// It was started paused, with its boot list already laid out: what is set now counts from the reset after this boot.
	if err := m.consume(ctx); err != nil {
		return err
	}
	return m.qemu.do(ctx, "cont", nil)
}

// spawn starts a program in the namespace where this one runs already.
func (m *Machine) spawn(name string, argv []string) error {
	out, err := os.OpenFile(m.rack.Log(name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("starting %s: %w", name, err)
	}
	defer out.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", name, err)
	}
	go cmd.Wait()
	return m.rack.record(name, cmd.Process.Pid)
}

// PowerOff implements bmctest.Machine: the plug is pulled.
func (m *Machine) PowerOff(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.on() {
		m.qemu.conn.Close()
		<-m.qemu.closed
	}
	m.qemu = nil
	if _, ok := m.rack.Running(m.qemuName()); ok {
		if err := m.rack.Signal(m.qemuName(), syscall.SIGKILL); err != nil {
			return err
		}
	}
	if err := m.rack.Stop(m.qemuName(), time.Second); err != nil {
		return err
	}
	return m.rack.Stop(m.tpmName(), 2*time.Second)
}

// Shutdown implements bmctest.Machine: the power button is pressed, and the operating system does the rest.
func (m *Machine) Shutdown(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.on() {
		return nil
	}
	return m.qemu.do(ctx, "system_powerdown", nil)
}

// Reset implements bmctest.Machine. A machine that is off stays off.
func (m *Machine) Reset(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.on() {
		return fmt.Errorf("resetting %s: it is off", m.spec.Name)
	}
	return m.qemu.do(ctx, "system_reset", nil)
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
