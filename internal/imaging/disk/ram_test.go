// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/google/uuid"

	"metald.io/metald/api/v1alpha1"
)

const page = 4096

// op is one thing that was done to a disk: bytes written, n zeros, or a flush.
type op struct {
	off   int64
	data  []byte
	n     int64
	flush bool
}

// ram is a disk in memory that remembers what was done to it, in order.
type ram struct {
	mu    sync.Mutex
	size  int64
	pages map[int64][]byte // never changed in place, so that a copy of the map is a copy of the disk
	ops   []op
	fail  func(op int) error // asked before each write and zeroing
	// flushed is told the number of each flush.
	flushed func(n int)
	flushes int
	deaf    bool // acknowledges everything and keeps nothing
}

func newRAM(size int64) *ram { return &ram{size: size, pages: map[int64][]byte{}} }

func (r *ram) ReadAt(p []byte, off int64) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if off+int64(len(p)) > r.size {
		return 0, io.ErrUnexpectedEOF
	}
	for n := 0; n < len(p); {
		at := off + int64(n)
		k := min(len(p)-n, int(page-at%page))
		if b := r.pages[at/page]; b != nil {
			copy(p[n:n+k], b[at%page:])
		} else {
			clear(p[n : n+k])
		}
		n += k
	}
	return len(p), nil
}

// apply changes the disk. A nil data is zeros.
func (r *ram) apply(off int64, data []byte, n int64) {
	for done := int64(0); done < n; {
		at := off + done
		k := min(n-done, page-at%page)
		b := make([]byte, page)
		if k < page {
			copy(b, r.pages[at/page])
		}
		switch {
		case data != nil:
			copy(b[at%page:], data[done:done+k])
			r.pages[at/page] = b
		case k == page:
			delete(r.pages, at/page)
		default:
			clear(b[at%page : at%page+k])
			r.pages[at/page] = b
		}
		done += k
	}
}

func (r *ram) do(o op) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o.off < 0 || o.off%512 != 0 || o.n%512 != 0 || o.off+o.n > r.size {
		return fmt.Errorf("%d bytes at %d are not on the disk or not whole sectors", o.n, o.off)
	}
	if r.fail != nil {
		if err := r.fail(len(r.ops)); err != nil {
			return err
		}
	}
	r.ops = append(r.ops, o)
	if !o.flush && !r.deaf {
		r.apply(o.off, o.data, o.n)
	}
	if o.flush {
		if r.flushes++; r.flushed != nil {
			r.flushed(r.flushes)
		}
	}
	return nil
}

func (r *ram) WriteAt(p []byte, off int64) (int, error) {
	if err := r.do(op{off: off, data: bytes.Clone(p), n: int64(len(p))}); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (r *ram) Zero(off, n int64) error { return r.do(op{off: off, n: n}) }
func (r *ram) Flush() error            { return r.do(op{flush: true}) }
func (r *ram) Size() (int64, error)    { return r.size, nil }

func (r *ram) clone() *ram { return &ram{size: r.size, pages: maps.Clone(r.pages)} }

// crash is the disk after power was lost when k operations had been given to it: what was flushed is there, of the rest each
// sector may be or not.
func (r *ram) crash(before *ram, k int, keep func() bool) *ram {
	flushed := 0
	for n, o := range r.ops[:k] {
		if o.flush {
			flushed = n
		}
	}
	d := before.clone()
	for n, o := range r.ops[:k] {
		switch {
		case o.flush:
		case n < flushed:
			d.apply(o.off, o.data, o.n)
		default:
			step := int64(512)
			if o.n > 64<<10 {
				step = o.n / 16 / 512 * 512 // long ones are torn into fewer pieces, for the test's sake
			}
			for at := int64(0); at < o.n; at += step {
				if !keep() {
					continue
				}
				part := op{off: o.off + at, n: min(step, o.n-at)}
				if o.data != nil {
					part.data = o.data[at : at+part.n]
				}
				d.apply(part.off, part.data, part.n)
			}
		}
	}
	return d
}

// shelf is a Source of files in memory.
type shelf struct {
	files map[string][]byte
	urls  map[string][]byte
	cut   int // bytes that are missing at the end of every file
}

func (s *shelf) File(_ context.Context, file v1alpha1.File, name string) (io.ReadCloser, error) {
	b, ok := s.files[file.SHA256]
	if !ok {
		return nil, fmt.Errorf("%s is not there", name)
	}
	return io.NopCloser(bytes.NewReader(b[:len(b)-s.cut])), nil
}

func (s *shelf) URL(_ context.Context, url string) (io.ReadCloser, int64, error) {
	b, ok := s.urls[url]
	if !ok {
		return nil, 0, fmt.Errorf("%s is not there", url)
	}
	return io.NopCloser(bytes.NewReader(b)), int64(len(b)), nil
}

func (s *shelf) put(b []byte) v1alpha1.File {
	sum := sha256.Sum256(b)
	digest := hex.EncodeToString(sum[:])
	if s.files == nil {
		s.files = map[string][]byte{}
	}
	s.files[digest] = b
	return v1alpha1.File{SHA256: digest, SizeBytes: int64(len(b))}
}

func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed)})
	_, _ = r.Read(b) // never fails
	return b
}

