// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/imaging/fetch"
)

// loaderConf lets systemd-boot take the newest entry at once, and nobody at the console change its command line.
const loaderConf = "timeout 0\neditor no\n"

// loaderMost bounds a boot loader, which is held in memory; systemd-boot has 0.1 MiB.
const loaderMost = 16 * mib

// loaderPaths are where firmware looks without any boot entry (UEFI 2.10, 3.5.1.1).
var loaderPaths = map[string]string{"amd64": LoaderPath, "arm64": "/EFI/BOOT/BOOTAA64.EFI"}

// Entry is the path on the ESP of a slot's UKI when it is new.
func Entry(slot string) string {
	return EntryDirectory + "/" + EntryPrefix + slot + "+" + strconv.Itoa(Tries) + ".efi"
}

// IsEntry says whether a file name is a slot's entry, with or without tries left.
func IsEntry(name, slot string) bool {
	rest, ok := strings.CutPrefix(strings.ToLower(name), EntryPrefix+slot)
	return ok && entryRest.MatchString(rest)
}

var entryRest = regexp.MustCompile(`^(\+[0-9]+(-[0-9]+)?)?\.efi$`)

// image writes an Image's files into slot a.
func (i *install) image(ctx context.Context) (Result, error) {
	plan := i.Plan.Image
	root := plan.Root
	if root.HashOffset <= 0 || root.HashOffset >= root.SizeBytes || root.HashOffset%i.sector != 0 || root.SizeBytes%i.sector != 0 {
		return Result{}, &ImageError{
			What: "offset of the root's hash tree", Got: strconv.FormatInt(root.HashOffset, 10),
			Want: fmt.Sprintf("a multiple of %d below %d", i.sector, root.SizeBytes),
		}
	}
	result := Result{Bytes: root.SizeBytes + plan.UKI.SizeBytes + plan.Loader.SizeBytes}
	there, err := i.alreadyThere(ctx)
	if err != nil || there {
		result.AlreadyThere = there
		return result, err
	}
	parts, err := partitionsFor(i.name, i.size, i.Architecture, i.id, plan)
	if err != nil {
		return Result{}, err
	}
	g := newGPT(i.size, i.sector, i.id)
	for n, p := range parts {
		if err := g.set(n, p); err != nil {
			return Result{}, err
		}
	}
	// What cannot be had is found out while the disk still holds what it held.
	loader, err := whole(ctx, i.Source, plan.Loader, "loader.efi", loaderMost)
	if err != nil {
		return Result{}, err
	}
	from, err := i.Source.File(ctx, root.File, "root.img")
	if err != nil {
		return Result{}, fmt.Errorf("fetching root.img: %w", imageFault(err))
	}
	defer from.Close()
	if err := i.wipe(); err != nil {
		return Result{}, err
	}
	i.rescan()
	if err := i.writeImage(ctx, g, from, loader); err != nil {
		return Result{}, err
	}
	if err := i.Flush(); err != nil {
		return Result{}, err
	}
	if err := i.verify(ctx, g); err != nil {
		return Result{}, err
	}
	if err := i.unchanged(); err != nil {
		return Result{}, err
	}
	if err := context.Cause(ctx); err != nil {
		return Result{}, err
	}
	if err := i.commit(g); err != nil {
		return Result{}, err
	}
	i.rescan()
	return result, nil
}

// alreadyThere says whether the disk holds the plan's outcome. A missing second copy of the table is put back: power was
// lost between the two.
func (i *install) alreadyThere(ctx context.Context) (bool, error) {
	g, err := readGPT(i, i.size, i.sector)
	if err != nil || swapGUID(g.header.DiskGUID) != i.id {
		return false, nil
	}
	if err := i.verify(ctx, g); err != nil {
		if cerr := context.Cause(ctx); cerr != nil {
			return false, cerr
		}
		i.log.Info("disk of this plan is not whole, writing it again", "err", err)
		return false, nil
	}
	if i.committed(g) == nil {
		return true, nil
	}
	if err := i.commit(g); err != nil {
		return false, err
	}
	return true, nil
}

// writeImage fills the partitions of g, which nobody can see yet.
func (i *install) writeImage(ctx context.Context, g *gpt, root io.Reader, loader []byte) error {
	plan := i.Plan.Image
	at := func(name string) Partition {
		p, _ := g.find(name) // it was laid out with all names
		return p
	}
	// What others left at the edges of a partition would be taken for a file system or a part of a RAID.
	for _, name := range []string{RootB, RootBHash, State} {
		p := at(name)
		for _, off := range []int64{p.Offset, p.Offset + p.Size - mib} {
			if err := i.Zero(off, mib); err != nil {
				return i.failed(err, off)
			}
		}
	}
	i.meter.begin("writing root-a of "+i.name, plan.Root.SizeBytes)
	digest := fetch.NewDigest(sha256.New())
	err := i.pourAll(ctx, io.TeeReader(root, digest), []span{
		{at(RootA).Offset, plan.Root.HashOffset}, {at(RootAHash).Offset, plan.Root.SizeBytes - plan.Root.HashOffset},
	})
	got := hex.EncodeToString(digest.Sum())
	if err != nil {
		return fmt.Errorf("writing root.img: %w", imageFault(err))
	}
	if got != plan.Root.SHA256 {
		return &ImageError{What: "SHA-256 of root.img", Got: got, Want: plan.Root.SHA256}
	}
	return i.writeESP(ctx, at(ESP), loader)
}

