// SPDX-License-Identifier: Apache-2.0

package pxe

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// maxLoader is the largest first loader that is read: iPXE is 0.2 to 1 MiB, and it stays in memory.
const maxLoader = 4 << 20

// Loader is a program that PXE firmware fetches by TFTP, whole in memory: what is served is what was read at the start.
type Loader struct {
	// Arch is "amd64" or "arm64".
	Arch string
	// Name is what it goes by in DHCP and TFTP.
	Name string
	Data []byte
	// SHA256 is in lower-case hex.
	SHA256 string
}

// ReadLoader takes in the loader of an architecture from the file at path. An error says what a person can do about it.
func ReadLoader(arch, path string) (Loader, error) {
	base := filepath.Base(path)
	if !isFileName(base) {
		return Loader{}, fmt.Errorf("name of loader %q: want letters, digits, dot, dash and underscore only", base)
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Loader{}, fmt.Errorf("loader %s does not exist: Debian's package ipxe has /usr/lib/ipxe/snponly.efi for amd64 (apt install ipxe)", path)
	}
	if err != nil {
		return Loader{}, fmt.Errorf("opening loader: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxLoader+1))
	if err != nil {
		return Loader{}, fmt.Errorf("reading loader: %w", err)
	}
	if len(data) > maxLoader {
		return Loader{}, fmt.Errorf("loader %s is larger than %d MiB: want a network boot program such as iPXE's snponly.efi", path, maxLoader>>20)
	}
	if len(data) < 2 || data[0] != 'M' || data[1] != 'Z' {
		return Loader{}, fmt.Errorf("loader %s is no EFI program: it does not begin with MZ", path)
	}
	sum := sha256.Sum256(data)
	return Loader{Arch: arch, Name: arch + "/" + base, Data: data, SHA256: hex.EncodeToString(sum[:])}, nil
}
