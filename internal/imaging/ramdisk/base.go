// SPDX-License-Identifier: Apache-2.0

package ramdisk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"metald.io/metald/internal/imaging/uki"
)

// baseMark in an image's os-release says that it is a release's ramdisk, with or without a site's CA. Whoever renews
// the ramdisk after an upgrade replaces such a one, and leaves alone what a person built of other parts.
const baseMark = "VARIANT_ID=release\n"

// ErrNoBase says that an image is not a release's ramdisk.
var ErrNoBase = errors.New("not the ramdisk of a release")

// BuildBase makes the ramdisk that a release ships: all but the site CA, which is made on the site. Machines that boot
// it as it is trust no daemon; Localize makes it whole.
func BuildBase(ctx context.Context, s Spec) ([]byte, error) {
	if len(s.Authority) > 0 {
		return nil, errors.New("building a release's ramdisk: it must not carry a site CA")
	}
	return s.build(ctx, baseMark)
}

// Localize puts the site CA into a release's ramdisk and returns the image that machines boot. It needs no other file
// and no program. Equal inputs give equal bytes.
func Localize(base, authority []byte) ([]byte, error) {
	if len(authority) == 0 {
		return nil, errors.New("adding the site CA to the ramdisk: there is none")
	}
	parts, err := uki.Open(base)
	if err != nil {
		return nil, fmt.Errorf("adding the site CA to the ramdisk: %w", err)
	}
	if !strings.Contains(parts.OSRelease, baseMark) {
		return nil, fmt.Errorf("adding the site CA to the ramdisk: %w", ErrNoBase)
	}
	if bytes.HasPrefix(parts.Initrd, []byte(newc)) {
		return nil, errors.New("adding the site CA to the ramdisk: it carries one already")
	}
	var a Archive
	a.File(AuthorityFile, 0o444, authority)
	var first bytes.Buffer
	if err := a.writePlain(&first); err != nil {
		return nil, fmt.Errorf("adding the site CA to the ramdisk: %w", err)
	}
	// The kernel unpacks several archives one after another; the plain one comes first, as it does with microcode, and
	// ends on a boundary of four bytes.
	for first.Len()%4 != 0 {
		first.WriteByte(0)
	}
	parts.Initrd = append(first.Bytes(), parts.Initrd...)
	return uki.Assemble(parts)
}

// newc is how a plain cpio archive begins (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
const newc = "070701"

// Released says whether an image is a release's ramdisk, and which kernel it boots.
func Released(image []byte) (kernel string, ok bool) {
	sections, err := uki.Sections(bytes.NewReader(image))
	if err != nil {
		return "", false
	}
	return string(sections[".uname"]), strings.Contains(string(sections[".osrel"]), baseMark)
}
