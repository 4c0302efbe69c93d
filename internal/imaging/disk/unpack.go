// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"bufio"
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"net/url"
	"path"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/imaging/fetch"
)

// zstdWindow is the largest window that is accepted, in bytes: what zstd --long=27 makes.
const zstdWindow = 128 << 20

// foreign are formats that are no raw disk images, told by how they begin.
var foreign = []struct{ magic, name string }{
	{"QFI\xfb", "qcow2"},
	{"KDMV", "vmdk"},
	{"# Disk DescriptorFile", "vmdk"},
	{"vhdxfile", "vhdx"},
	{"conectix", "vhd"},
	{"<<< ", "vdi"},
	{"\xfd7zXZ\x00", "compressed by xz"},
	{"BZh", "compressed by bzip2"},
	{"PK\x03\x04", "a zip file"},
}

const (
	zstdMagic = "\x28\xb5\x2f\xfd"
	gzipMagic = "\x1f\x8b"
)

func newChecksum(kind string) (hash.Hash, error) {
	switch kind {
	case "md5": // Metal3 has it; it finds accidents and no attacker
		return md5.New(), nil
	case "sha256":
		return sha256.New(), nil
	case "sha512":
		return sha512.New(), nil
	}
	return nil, fmt.Errorf("reading the plan: checksum type %q is none of md5, sha256, sha512", kind)
}

// download is a user's image on its way: unpacked when read, digested as it was fetched.
type download struct {
	io.Reader
	length  int64 // unpacked, in bytes; -1 where nobody knows
	plan    *v1alpha1.RawImage
	packed  *bufio.Reader
	digest  *fetch.Digest
	closers []func()
}

// openRaw begins to fetch a user's image.
func openRaw(ctx context.Context, source Source, plan *v1alpha1.RawImage) (_ *download, err error) {
	if plan, err = settleChecksum(ctx, source, plan); err != nil {
		return nil, err
	}
	sum, err := newChecksum(plan.ChecksumType)
	if err != nil {
		return nil, err
	}
	body, length, err := source.URL(ctx, plan.URL)
	if err != nil {
		return nil, fmt.Errorf("fetching the image: %w", imageFault(err))
	}
	d := &download{length: length, plan: plan, digest: fetch.NewDigest(sum)}
	d.closers = append(d.closers, func() { _ = body.Close() }) // only read from
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	d.packed = bufio.NewReaderSize(io.TeeReader(body, d.digest), 1<<20)
	begin, err := d.packed.Peek(18)
	if err != nil && len(begin) == 0 {
		return nil, fmt.Errorf("fetching the image: %w", imageFault(err))
	}
	d.Reader = d.packed
	name := ""
	if u, err := url.Parse(plan.URL); err == nil {
		name = path.Ext(u.Path)
	}
	switch {
	case bytes.HasPrefix(begin, []byte(zstdMagic)):
		err = d.zstd(begin)
	case bytes.HasPrefix(begin, []byte(gzipMagic)):
		err = d.gzip()
	case name == ".zst" || name == ".gz":
		err = &ImageError{What: "beginning of " + fetch.Shown(plan.URL), Got: fmt.Sprintf("%x", begin[:min(4, len(begin))]), Want: "a compressed file"}
	default:
		err = nil
	}
	return d, err
}

func (d *download) zstd(begin []byte) error {
	d.length = -1
	var header zstd.Header
	if header.Decode(begin) == nil && header.HasFCS {
		d.length = int64(header.FrameContentSize)
	}
	r, err := zstd.NewReader(d.packed, zstd.WithDecoderMaxWindow(zstdWindow))
	if err != nil {
		return fmt.Errorf("unpacking the image: %w", err)
	}
	d.closers = append([]func(){r.Close}, d.closers...)
	d.Reader = r
	return nil
}

func (d *download) gzip() error {
	d.length = -1
	r, err := gzip.NewReader(d.packed)
	if err != nil {
		return fmt.Errorf("unpacking the image: %w", err)
	}
	d.Reader = r
	return nil
}

// check compares the checksum of the file as it was fetched. It fetches what no unpacking has asked for.
func (d *download) check() error {
	if _, err := io.Copy(io.Discard, d.packed); err != nil {
		return fmt.Errorf("fetching the image: %w", err)
	}
	got := hex.EncodeToString(d.digest.Sum())
	d.digest = nil
	if !strings.EqualFold(got, d.plan.Checksum) {
		return &ImageError{What: d.plan.ChecksumType + " of " + fetch.Shown(d.plan.URL), Got: got, Want: strings.ToLower(d.plan.Checksum)}
	}
	return nil
}

func (d *download) close() {
	for _, c := range d.closers {
		c()
	}
	if d.digest != nil {
		d.digest.Sum()
	}
}

// checkFormat refuses what is no raw disk image, by its first bytes.
func checkFormat(head []byte, sector int64) error {
	for _, f := range foreign {
		if bytes.HasPrefix(head, []byte(f.magic)) {
			return &ImageError{What: "format", Got: f.name, Want: "raw"}
		}
	}
	for _, other := range []int64{512, 4096} {
		if other == sector || int64(len(head)) < 2*max(sector, other) {
			continue
		}
		if bytes.Equal(head[other:other+8], gptSignature[:]) && !bytes.Equal(head[sector:sector+8], gptSignature[:]) {
			return &ImageError{What: "sector size of its GPT", Got: fmt.Sprint(other), Want: fmt.Sprint(sector)}
		}
	}
	return nil
}
