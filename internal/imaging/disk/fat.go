// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf16"
)

const (
	fatLabel     = "METALD-ESP "
	fatSystem    = "FAT32   "
	fatEnd       = 0x0fffffff
	fatLeast     = 65525 // clusters; with fewer it is not FAT32 (Microsoft's FAT specification 1.03, 3.5)
	clusterBytes = 4096
	entryBytes   = 32
	// fatDate is 1 January 1980, the oldest there is: the same files give the same bytes.
	fatDate = 1<<5 | 1
	attrDir = 0x10
	attrLFN = 0x0f
	nameLFN = 13 // characters of a long name in one entry
)

// fatFile is a file to lie on a new file system; its bytes are written by whoever has them.
type fatFile struct {
	path string
	size int64
}

// fatImage is a new FAT32 file system in which every file lies in one piece, so that the files can be streamed into it.
type fatImage struct {
	head []byte           // the file system's beginning: boot sectors, both tables, directories
	at   map[string]int64 // where a file's bytes go, from the beginning of the partition
}

type fatNode struct {
	name     string
	size     int64
	dir      bool
	children []*fatNode
	first    uint32 // cluster
	count    uint32 // clusters
}

// newFAT lays out a FAT32 of size bytes that begins hidden bytes into its disk.
func newFAT(size, hidden, sector int64, volume uint32, files []fatFile) (*fatImage, error) {
	perCluster := clusterBytes / sector
	reserved, fatSectors, clusters := int64(32), int64(0), size/clusterBytes
	for {
		want := ((clusters+2)*4 + sector - 1) / sector
		fatSectors = max(fatSectors, want)
		// The data begins on a cluster's boundary: direct I/O of whole pages.
		reserved = 32 + (perCluster-(32+2*fatSectors)%perCluster)%perCluster
		fits := (size/sector - reserved - 2*fatSectors) / perCluster
		if fits >= clusters {
			break
		}
		clusters = fits
	}
	if clusters < fatLeast {
		return nil, fmt.Errorf("laying out the EFI system partition: %d MiB are too few for FAT32", size/mib)
	}
	root := &fatNode{dir: true}
	for _, f := range files {
		root.add(strings.Split(strings.Trim(f.path, "/"), "/"), f.size)
	}
	next := uint32(2)
	root.place(true, &next)
	dirs := next - 2
	root.place(false, &next)
	if int64(next-2) > clusters {
		return nil, fmt.Errorf("laying out the EFI system partition: %d files of %d clusters do not fit %d MiB", len(files), next-2, size/mib)
	}
	data := (reserved + 2*fatSectors) * sector
	image := &fatImage{head: make([]byte, data+int64(dirs)*clusterBytes), at: map[string]int64{}}
	image.boot(size, hidden, sector, reserved, fatSectors, clusters, volume, next)
	table := image.head[reserved*sector:][:fatSectors*sector]
	binary.LittleEndian.PutUint32(table, 0x0ffffff8)
	binary.LittleEndian.PutUint32(table[4:], fatEnd)
	image.write(root, nil, "", table, data)
	copy(image.head[(reserved+fatSectors)*sector:], table)
	return image, nil
}

// add puts a file into the tree.
func (n *fatNode) add(path []string, size int64) {
	for _, c := range n.children {
		if c.name == path[0] {
			c.add(path[1:], size)
			return
		}
	}
	c := &fatNode{name: path[0], dir: len(path) > 1}
	n.children = append(n.children, c)
	if c.dir {
		c.add(path[1:], size)
	} else {
		c.size = size
	}
}

// place gives clusters to all directories, or to all files. A directory here has less than a cluster of entries.
func (n *fatNode) place(dirs bool, next *uint32) {
	if n.dir == dirs {
		n.count = 1
		if !n.dir {
			n.count = uint32((n.size + clusterBytes - 1) / clusterBytes)
		}
		if n.count > 0 {
			n.first = *next
			*next += n.count
		}
	}
	for _, c := range n.children {
		c.place(dirs, next)
	}
}

