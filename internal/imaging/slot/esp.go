// SPDX-License-Identifier: Apache-2.0

package slot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"metald.io/metald/internal/imaging/disk"
)

// Device is where udev shows a partition by its unique GUID.
func Device(uuid string) string { return "/dev/disk/by-partuuid/" + uuid }

// With mounts the EFI system partition on device at dir, calls do with dir, and unmounts it when all is on the disk. It
// needs the modules vfat, nls_cp437 and nls_ascii.
func With(device, dir string, do func(esp string) error) (err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("mounting the EFI system partition: %w", err)
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount(device, dir, "vfat", flags, "umask=0077"); err != nil {
		return fmt.Errorf("mounting the EFI system partition %s: %w", device, err)
	}
	err = do(dir)
	if serr := syncAll(dir); serr != nil {
		err = errors.Join(err, fmt.Errorf("flushing the EFI system partition: %w", serr))
	}
	if uerr := unix.Unmount(dir, 0); uerr != nil {
		err = errors.Join(err, fmt.Errorf("unmounting the EFI system partition: %w", uerr))
	}
	return err
}

func syncAll(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Syncfs(int(d.Fd()))
}

// Bless calls the entry of a slot good: its boots are no longer counted. It says whether there was something to change.
func Bless(esp, slot string) (bool, error) {
	return rename(esp, slot, func(e Entry) Entry { return Entry{Slot: e.Slot} })
}

// Turn gives the other slot its turn: where it has an entry that may be booted, the entry of this slot is marked as bad and
// the other slot is returned. Where it has none, nothing is changed and the result is empty.
func Turn(esp, slot string) (other string, err error) {
	found, err := list(esp)
	if err != nil {
		return "", err
	}
	for _, f := range found {
		if f.Slot != slot && f.Bootable() {
			other = f.Slot
		}
	}
	if other == "" {
		return "", nil
	}
	_, err = rename(esp, slot, func(e Entry) Entry { return Entry{Slot: e.Slot, Counted: true, Done: e.Done} })
	return other, err
}

// Entries are the entries of all slots on a mounted EFI system partition, sorted by name.
func Entries(esp string) ([]Entry, error) {
	found, err := list(esp)
	entries := make([]Entry, len(found))
	for i, f := range found {
		entries[i] = f.Entry
	}
	return entries, err
}

type file struct {
	name string
	Entry
}

func list(esp string) ([]file, error) {
	names, err := os.ReadDir(filepath.Join(esp, disk.EntryDirectory))
	if err != nil {
		return nil, fmt.Errorf("reading the boot loader's entries: %w", err)
	}
	var found []file
	for _, n := range names {
		if e, ok := ParseEntry(n.Name()); ok && n.Type().IsRegular() {
			found = append(found, file{n.Name(), e})
		}
	}
	slices.SortFunc(found, func(a, b file) int { return strings.Compare(a.name, b.name) })
	return found, nil
}

// rename gives each entry of a slot its new name. Power may be lost between two of FAT's writes: then the file is there
// under both names, and the next call leaves one.
func rename(esp, slot string, to func(Entry) Entry) (changed bool, err error) {
	found, err := list(esp)
	if err != nil {
		return false, err
	}
	dir := filepath.Join(esp, disk.EntryDirectory)
	seen := false
	for _, f := range found {
		if f.Slot != slot {
			continue
		}
		seen = true
		name := to(f.Entry).Name()
		if name == f.name {
			continue
		}
		if err := os.Rename(filepath.Join(dir, f.name), filepath.Join(dir, name)); err != nil {
			return changed, fmt.Errorf("renaming a boot loader's entry: %w", err)
		}
		changed = true
	}
	if !seen {
		return false, fmt.Errorf("looking for the boot loader's entry of slot %s: there is none in %s", slot, disk.EntryDirectory)
	}
	return changed, nil
}
