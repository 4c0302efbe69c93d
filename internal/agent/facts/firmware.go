// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"metald.io/metald/api/v1alpha1"
)

// globalVariable is the GUID of the variables that the UEFI specification defines (3.3).
const globalVariable = "8be4df61-93ca-11d2-aa0d-00e098032b8c"

// firmware says how the machine was started, and whether it checks what it starts.
func (r *reader) firmware(facts *v1alpha1.FirmwareBoot) error {
	if !r.exists("sys/firmware/efi") {
		facts.Mode = "bios"
		return nil
	}
	facts.Mode = "uefi"
	var errs []error
	for name, into := range map[string]*bool{"SecureBoot": &facts.SecureBoot, "SetupMode": &facts.SetupMode} {
		on, err := r.flag(name)
		*into = on
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// flag reads a variable of one byte: efivarfs puts four bytes of attributes before it. Firmware without Secure Boot has
// no such variable.
func (r *reader) flag(name string) (bool, error) {
	value, err := os.ReadFile(r.path("sys/firmware/efi/efivars/" + name + "-" + globalVariable))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if len(value) != 5 {
		return false, fmt.Errorf("variable %s has %d bytes, not 5", name, len(value))
	}
	return value[4] == 1, nil
}