func (m *fatImage) boot(size, hidden, sector, reserved, fatSectors, clusters int64, volume, next uint32) {
	b := m.head[:sector]
	copy(b, "\xeb\x58\x90METALD  ")
	le := binary.LittleEndian
	le.PutUint16(b[11:], uint16(sector))
	b[13] = byte(clusterBytes / sector)
	le.PutUint16(b[14:], uint16(reserved))
	b[16] = 2                // tables
	b[21] = 0xf8             // a fixed disk
	le.PutUint16(b[24:], 63) // sectors and heads of a geometry that no disk has
	le.PutUint16(b[26:], 255)
	le.PutUint32(b[28:], uint32(hidden/sector))
	le.PutUint32(b[32:], uint32(size/sector))
	le.PutUint32(b[36:], uint32(fatSectors))
	le.PutUint32(b[44:], 2) // the root's cluster
	le.PutUint16(b[48:], 1) // the information sector
	le.PutUint16(b[50:], 6) // the copy of this sector
	b[64], b[66] = 0x80, 0x29
	le.PutUint32(b[67:], volume)
	copy(b[71:], fatLabel)
	copy(b[82:], fatSystem)
	b[510], b[511] = 0x55, 0xaa
	info := m.head[sector : 2*sector]
	le.PutUint32(info, 0x41615252)
	le.PutUint32(info[484:], 0x61417272)
	le.PutUint32(info[488:], uint32(clusters)-(next-2))
	le.PutUint32(info[492:], next)
	le.PutUint32(info[508:], 0xaa550000)
	copy(m.head[6*sector:], m.head[:2*sector])
}

// write puts a node's chain into the table and a directory's entries into its cluster.
func (m *fatImage) write(n, parent *fatNode, path string, table []byte, data int64) {
	for i := range n.count {
		next := n.first + i + 1
		if i+1 == n.count {
			next = fatEnd
		}
		binary.LittleEndian.PutUint32(table[4*(n.first+i):], next)
	}
	place := data + int64(n.first-2)*clusterBytes
	if !n.dir {
		m.at[path] = place
		return
	}
	var out []byte
	if parent == nil {
		out = append(out, shortEntry(fatLabel, 0x08, 0, 0)...)
	} else {
		up := parent.first
		if up == 2 {
			up = 0 // the root is cluster 0 to its children
		}
		out = append(out, shortEntry(".          ", attrDir, n.first, 0)...)
		out = append(out, shortEntry("..         ", attrDir, up, 0)...)
	}
	for i, c := range n.children {
		out = append(out, entries(c, i+1)...)
		m.write(c, n, path+"/"+c.name, table, data)
	}
	copy(m.head[place:place+clusterBytes], out)
}

// entries are a file's long name, where it needs one, and its short entry.
func entries(n *fatNode, number int) []byte {
	base, ext, _ := strings.Cut(n.name, ".")
	short := fmt.Sprintf("%-8.8s%-3.3s", base, ext)
	plain := strings.ToUpper(n.name) == n.name && len(base) <= 8 && len(ext) <= 3 && !strings.ContainsAny(n.name, "+ ")
	var out []byte
	if !plain {
		keep := strings.Map(func(r rune) rune {
			if r == '+' || r == '-' || r == '.' || r == ' ' {
				return -1
			}
			return r
		}, base)
		short = strings.ToUpper(fmt.Sprintf("%-8.8s%-3.3s", fmt.Sprintf("%.6s~%d", keep, number), ext))
		out = longEntries(n.name, shortSum(short))
	}
	attr := byte(0x20)
	if n.dir {
		attr = attrDir
	}
	return append(out, shortEntry(short, attr, n.first, n.size)...)
}

func shortEntry(name string, attr byte, cluster uint32, size int64) []byte {
	e := make([]byte, entryBytes)
	copy(e, name)
	e[11] = attr
	le := binary.LittleEndian
	le.PutUint16(e[16:], fatDate)
	le.PutUint16(e[18:], fatDate)
	le.PutUint16(e[24:], fatDate)
	le.PutUint16(e[20:], uint16(cluster>>16))
	le.PutUint16(e[26:], uint16(cluster))
	le.PutUint32(e[28:], uint32(size))
	return e
}

func shortSum(name string) byte {
	var sum byte
	for i := range 11 {
		sum = sum>>1 | sum<<7
		sum += name[i]
	}
	return sum
}

// longEntries are the pieces of a long name, last first, as they lie before the short entry.
func longEntries(name string, sum byte) []byte {
	units := utf16.Encode([]rune(name))
	pieces := (len(units) + nameLFN - 1) / nameLFN
	if len(units)%nameLFN != 0 {
		units = append(units, 0)
	}
	for len(units) < pieces*nameLFN {
		units = append(units, 0xffff)
	}
	var out []byte
	for p := pieces; p >= 1; p-- {
		e := make([]byte, entryBytes)
		e[0], e[11], e[13] = byte(p), attrLFN, sum
		if p == pieces {
			e[0] |= 0x40
		}
		for i, at := range lfnPlaces {
			binary.LittleEndian.PutUint16(e[at:], units[(p-1)*nameLFN+i])
		}
		out = append(out, e...)
	}
	return out
}

// lfnPlaces is where the characters of a long name lie in an entry.
var lfnPlaces = [nameLFN]int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30}