// sample is an image, with a run of zeros in its root that is not written.
type sample struct {
	root, uki, loader []byte
	plan              v1alpha1.InstallPlan
	shelf             *shelf
}

func newSample(diskSize int64) *sample {
	s := &sample{root: noise(1, 5<<20), uki: noise(2, 300_001), loader: noise(3, 4000), shelf: &shelf{}}
	clear(s.root[1<<20 : 3<<20])
	s.plan = v1alpha1.InstallPlan{
		ID:   uuid.NewSHA1(uuid.Nil, []byte("plan")).String(),
		Disk: v1alpha1.DiskTarget{Name: "vda", SerialNumber: "S1", SizeBytes: diskSize},
		Image: &v1alpha1.ImageFiles{
			UKI: s.shelf.put(s.uki), Loader: s.shelf.put(s.loader),
			Root: v1alpha1.RootFile{File: s.shelf.put(s.root), Format: "erofs", HashOffset: 4 << 20},
		},
	}
	return s
}

func (s *sample) install(t *testing.T, m medium, sector int64) (Result, error) {
	t.Helper()
	return run(t.Context(), Options{Plan: s.plan, Source: s.shelf, Architecture: "amd64"}, m, "vda", sector)
}

// check compares what lies on a disk with the sample's bytes.
func (s *sample) check(r *ram, sector int64) error {
	g, err := readGPT(r, r.size, sector)
	if err != nil {
		return err
	}
	for name, want := range map[string][]byte{RootA: s.root[:4<<20], RootAHash: s.root[4<<20:], State: make([]byte, mib), RootB: make([]byte, mib)} {
		p, ok := g.find(name)
		got := make([]byte, len(want))
		if !ok {
			return fmt.Errorf("no partition %s", name)
		}
		if _, err := r.ReadAt(got, p.Offset); err != nil || !bytes.Equal(got, want) {
			return fmt.Errorf("%s differs (%v)", name, err)
		}
	}
	esp, _ := g.find(ESP)
	fs, err := openFAT(r, esp.Offset, esp.Size)
	if err != nil {
		return err
	}
	for path, want := range map[string][]byte{LoaderPath: s.loader, LoaderConfig: []byte(loaderConf), Entry(SlotA): s.uki} {
		got, err := readFile(fs, r, path)
		if err != nil || !bytes.Equal(got, want) {
			return fmt.Errorf("%s differs (%v)", path, err)
		}
	}
	return nil
}

func readFile(fs *fat, r io.ReaderAt, path string) ([]byte, error) {
	at := bytes.LastIndexByte([]byte(path), '/')
	list, err := fs.list(path[:at])
	if err != nil {
		return nil, err
	}
	e, ok := lookup(list, path[at+1:])
	if !ok {
		return nil, fmt.Errorf("no file %s", path)
	}
	runs, err := fs.runs(e.cluster, e.size)
	if err != nil {
		return nil, err
	}
	var out []byte
	for _, run := range runs {
		b := make([]byte, run.size)
		if _, err := r.ReadAt(b, run.off); err != nil {
			return nil, err
		}
		out = append(out, b...)
	}
	return out, nil
}
