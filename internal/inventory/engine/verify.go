// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"syscall"
	"time"

	bbolterrors "go.etcd.io/bbolt/errors"
)

// bbolt trusts its file: a page that does not hold what it should makes it panic, in goroutines of its own too, read
// memory that is not there or run in circles. So the file is walked here before it is opened, with every step checked.
// The layout is bbolt's version 2, which has not changed since 2014.
const (
	pageHeader = 16 // id 8, flags 2, count 2, overflow 4
	element    = 16 // of a branch: pos 4, key size 4, page 8; of a leaf: flags 4, pos 4, key size 4, value size 4
	metaSize   = 64 // magic, version, page size, flags 4 each; root 8, sequence 8, freelist 8, pages 8, transaction 8, sum 8

	branchPage, leafPage, freelistPage = 0x01, 0x02, 0x10

	boltMagic, boltVersion = 0xED0CDAED, 2
	noFreelist             = ^uint64(0)
	maxDepth               = 64
)

// fileReport is what the walk has found in a file whose structure is sound.
type fileReport struct {
	fresh   bool // an empty file, or none
	schema  uint64
	tally   tally // of the rows as they are
	stored  []byte
	damaged []error // rows that do not fit their checksums
	buckets int     // at the top
	oneRoot bool    // one of the two roots is not valid: the last commit was cut, or the disk changed it
}

type fileRoot struct{ page, root, freelist, pages, txid uint64 }

type checker struct {
	file io.ReaderAt
	fileRoot
	seen   map[uint64]bool
	report fileReport
}

// verify walks the file at path. It returns an error that wraps ErrCorrupt where bbolt could not be trusted with it.
func verify(path string) (fileReport, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return fileReport{fresh: true}, nil
	}
	if err != nil {
		return fileReport{}, err
	}
	defer f.Close()
	// Somebody who is writing would make it look torn.
	for end := time.Now().Add(time.Second); ; time.Sleep(50 * time.Millisecond) {
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); err == nil {
			break
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) || time.Now().After(end) {
			return fileReport{}, bbolterrors.ErrTimeout
		}
	}
	info, err := f.Stat()
	if err != nil {
		return fileReport{}, err
	}
	if info.Size() == 0 {
		return fileReport{fresh: true}, nil
	}
	return verifyFile(f, info.Size())
}

func verifyFile(file io.ReaderAt, size int64) (fileReport, error) {
	c := checker{file: file, seen: map[uint64]bool{}}
	if err := c.chooseRoot(size); err != nil {
		return c.report, err
	}
	if c.pages > uint64(size)/c.page {
		return c.report, fmt.Errorf("%w: it is %d bytes long where its root speaks of %d pages of %d", ErrCorrupt, size, c.pages, c.page)
	}
	if err := c.walk(c.root, nil, nil, nil, 0); err != nil {
		return c.report, err
	}
	if c.report.buckets == 0 && c.txid > 1 { // the first commit makes all of them
		return c.report, fmt.Errorf("%w: all its buckets are gone after %d commits", ErrCorrupt, c.txid-1)
	}
	if err := c.checkFreelist(); err != nil {
		return c.report, err
	}
	return c.report, nil
}

// chooseRoot takes the younger valid root, as bbolt does. Where the page size is not known, it is where a root is found.
func (c *checker) chooseRoot(size int64) error {
	var found []fileRoot
	first, ok := c.rootAt(0)
	if ok {
		found = append(found, first)
		if second, ok := c.rootAt(int64(first.page)); ok && second.page == first.page {
			found = append(found, second)
		}
	} else {
		for at := int64(1024); at <= 16<<20 && at < size-1024 && len(found) == 0; at *= 2 {
			if second, ok := c.rootAt(at); ok && int64(second.page) == at {
				found = append(found, second)
			}
		}
	}
	if len(found) == 0 {
		return fmt.Errorf("%w: neither of its two roots is valid", ErrCorrupt)
	}
	c.fileRoot, c.report.oneRoot = found[0], len(found) == 1
	if len(found) == 2 && found[1].txid > found[0].txid {
		c.fileRoot = found[1]
	}
	return nil
}

func (c *checker) rootAt(at int64) (r fileRoot, ok bool) {
	var b [pageHeader + metaSize]byte
	if _, err := c.file.ReadAt(b[:], at); err != nil {
		return r, false
	}
	m, le := b[pageHeader:], binary.LittleEndian
	sum := fnv.New64a()
	sum.Write(m[:metaSize-8])
	r = fileRoot{page: uint64(le.Uint32(m[8:])), root: le.Uint64(m[16:]), freelist: le.Uint64(m[32:]), pages: le.Uint64(m[40:]), txid: le.Uint64(m[48:])}
	ok = le.Uint32(m) == boltMagic && le.Uint32(m[4:]) == boltVersion && le.Uint64(m[56:]) == sum.Sum64() &&
		r.page >= 1024 && r.page <= 64<<10 && r.page&(r.page-1) == 0
	return r, ok
}

// walk checks the tree below a page, whose keys must lie in [low, high); path is the buckets that it is in.
func (c *checker) walk(id uint64, path [][]byte, low, high []byte, depth int) error {
	b, err := c.read(id)
	if err != nil {
		return err
	}
	return c.walkPage(b, fmt.Sprint("page ", id), path, low, high, depth)
}

