// SPDX-License-Identifier: Apache-2.0

package configdrive

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
)

// block is ISO 9660's sector in bytes. System area, descriptors and path tables come first.
const (
	block        = 2048
	pvdBlock     = 16
	endBlock     = 17
	lTableBlock  = 18
	mTableBlock  = 19
	firstBlock   = 20
	epoch        = "\x50\x01\x01\x00\x00\x00\x00" // 1 January 1980: the same files give the same bytes
	longEpoch    = "1980010100000000\x00"
	maxEntrySize = 254
)

// node is a file or a directory of the drive.
type node struct {
	name     string
	short    string // ISO 9660's
	content  []byte
	children []*node // nil for a file
	parent   *node
	at, size uint32 // block, bytes
	number   uint16 // in the path table, for directories
}

func (n *node) add(path []string, content []byte) {
	for _, c := range n.children {
		if c.name == path[0] {
			c.add(path[1:], content)
			return
		}
	}
	c := &node{name: path[0], parent: n}
	n.children = append(n.children, c)
	slices.SortFunc(n.children, func(a, b *node) int { return cmp.Compare(a.name, b.name) })
	if len(path) == 1 {
		c.content = content
		if c.content == nil {
			c.content = []byte{}
		}
		return
	}
	c.add(path[1:], content)
}

func (n *node) dir() bool { return n.content == nil }

// image is the file system: every directory one block, every file in one piece.
func (n *node) image() []byte {
	n.parent = n
	var dirs, files []*node
	for queue := []*node{n}; len(queue) > 0; queue = queue[1:] {
		d := queue[0]
		dirs = append(dirs, d)
		d.number = uint16(len(dirs))
		for _, c := range d.children {
			c.short = identifier(c)
			if c.dir() {
				queue = append(queue, c)
			} else {
				files = append(files, c)
			}
		}
	}
	next := uint32(firstBlock)
	for _, d := range dirs {
		d.at, d.size = next, block
		next++
	}
	for _, f := range files {
		f.at, f.size = next, uint32(len(f.content))
		next += (f.size + block - 1) / block
	}
	out := make([]byte, int(next)*block)
	table := pathTable(dirs, binary.LittleEndian)
	copy(out[lTableBlock*block:], table)
	copy(out[mTableBlock*block:], pathTable(dirs, binary.BigEndian))
	copy(out[pvdBlock*block:], n.descriptor(next, uint32(len(table))))
	copy(out[endBlock*block:], "\xffCD001\x01")
	for _, d := range dirs {
		copy(out[int(d.at)*block:], d.records())
	}
	for _, f := range files {
		copy(out[int(f.at)*block:], f.content)
	}
	return out
}

// identifier is a name as Ironic's mkisofs writes it (-allow-lowercase -allow-multidot -l): who knows neither Rock Ridge nor
// the standard's short names finds the files all the same.
func identifier(n *node) string {
	if n.dir() {
		return n.name
	}
	return n.name + ";1"
}

// descriptor is the primary volume descriptor (ECMA-119, 8.4).
func (n *node) descriptor(blocks, tableSize uint32) []byte {
	b := make([]byte, block)
	copy(b, "\x01CD001\x01")
	for i := 8; i < 72; i++ {
		b[i] = ' '
	}
	copy(b[40:72], Label)
	both32(b[80:], blocks)
	both16(b[120:], 1)
	both16(b[124:], 1)
	both16(b[128:], block)
	both32(b[132:], tableSize)
	binary.LittleEndian.PutUint32(b[140:], lTableBlock)
	binary.BigEndian.PutUint32(b[148:], mTableBlock)
	copy(b[156:190], record("\x00", n, nil))
	for i := 190; i < 813; i++ {
		b[i] = ' '
	}
	copy(b[813:], longEpoch)
	copy(b[830:], longEpoch)
	copy(b[847:], strings.Repeat("0", 16)+"\x00")
	copy(b[864:], longEpoch)
	b[881] = 1
	return b
}

func pathTable(dirs []*node, order binary.ByteOrder) []byte {
	var out []byte
	for _, d := range dirs {
		name := d.short
		if d.number == 1 {
			name = "\x00"
		}
		e := make([]byte, 8+len(name)+len(name)%2)
		e[0] = byte(len(name))
		order.PutUint32(e[2:], d.at)
		order.PutUint16(e[6:], d.parent.number)
		copy(e[8:], name)
		out = append(out, e...)
	}
	return out
}

// records are a directory's, with its own and its parent's first.
func (n *node) records() []byte {
	own := rockRidge(n)
	if n.parent == n {
		// The root says that what follows the names is Rock Ridge's (IEEE P1281 SP, P1282).
		own = append([]byte("SP\x07\x01\xbe\xef\x00"), own...)
	}
	out := record("\x00", n, own)
	out = append(out, record("\x01", n.parent, rockRidge(n.parent))...)
	byShort := slices.Clone(n.children)
	slices.SortFunc(byShort, func(a, b *node) int { return cmp.Compare(a.short, b.short) })
	for _, c := range byShort {
		name := append([]byte{'N', 'M', byte(5 + len(c.name)), 1, 0}, c.name...)
		out = append(out, record(c.short, c, append(rockRidge(c), name...))...)
	}
	return out
}

// rockRidge is a file's mode, links and owner: files of root's that root reads.
func rockRidge(n *node) []byte {
	mode, links := uint32(0o100400), uint32(1)
	if n.dir() {
		mode, links = 0o040500, 2
		for _, c := range n.children {
			if c.dir() {
				links++
			}
		}
	}
	b := make([]byte, 36)
	copy(b, "PX\x24\x01")
	both32(b[4:], mode)
	both32(b[12:], links)
	return b
}

// record is a directory record (ECMA-119, 9.1).
func record(name string, n *node, system []byte) []byte {
	length := 33 + len(name) + (1-len(name)%2)%2
	b := make([]byte, length, maxEntrySize)
	both32(b[2:], n.at)
	both32(b[10:], n.size)
	copy(b[18:], epoch)
	if n.dir() {
		b[25] = 2
	}
	both16(b[28:], 1)
	b[32] = byte(len(name))
	copy(b[33:], name)
	b = append(b, system...)
	if len(b)%2 == 1 {
		b = append(b, 0)
	}
	b[0] = byte(len(b))
	return b
}

func both16(b []byte, v uint16) {
	binary.LittleEndian.PutUint16(b, v)
	binary.BigEndian.PutUint16(b[2:], v)
}

func both32(b []byte, v uint32) {
	binary.LittleEndian.PutUint32(b, v)
	binary.BigEndian.PutUint32(b[4:], v)
}
