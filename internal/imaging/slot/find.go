// SPDX-License-Identifier: Apache-2.0

package slot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"metald.io/metald/internal/imaging/disk"
)

// Disk is an installed disk with its partitions.
type Disk struct {
	// Name is the kernel's, as nvme0n1.
	Name string
	// partitions are by their GPT names.
	partitions map[string]Partition
}

// Partition is one of a disk.
type Partition struct {
	// Device is its node, as /dev/nvme0n1p2.
	Device string
	// UUID is its unique GUID in lower case.
	UUID string
}

// errAbsent says that no disk has the wanted partition yet: disks come when their drivers have found them.
var errAbsent = errors.New("no disk has it")

// Partition finds one of the disk's partitions by its GPT name.
func (d Disk) Partition(name string) (Partition, error) {
	p, ok := d.partitions[name]
	if !ok {
		return p, fmt.Errorf("looking at disk %s: it has no partition %s", d.Name, name)
	}
	return p, nil
}

// Root finds the partitions that hold a slot's root file system and its hash tree.
func (d Disk) Root(slot string) (data, hash Partition, err error) {
	names := map[string][2]string{disk.SlotA: {disk.RootA, disk.RootAHash}, disk.SlotB: {disk.RootB, disk.RootBHash}}[slot]
	data, err = d.Partition(names[0])
	if err == nil {
		hash, err = d.Partition(names[1])
	}
	return data, hash, err
}

// Await is Find until the disk is there: a controller may take its time to find it. It gives up when ctx ends.
func Await(ctx context.Context, root, uuid string) (Disk, error) {
	for {
		d, err := Find(root, uuid)
		if !errors.Is(err, errAbsent) {
			return d, err
		}
		select {
		case <-ctx.Done():
			return d, err
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// Find looks for the disk that has the partition with the given unique GUID, among the disks of sys and dev below root. The
// partition table is read from the disk itself: sysfs tells unique GUIDs since Linux 6.13 only. Two disks with the
// partition are an error, since one of them is a copy and nobody can tell which.
func Find(root, uuid string) (Disk, error) {
	class := filepath.Join(root, "sys/class/block")
	names, err := os.ReadDir(class)
	if err != nil {
		return Disk{}, fmt.Errorf("looking for disks: %w", err)
	}
	var found []Disk
	var problems []error
	for _, n := range names {
		dir := filepath.Join(class, n.Name())
		if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
			continue
		}
		d, has, err := read(root, dir, n.Name(), strings.ToLower(uuid))
		if err != nil {
			problems = append(problems, err)
		}
		if has {
			found = append(found, d)
		}
	}
	switch len(found) {
	case 0:
		return Disk{}, errors.Join(fmt.Errorf("looking for the partition %s that this machine was started from: %w", uuid, errAbsent), errors.Join(problems...))
	case 1:
		return found[0], nil
	}
	return Disk{}, fmt.Errorf("looking for the partition %s that this machine was started from: disks %s and %s both have it: take the copy out",
		uuid, found[0].Name, found[1].Name)
}

// read reads a disk's partition table and says whether the wanted partition is in it. A disk without a table has none.
func read(root, dir, name, uuid string) (d Disk, has bool, err error) {
	size, err := number(filepath.Join(dir, "size")) // in units of 512 bytes, whatever the disk's sectors are
	if err != nil || size == 0 {
		return d, false, err
	}
	sector, err := number(filepath.Join(dir, "queue/logical_block_size"))
	if err != nil {
		return d, false, err
	}
	f, err := os.Open(filepath.Join(root, "dev", name))
	if err != nil {
		return d, false, fmt.Errorf("reading disk %s: %w", name, err)
	}
	defer f.Close()
	entries, err := readGPT(f, size*512, sector)
	if errors.Is(err, errNoGPT) {
		return d, false, nil
	}
	if err != nil {
		return d, false, fmt.Errorf("reading disk %s: %w", name, err)
	}
	nodes, err := children(dir)
	if err != nil {
		return d, false, err
	}
	d = Disk{Name: name, partitions: map[string]Partition{}}
	doubled := ""
	for _, e := range entries {
		has = has || e.uuid == uuid
		if _, ok := d.partitions[e.name]; ok {
			doubled = e.name
		}
		if node, ok := nodes[e.number]; ok {
			d.partitions[e.name] = Partition{Device: filepath.Join("/dev", node), UUID: e.uuid}
		}
	}
	switch {
	case has && doubled != "":
		return d, false, fmt.Errorf("reading disk %s: two of its partitions are called %s", name, doubled)
	case has && len(nodes) == 0: // the kernel has not read it yet
		return d, false, nil
	}
	return d, has, nil
}

// children are the kernel's names of a disk's partitions, by their number.
func children(dir string) (map[int]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("looking for partitions: %w", err)
	}
	nodes := map[int]string{}
	for _, e := range entries {
		if n, err := number(filepath.Join(dir, e.Name(), "partition")); err == nil {
			nodes[int(n)] = e.Name()
		}
	}
	return nodes, nil
}

func number(file string) (int64, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("reading what the kernel says of a disk: %w", err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("reading %s: %w", file, err)
	}
	return n, nil
}
