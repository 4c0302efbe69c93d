// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"fmt"

	"github.com/google/uuid"

	"metald.io/metald/api/v1alpha1"
)

const (
	mib = int64(1) << 20
	gib = int64(1) << 30
)

// Partition types of the Discoverable Partitions Specification. The state partition is plain Linux data: the type for /var
// demands a GUID that is made from the machine's id.
var (
	typeESP   = uuid.MustParse("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
	typeLinux = uuid.MustParse("0fc63daf-8483-4772-8e79-3d69d8477de4")

	rootTypes = map[string]struct{ root, verity uuid.UUID }{
		"amd64": {uuid.MustParse("4f68bce3-e8cd-4db1-96e7-fbcaf984b709"), uuid.MustParse("2c7357ed-ebd2-46d9-aec1-23d437ec2bf5")},
		"arm64": {uuid.MustParse("b921b045-1df0-41c3-af44-4c6f280d3fae"), uuid.MustParse("df3300ce-d69f-4c92-978c-9bfb0f38d820")},
	}
)

// Attributes of root partitions: read-only, and not to be mounted by anybody who finds them: the image's initramfs opens
// them under dm-verity.
const rootAttributes = 1<<60 | 1<<63

// Sizes in bytes. The ESP's smallest has enough clusters for FAT32 on a disk with sectors of 4 KiB.
const (
	espSize, espLarge, espSmallest = 512 * mib, gib, 264 * mib
	espLargeFrom                   = 100 * gib
	slotWanted                     = 2 * gib
	stateSmallest                  = gib
	edge                           = mib // kept free at both ends, for the tables
)

// PartitionGUID is the GUID of the partition called name on a disk that was written for the plan with this id.
func PartitionGUID(plan uuid.UUID, name string) uuid.UUID { return uuid.NewSHA1(plan, []byte(name)) }

// hashSize is room for the hash tree of a slot of this size: SHA-256 over blocks of 4 KiB takes 0.79 %.
func hashSize(slot int64) int64 { return roundUp(slot/100, mib) + mib }

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }

// sizes are the partitions' sizes in bytes.
type sizes struct{ esp, slot, hash, state int64 }

// divide shares a disk of size bytes out: slots with room for images to come where the disk has it, the image's own size
// where it has not, and the rest for state.
func divide(name string, size int64, image *v1alpha1.ImageFiles) (sizes, error) {
	root := roundUp(image.Root.HashOffset, mib)
	tree := roundUp(image.Root.SizeBytes-image.Root.HashOffset, mib)
	// Two UKIs and the loader, and room for the file system's own tables.
	boot := roundUp(2*image.UKI.SizeBytes+image.Loader.SizeBytes, mib) + 8*mib
	esp := espSize
	if size > espLargeFrom {
		esp = espLarge
	}
	s := sizes{esp: max(esp, boot), slot: max(slotWanted, 2*root)}
	s.hash = max(hashSize(s.slot), 2*tree)
	left := func() int64 { return roundDown(size, mib) - 2*edge - s.esp - 2*(s.slot+s.hash) }
	if left() < stateSmallest {
		s.esp = max(min(esp, roundUp(size/16, mib)), espSmallest, boot)
		slots := (roundDown(size, mib) - 2*edge - s.esp - stateSmallest) / 2
		s.slot = roundDown((slots-2*mib)*100/101, mib)
		s.hash = max(hashSize(s.slot), tree)
		if s.slot < root || left() < stateSmallest {
			s.esp, s.slot, s.hash = max(espSmallest, boot), root, max(hashSize(root), tree)
		}
	}
	if s.state = left(); s.state < stateSmallest {
		return sizes{}, &TooSmallError{Disk: name, Found: size, Needed: size - s.state + stateSmallest}
	}
	return s, nil
}

func roundDown(n, to int64) int64 { return n / to * to }

// partitionsFor lays an Image's partitions out on a disk of size bytes.
func partitionsFor(name string, size int64, arch string, id uuid.UUID, image *v1alpha1.ImageFiles) ([]Partition, error) {
	types, ok := rootTypes[arch]
	if !ok {
		return nil, fmt.Errorf("laying out %s: no partition types are known for %s", name, arch)
	}
	s, err := divide(name, size, image)
	if err != nil {
		return nil, err
	}
	parts := []Partition{
		{Name: ESP, Type: typeESP, Size: s.esp},
		{Name: RootA, Type: types.root, Size: s.slot, Attributes: rootAttributes},
		{Name: RootAHash, Type: types.verity, Size: s.hash, Attributes: rootAttributes},
		{Name: RootB, Type: types.root, Size: s.slot, Attributes: rootAttributes},
		{Name: RootBHash, Type: types.verity, Size: s.hash, Attributes: rootAttributes},
		{Name: State, Type: typeLinux, Size: s.state},
	}
	at := edge
	for i := range parts {
		parts[i].Offset, parts[i].GUID = at, PartitionGUID(id, parts[i].Name)
		at += parts[i].Size
	}
	return parts, nil
}
