// SPDX-License-Identifier: Apache-2.0

package slot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf16"
)

// loaderVendor is the vendor of the variables that systemd's boot loader and boot stub leave
// (https://systemd.io/BOOT_LOADER_INTERFACE).
const loaderVendor = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"

// Boot is how a machine was started from a disk.
type Boot struct {
	// Slot is "a" or "b".
	Slot string
	// ESP is the unique GUID, in lower case, of the EFI system partition that the loader came from.
	ESP string
	// Entry is the loader's entry as it was when it was chosen, with its counter.
	Entry Entry
}

// Booted reads from the firmware's variables (dir is /sys/firmware/efi/efivars) whether this machine was started from a
// slot of a disk. The second result is false where it was not: by HTTP, by BIOS, or from a file that is no slot's entry.
//
// What systemd 252 leaves, as found on OVMF: the loader sets LoaderDevicePartUUID, LoaderImageIdentifier to its own path, LoaderEntrySelected
// to the entry's file name and, for an entry that has a counter, LoaderBootCountPath to the path that it has after counting
// this boot down. The stub sets LoaderDevicePartUUID and LoaderImageIdentifier only where no loader has. An image that came
// over the network has no partition, and so no LoaderDevicePartUUID. All are volatile: none is left of an earlier boot.
func Booted(dir string) (Boot, bool, error) {
	esp, err := variable(dir, "LoaderDevicePartUUID")
	if err != nil || esp == "" {
		return Boot{}, false, err
	}
	// The counted path is the newest word; where there is no loader, the stub names itself.
	for _, name := range []string{"LoaderBootCountPath", "LoaderEntrySelected", "LoaderImageIdentifier"} {
		path, err := variable(dir, name)
		if err != nil {
			return Boot{}, false, err
		}
		file := path[strings.LastIndexAny(path, `\/`)+1:]
		if e, ok := ParseEntry(file); ok {
			return Boot{Slot: e.Slot, ESP: strings.ToLower(esp), Entry: e}, true, nil
		}
	}
	return Boot{}, false, nil
}

// variable reads a text variable of the loader's vendor, empty where it does not exist.
func variable(dir, name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, name+"-"+loaderVendor))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("reading the firmware's variable %s: %w", name, err)
	}
	// efivarfs puts four bytes of attributes before the value.
	if len(b) < 4 || len(b)%2 != 0 {
		return "", fmt.Errorf("reading the firmware's variable %s: its %d bytes are no text", name, len(b))
	}
	units := make([]uint16, 0, len(b)/2)
	for b = b[4:]; len(b) > 0; b = b[2:] {
		u := binary.LittleEndian.Uint16(b)
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units)), nil
}
