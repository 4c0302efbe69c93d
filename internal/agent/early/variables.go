// SPDX-License-Identifier: Apache-2.0

package early

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"metald.io/metald/internal/imaging/kmod"
)

// VariablesDir is where MountVariables puts the firmware's variables.
const VariablesDir = "/sys/firmware/efi/efivars"

// Variables loads what the firmware's variables need and mounts them, for a program that must read them before all drivers
// are loaded. It may run beside Drivers.
func Variables() error {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return fmt.Errorf("reading the kernel's release: %w", err)
	}
	tree, err := kmod.Open("/", unix.ByteSliceToString(name.Release[:]))
	if err != nil {
		return err
	}
	// A machine that BIOS has started has no such device.
	return errors.Join(present(tree.Load("efivarfs")), MountVariables())
}
