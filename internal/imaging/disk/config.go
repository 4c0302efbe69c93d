// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// mbrLinux is the type of a Linux partition in an MBR, mbrProtective that of a GPT behind it.
const (
	mbrLinux      = 0x83
	mbrProtective = 0xee
)

// addConfig makes room for the config drive: a last partition at the disk's end, in the table that the image brings.
func (i *install) addConfig(d *rawDisk) error {
	size := roundUp(int64(len(i.Plan.Raw.ConfigDrive)), mib)
	// Tables of an image live in its first MiB, which is filled up with the zeros that the disk will have there.
	full := aligned(int(edge))
	copy(full, d.head)
	d.head = full
	g, err := readHeader(bytes.NewReader(d.head), i.size, i.sector, 1)
	switch {
	case err == nil:
		return i.addConfigGPT(d, g, size)
	case bytes.Equal(d.head[i.sector:i.sector+8], gptSignature[:]):
		return &ImageError{What: "partition table", Got: err.Error(), Want: "a valid GPT"}
	case d.head[510] == 0x55 && d.head[511] == 0xaa:
		return i.addConfigMBR(d, size)
	}
	return &ImageError{What: "partition table", Got: "missing", Want: "one that a config drive can be added to"}
}

func (i *install) addConfigGPT(d *rawDisk, g *gpt, size int64) error {
	g.stretch(i.size)
	parts, free := g.partitions()
	if free < 0 {
		return &ImageError{What: "partition table", Got: "full", Want: "a free entry for the config drive"}
	}
	// The last MiB stays the backup's.
	d.config = span{roundDown(i.size-edge-size, mib), size}
	for _, p := range parts {
		if p.Name == ConfigName {
			return &ImageError{What: "partition " + ConfigName, Got: "in the image already", Want: "none, since the host has a config drive of its own"}
		}
		if end := p.Offset + p.Size; end > d.config.off {
			return &TooSmallError{Disk: i.name, Found: i.size, Needed: end + size + 2*edge}
		}
	}
	err := g.set(free, Partition{
		Name: ConfigName, Type: typeLinux, GUID: PartitionGUID(i.id, ConfigName), Offset: d.config.off, Size: size,
	})
	if err != nil {
		return err
	}
	at := int64(g.header.EntriesLBA) * i.sector
	if at+int64(len(g.entries)) > edge || g.backupEntries() < i.size-edge {
		return &ImageError{What: "partition table", Got: fmt.Sprintf("%d bytes of entries at %d", len(g.entries), at), Want: "one in the first MiB"}
	}
	copy(d.head[at:], g.entries)
	copy(d.head[i.sector:], g.primary())
	for _, e := range mbrEntries(d.head) {
		if e[4] == mbrProtective {
			first := binary.LittleEndian.Uint32(e[8:])
			binary.LittleEndian.PutUint32(e[12:], uint32(min(i.size/i.sector-int64(first), 0xffffffff)))
		}
	}
	d.tail = make([]byte, edge)
	copy(d.tail[g.backupEntries()-(i.size-edge):], g.entries)
	copy(d.tail[edge-i.sector:], g.backup())
	return nil
}

func (i *install) addConfigMBR(d *rawDisk, size int64) error {
	// An MBR counts sectors in 32 bits: on a larger disk the drive lies where it still can.
	reach := min(i.size-edge, int64(1)<<32*i.sector)
	d.config = span{roundDown(reach-size, mib), size}
	var free []byte
	for _, e := range mbrEntries(d.head) {
		if e[4] == 0 {
			if free == nil {
				free = e
			}
			continue
		}
		end := (int64(binary.LittleEndian.Uint32(e[8:])) + int64(binary.LittleEndian.Uint32(e[12:]))) * i.sector
		if end > d.config.off {
			return &TooSmallError{Disk: i.name, Found: i.size, Needed: end + size + 2*edge}
		}
	}
	if free == nil {
		return &ImageError{What: "MBR", Got: "four primary partitions", Want: "a free one for the config drive"}
	}
	clear(free)
	copy(free[1:], []byte{0xfe, 0xff, 0xff, mbrLinux, 0xfe, 0xff, 0xff}) // no geometry reaches there
	binary.LittleEndian.PutUint32(free[8:], uint32(d.config.off/i.sector))
	binary.LittleEndian.PutUint32(free[12:], uint32(size/i.sector))
	return nil
}
