// SPDX-License-Identifier: Apache-2.0

// Package early is the work of the first program on a machine: kernel file systems, a console, drivers, a clock that is
// not absurd, and the switch that turns the machine off.
//
// It must not know the daemon or what the machine is for. It acts on the machine that it runs on, so nothing but
// cmd/metald-agent calls it, and only as the first program of an initramfs.
//
// Start reading at Mount.
package early

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// mounts are what every program expects, in an order that works.
var mounts = []struct {
	target, kind string
	flags        uintptr
	data         string
}{
	{"/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"/sys", "sysfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755"},
	{"/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
	{"/tmp", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
}

// Mount mounts the kernel's file systems. What is mounted already is left as it is.
func Mount() error {
	for _, m := range mounts {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return fmt.Errorf("making %s: %w", m.target, err)
		}
		if err := unix.Mount(m.kind, m.target, m.kind, m.flags, m.data); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mounting %s: %w", m.target, err)
		}
	}
	return nil
}

// MountVariables mounts the firmware's variables, which needs the module efivarfs. A machine that BIOS has started has
// none.
func MountVariables() error {
	const target = VariablesDir
	if _, err := os.Stat(target); err != nil {
		return nil
	}
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_RDONLY)
	if err := unix.Mount("efivarfs", target, "efivarfs", flags, ""); err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("mounting the firmware's variables: %w", err)
	}
	return nil
}

// Console makes the system console this program's input and output. Before devtmpfs is there the kernel may have found
// none, and then all that is said would be lost.
func Console() error {
	console, err := os.OpenFile("/dev/console", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return fmt.Errorf("opening the console: %w", err)
	}
	defer console.Close()
	for fd := range 3 {
		if err := unix.Dup3(int(console.Fd()), fd, 0); err != nil {
			return fmt.Errorf("taking the console: %w", err)
		}
	}
	return nil
}

// Reboot starts the machine anew at once. It returns only when it could not.
func Reboot() error {
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART); err != nil {
		return fmt.Errorf("starting the machine anew: %w", err)
	}
	select {} // the kernel is at it
}

// PowerOff switches the machine off at once. It returns only when it could not.
func PowerOff() error {
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		return fmt.Errorf("switching the machine off: %w", err)
	}
	select {} // the kernel is at it
}
