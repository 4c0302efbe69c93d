// SPDX-License-Identifier: Apache-2.0

package disk

// The partitions of an installed disk, by their GPT names, in the order in which they lie. Their types are those of the
// UAPI group's Discoverable Partitions Specification.
const (
	ESP        = "metald-esp"
	RootA      = "root-a"
	RootAHash  = "root-a-verity"
	RootB      = "root-b"
	RootBHash  = "root-b-verity"
	State      = "metald-state"
	ConfigName = "config-2" // a config drive, behind a user's own image
)

// Slots are where an image may lie.
const (
	SlotA = "a"
	SlotB = "b"
)

// Paths on the EFI system partition. The loader is found by firmware without any boot entry; it takes the newest entry
// that has tries left (systemd-boot's boot counting: the number behind + is taken down at each boot, and the agent takes
// the counter away once the node works).
const (
	LoaderPath     = "/EFI/BOOT/BOOTX64.EFI"
	LoaderConfig   = "/loader/loader.conf"
	EntryDirectory = "/EFI/Linux"
	// EntryPrefix and a slot begin an entry's file name: metald-a+3.efi, metald-a.efi once it is known to be good.
	EntryPrefix = "metald-"
	// Tries is how often a new entry is booted before the other slot gets its turn.
	Tries = 3
)