// read returns a page with its overflow, and takes note that it is used.
func (c *checker) read(id uint64) ([]byte, error) {
	if id < 2 || id >= c.pages {
		return nil, fmt.Errorf("%w: page %d of %d is referred to", ErrCorrupt, id, c.pages)
	}
	head := make([]byte, pageHeader)
	if _, err := c.file.ReadAt(head, int64(id*c.page)); err != nil {
		return nil, fmt.Errorf("reading page %d: %w", id, err)
	}
	overflow := uint64(binary.LittleEndian.Uint32(head[12:]))
	if own := binary.LittleEndian.Uint64(head); own != id || overflow >= c.pages-id {
		return nil, fmt.Errorf("%w: page %d calls itself %d and has %d more", ErrCorrupt, id, own, overflow)
	}
	for i := id; i <= id+overflow; i++ {
		if c.seen[i] {
			return nil, fmt.Errorf("%w: page %d is referred to twice", ErrCorrupt, i)
		}
		c.seen[i] = true
	}
	b := make([]byte, (overflow+1)*c.page)
	if _, err := c.file.ReadAt(b, int64(id*c.page)); err != nil {
		return nil, fmt.Errorf("reading page %d: %w", id, err)
	}
	return b, nil
}

func (c *checker) walkPage(b []byte, name string, path [][]byte, low, high []byte, depth int) error {
	le := binary.LittleEndian
	kind, count := le.Uint16(b[8:]), int(le.Uint16(b[10:]))
	bad := func(what string, i int) error {
		return fmt.Errorf("%w: %s of kind %#x, element %d of %d: %s", ErrCorrupt, name, kind, i, count, what)
	}
	switch {
	case kind != branchPage && kind != leafPage || depth > maxDepth:
		return bad("no such kind here", 0)
	case pageHeader+count*element > len(b), kind == branchPage && count == 0:
		return bad("no such count", 0)
	}
	keys := make([][]byte, count+1)
	keys[count] = high
	for i := range count {
		at := pageHeader + i*element
		pos, size := le.Uint32(b[at:]), le.Uint32(b[at+4:])
		if kind == leafPage {
			pos, size = le.Uint32(b[at+4:]), le.Uint32(b[at+8:])
		}
		start := uint64(at) + uint64(pos)
		if size == 0 || start < uint64(pageHeader+count*element) || start+uint64(size) > uint64(len(b)) {
			return bad("its key lies outside", i)
		}
		keys[i] = b[start : start+uint64(size)]
		switch {
		case i > 0 && bytes.Compare(keys[i-1], keys[i]) >= 0:
			return bad("its key is not after the one before", i)
		case low != nil && kind == leafPage && bytes.Compare(keys[i], low) < 0, high != nil && bytes.Compare(keys[i], high) >= 0:
			return bad("its key does not belong here", i)
		}
	}
	for i := range count {
		at := pageHeader + i*element
		if kind == branchPage {
			if err := c.walk(le.Uint64(b[at+8:]), path, keys[i], keys[i+1], depth+1); err != nil {
				return err
			}
			continue
		}
		start := uint64(at) + uint64(le.Uint32(b[at+4:])) + uint64(le.Uint32(b[at+8:]))
		end := start + uint64(le.Uint32(b[at+12:]))
		if end > uint64(len(b)) {
			return bad("its value lies outside", i)
		}
		value := b[start:end:end]
		switch le.Uint32(b[at:]) {
		case 0:
			if len(path) == 0 {
				return bad("a value where only buckets are", i)
			}
			c.row(path, keys[i], value)
		case 1:
			if len(path) == 0 {
				c.report.buckets++
			}
			if err := c.bucket(append(path[:len(path):len(path)], keys[i]), value, depth); err != nil {
				return err
			}
		default:
			return bad("neither a value nor a bucket", i)
		}
	}
	return nil
}

// bucket checks the tree of a bucket: one with a root page, or one that fits into its header's row.
func (c *checker) bucket(path [][]byte, header []byte, depth int) error {
	name := "bucket " + string(bytes.Join(path, []byte("/")))
	if len(header) < 16 {
		return fmt.Errorf("%w: %s has no header", ErrCorrupt, name)
	}
	if root := binary.LittleEndian.Uint64(header); root != 0 {
		return c.walk(root, path, nil, nil, depth+1)
	}
	if len(header) < 16+pageHeader || binary.LittleEndian.Uint16(header[16+8:]) != leafPage {
		return fmt.Errorf("%w: %s has neither pages nor rows", ErrCorrupt, name)
	}
	return c.walkPage(header[16:], name, path, nil, nil, depth+1)
}

// row counts a row and checks it against its sum.
func (c *checker) row(path [][]byte, key, row []byte) {
	name := path[0]
	switch {
	case bytes.Equal(name, metaBucket):
		if bytes.Equal(key, schemaKey) && len(row) == 8 {
			c.report.schema = binary.BigEndian.Uint64(row)
		}
		if bytes.Equal(key, tallyKey) {
			c.report.stored = bytes.Clone(row)
		}
		return
	case len(path) > 1:
		name = recordsName(path[1])
	}
	c.report.tally.add(row)
	if _, err := unseal(name, key, row); err != nil {
		c.report.damaged = append(c.report.damaged, err)
	}
}

func (c *checker) checkFreelist() error {
	if c.freelist == noFreelist {
		return nil
	}
	b, err := c.read(c.freelist)
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	count, ids := uint64(le.Uint16(b[10:])), b[pageHeader:]
	if count == 0xFFFF { // then the first number is the count
		count, ids = le.Uint64(ids), ids[8:]
	}
	if le.Uint16(b[8:]) != freelistPage || count > uint64(len(ids))/8 {
		return fmt.Errorf("%w: page %d is no list of free pages", ErrCorrupt, c.freelist)
	}
	for i := range count {
		if id := le.Uint64(ids[i*8:]); id < 2 || id >= c.pages || c.seen[id] {
			return fmt.Errorf("%w: page %d is listed as free", ErrCorrupt, id)
		} else {
			c.seen[id] = true
		}
	}
	return nil
}
