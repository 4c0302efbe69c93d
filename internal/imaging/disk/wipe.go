// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// wipe makes a disk unbootable before anything else on it changes: both partition tables, the MBR, and the beginning of
// every partition that firmware could take a loader from.
func (t *target) wipe() error {
	doomed := []span{{0, edge}, {roundDown(t.size-edge, t.sector), edge}}
	if old, err := readGPT(t, t.size, t.sector); err == nil {
		parts, _ := old.partitions()
		for _, p := range parts {
			if p.Type == typeESP {
				doomed = append(doomed, span{p.Offset, min(p.Size, edge)})
			}
		}
		// A disk that was larger or smaller once has its backup elsewhere.
		doomed = append(doomed, span{int64(old.header.AlternateLBA) * t.sector, t.sector})
	}
	doomed = append(doomed, t.mbrPartitions()...)
	for _, s := range doomed {
		s.size = min(s.size, t.size-s.off)
		if s.off < 0 || s.size <= 0 || s.off%t.sector != 0 || s.size%t.sector != 0 {
			continue
		}
		if err := t.Zero(s.off, s.size); err != nil {
			return fmt.Errorf("removing what the disk held: %w", t.failed(err, s.off))
		}
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("removing what the disk held: %w", err)
	}
	// There are drives that go read-only at their end of life and acknowledge every write.
	switch _, err := readGPT(t, t.size, t.sector); {
	case err == nil:
		return &ReadBackError{Disk: t.name, What: "its old partition table is still there after it was removed"}
	case !errors.Is(err, errNoTable):
		return err
	}
	first := make([]byte, t.sector)
	if _, err := t.ReadAt(first, 0); err != nil {
		return fmt.Errorf("reading back %s: %w", t.name, err)
	}
	if !isZero(first) {
		return &ReadBackError{Disk: t.name, What: "its old boot sector is still there after it was removed"}
	}
	return nil
}

// mbrPartitions are the beginnings of what an MBR says are FAT partitions.
func (t *target) mbrPartitions() []span {
	b := make([]byte, t.sector)
	if _, err := t.ReadAt(b, 0); err != nil || b[510] != 0x55 || b[511] != 0xaa {
		return nil
	}
	var out []span
	for _, e := range mbrEntries(b) {
		switch e[4] {
		case 0x01, 0x04, 0x06, 0x0b, 0x0c, 0x0e, 0xef:
			out = append(out, span{int64(binary.LittleEndian.Uint32(e[8:])) * t.sector, edge})
		}
	}
	return out
}

// mbrEntries are the four primary partitions of a boot sector.
func mbrEntries(sector []byte) [][]byte {
	var out [][]byte
	for i := range 4 {
		out = append(out, sector[446+16*i:][:16])
	}
	return out
}

// commit makes the disk bootable: the protective MBR and both copies of the entries, then the primary header, which is the
// moment from which on firmware finds something, then the backup's.
func (t *target) commit(g *gpt) error {
	for _, write := range [][]struct {
		b   []byte
		off int64
	}{
		{{protectiveMBR(t.size, t.sector), 0}, {g.paddedEntries(), int64(g.header.EntriesLBA) * t.sector}, {g.paddedEntries(), g.backupEntries()}},
		{{g.primary(), t.sector}},
		{{g.backup(), int64(g.header.AlternateLBA) * t.sector}},
	} {
		for _, w := range write {
			if err := t.put(w.b, w.off, nil); err != nil {
				return fmt.Errorf("writing the partition table: %w", err)
			}
		}
		if err := t.Flush(); err != nil {
			return fmt.Errorf("writing the partition table: %w", err)
		}
	}
	return t.committed(g)
}

// committed reads both tables back. It changes nothing: what they name was verified before.
func (t *target) committed(g *gpt) error {
	for _, lba := range []int64{1, int64(g.header.AlternateLBA)} {
		got, err := readHeader(t, t.size, t.sector, lba)
		if err != nil {
			return &ReadBackError{Disk: t.name, What: fmt.Sprintf("partition table at sector %d: %v", lba, err)}
		}
		if string(got.primary()) != string(g.primary()) || string(got.entries) != string(g.entries) {
			return &ReadBackError{Disk: t.name, What: fmt.Sprintf("partition table at sector %d differs", lba)}
		}
	}
	return nil
}
