// SPDX-License-Identifier: Apache-2.0

package slot

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"metald.io/metald/internal/imaging/disk"
)

// Entry is a boot loader's entry for a slot, as its file name tells.
type Entry struct {
	// Slot is "a" or "b".
	Slot string
	// Counted is true while the loader counts the entry's boots; then Left and Done are the boots to come and those that were.
	Counted    bool
	Left, Done int
}

// entryPattern is the Boot Loader Specification's: +LEFT or +LEFT-DONE before the suffix.
var entryPattern = regexp.MustCompile(`^` + disk.EntryPrefix + `([` + disk.SlotA + disk.SlotB + `])(?:\+([0-9]{1,4})(?:-([0-9]{1,4}))?)?\.efi$`)

// ParseEntry reads an entry's file name. FAT knows no case, and firmware tells it as it likes. The second result is false
// for a file that is no slot's entry.
func ParseEntry(name string) (Entry, bool) {
	m := entryPattern.FindStringSubmatch(strings.ToLower(name))
	if m == nil {
		return Entry{}, false
	}
	e := Entry{Slot: m[1], Counted: m[2] != ""}
	e.Left, _ = strconv.Atoi(m[2]) // digits, or nothing, which is 0
	e.Done, _ = strconv.Atoi(m[3])
	return e, true
}

// Name is the entry's file name.
func (e Entry) Name() string {
	switch {
	case !e.Counted:
		return disk.EntryPrefix + e.Slot + ".efi"
	case e.Done == 0:
		return fmt.Sprintf("%s%s+%d.efi", disk.EntryPrefix, e.Slot, e.Left)
	}
	return fmt.Sprintf("%s%s+%d-%d.efi", disk.EntryPrefix, e.Slot, e.Left, e.Done)
}

// Bootable says whether the loader takes the entry before those that are known to be bad.
func (e Entry) Bootable() bool { return !e.Counted || e.Left > 0 }

// String says it for a person.
func (e Entry) String() string {
	switch {
	case !e.Counted:
		return "slot " + e.Slot + ", known to be good"
	case e.Left == 0:
		return "slot " + e.Slot + ", with no boot left to try"
	}
	return fmt.Sprintf("slot %s, boot %d of %d on trial", e.Slot, e.Done, e.Done+e.Left)
}
