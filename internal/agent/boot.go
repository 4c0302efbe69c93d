// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"metald.io/metald/api/v1alpha1"
)

// Where the programs of one boot leave word for each other. All of it is in memory.
const (
	// RunDir is made in the initramfs and carried over into the OS.
	RunDir = "/run/metald"
	// EtcDir is part of an initramfs.
	EtcDir = "/etc/metald"

	bootFile      = "boot.json"
	authorityFile = "ca.crt"
	seedFile      = "seed.json"
)

// Boot is what the initramfs of an image learned, and the OS needs.
type Boot struct {
	// BootURL and AgentURL are the daemon's, as the DHCP lease told them; AgentURL is empty without a daemon. Both are empty
	// where the machine was started from its disk, which needs no network.
	BootURL  string `json:"bootURL,omitempty"`
	AgentURL string `json:"agentURL,omitempty"`
	// MAC is the address of the device that the machine booted from, empty for a disk.
	MAC string `json:"mac,omitempty"`
	// RootHash is the dm-verity root hash of the running root.
	RootHash string `json:"rootHash"`
	// Slot is the slot of the disk that the root is in, "a" or "b"; empty where the root is in memory.
	Slot string `json:"slot,omitempty"`
	// ESP is the unique GUID of the disk's EFI system partition, where the boot loader keeps its entries.
	ESP string `json:"esp,omitempty"`
}

// Authority reads the site's CA in PEM.
func Authority(dir string) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(dir, authorityFile))
	if err != nil {
		return nil, fmt.Errorf("reading the site CA: %w", err)
	}
	return text, nil
}

// Leave writes what the OS will need into dir: the boot, the site's CA and, where there is one, the seed that was built
// into the initramfs.
func Leave(dir string, boot Boot, authority []byte, seed *v1alpha1.JoinSeed) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("making %s: %w", dir, err)
	}
	if err := writeJSON(filepath.Join(dir, bootFile), 0o644, boot); err != nil {
		return err
	}
	if seed != nil {
		if err := writeJSON(filepath.Join(dir, seedFile), 0o600, seed); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, authorityFile), authority, 0o644); err != nil {
		return fmt.Errorf("writing the site CA: %w", err)
	}
	return nil
}

// ReadBoot reads what the initramfs left.
func ReadBoot(dir string) (Boot, error) {
	var boot Boot
	err := readJSON(filepath.Join(dir, bootFile), &boot)
	return boot, err
}

// ReadSeed reads a seed that came with the boot, nil where there is none and the daemon has to be asked.
func ReadSeed(dir string) (*v1alpha1.JoinSeed, error) {
	var seed v1alpha1.JoinSeed
	err := readJSON(filepath.Join(dir, seedFile), &seed)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &seed, nil
}

func writeJSON(path string, mode os.FileMode, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding %s: %w", filepath.Base(path), err)
	}
	if err := os.WriteFile(path, append(text, '\n'), mode); err != nil {
		return fmt.Errorf("writing %s: %w", filepath.Base(path), err)
	}
	return nil
}

func readJSON(path string, into any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading %s: %w", filepath.Base(path), err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("reading %s: %w", filepath.Base(path), err)
	}
	return nil
}