// pourAll fills the spans with all that r has, and wants no more and no less.
func (i *install) pourAll(ctx context.Context, r io.Reader, spans []span) error {
	for _, s := range spans {
		n, err := i.pour(ctx, r, s.off, s.size, nil)
		if err != nil {
			return err
		}
		if n < s.size {
			return fmt.Errorf("%w after %d of %d bytes", io.ErrUnexpectedEOF, n, s.size)
		}
	}
	return nil
}

// imageFault tells an image that is wrong from a network that is.
func imageFault(err error) error {
	if length, ok := errors.AsType[*fetch.LengthError](err); ok {
		return &ImageError{What: "length", Got: strconv.FormatInt(length.Got, 10), Want: strconv.FormatInt(length.Want, 10)}
	}
	return err
}

func (i *install) writeESP(ctx context.Context, esp Partition, loader []byte) error {
	plan := i.Plan.Image
	files := []fatFile{
		{loaderPaths[i.Architecture], int64(len(loader))},
		{LoaderConfig, int64(len(loaderConf))},
		{Entry(SlotA), plan.UKI.SizeBytes},
	}
	label := PartitionGUID(i.id, "volume")
	fs, err := newFAT(esp.Size, esp.Offset, i.sector, binary.LittleEndian.Uint32(label[:]), files)
	if err != nil {
		return err
	}
	uki, err := i.Source.File(ctx, plan.UKI, "uki.efi")
	if err != nil {
		return fmt.Errorf("fetching the UKI: %w", imageFault(err))
	}
	defer uki.Close()
	i.meter.begin("writing the boot files of "+i.name, plan.UKI.SizeBytes)
	digest := fetch.NewDigest(sha256.New())
	n, err := i.pour(ctx, io.TeeReader(uki, digest), esp.Offset+fs.at[files[2].path], roundUp(plan.UKI.SizeBytes, i.sector), nil)
	got := hex.EncodeToString(digest.Sum())
	if err != nil {
		return fmt.Errorf("writing the UKI: %w", imageFault(err))
	}
	if got != plan.UKI.SHA256 || n != plan.UKI.SizeBytes {
		return &ImageError{What: "SHA-256 of the UKI", Got: got, Want: plan.UKI.SHA256}
	}
	for off, b := range map[int64][]byte{
		0: fs.head, fs.at[files[0].path]: loader, fs.at[files[1].path]: []byte(loaderConf),
	} {
		b = append(b[:len(b):len(b)], make([]byte, roundUp(int64(len(b)), i.sector)-int64(len(b)))...)
		if err := i.put(b, esp.Offset+off, nil); err != nil {
			return err
		}
	}
	return nil
}

// verify reads back from the disk what the plan promises by digest.
func (i *install) verify(ctx context.Context, g *gpt) error {
	plan := i.Plan.Image
	i.meter.begin("verifying "+i.name, plan.Root.SizeBytes+plan.UKI.SizeBytes+plan.Loader.SizeBytes)
	root, tree, esp := Partition{}, Partition{}, Partition{}
	for name, p := range map[string]*Partition{RootA: &root, RootAHash: &tree, ESP: &esp} {
		found := false
		if *p, found = g.find(name); !found || p.Offset < edge || p.Offset+p.Size > i.size {
			return &ReadBackError{Disk: i.name, What: "there is no partition " + name}
		}
	}
	length := plan.Root.SizeBytes - plan.Root.HashOffset
	if root.Size < plan.Root.HashOffset || tree.Size < length {
		return &ReadBackError{Disk: i.name, What: "its partitions are smaller than the image"}
	}
	got, err := i.digest(ctx, sha256.New(), span{root.Offset, plan.Root.HashOffset}, span{tree.Offset, length})
	if err != nil {
		return err
	}
	if got != plan.Root.SHA256 {
		return &ReadBackError{Disk: i.name, What: fmt.Sprintf("SHA-256 of root-a and its hash tree is %s, want %s", got, plan.Root.SHA256)}
	}
	return i.verifyESP(ctx, esp)
}

func (i *install) verifyESP(ctx context.Context, esp Partition) error {
	plan := i.Plan.Image
	conf := sha256.Sum256([]byte(loaderConf))
	fs, err := openFAT(i, esp.Offset, esp.Size)
	if err != nil {
		return err
	}
	loader := loaderPaths[i.Architecture]
	for _, want := range []struct {
		dir  string
		is   func(name string) bool
		file v1alpha1.File
	}{
		{"/EFI/BOOT", func(n string) bool { return strings.EqualFold("/EFI/BOOT/"+n, loader) }, plan.Loader},
		{"/loader", func(n string) bool { return strings.EqualFold("/loader/"+n, LoaderConfig) },
			v1alpha1.File{SHA256: hex.EncodeToString(conf[:]), SizeBytes: int64(len(loaderConf))}},
		{EntryDirectory, func(n string) bool { return IsEntry(n, SlotA) }, plan.UKI},
	} {
		entries, err := fs.list(want.dir)
		if err != nil {
			return err
		}
		name, got := "", ""
		for _, e := range entries {
			if e.dir || !want.is(e.name) {
				continue
			}
			name = e.name
			if e.size == want.file.SizeBytes {
				runs, err := fs.runs(e.cluster, e.size)
				if err != nil {
					return err
				}
				if got, err = i.digest(ctx, sha256.New(), runs...); err != nil {
					return err
				}
			}
			break
		}
		if got != want.file.SHA256 {
			return &ReadBackError{Disk: i.name, What: fmt.Sprintf("%s/%s has SHA-256 %q, want %s", want.dir, name, got, want.file.SHA256)}
		}
	}
	return nil
}
