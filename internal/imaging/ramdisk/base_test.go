// SPDX-License-Identifier: Apache-2.0

package ramdisk

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cavaliergopher/cpio"
	"github.com/google/go-cmp/cmp"

	"metald.io/metald/internal/imaging/uki"
)

// stub is the least PE program that passes for systemd's stub.
func stub(t *testing.T) []byte {
	t.Helper()
	const size, align = 0x400, 0x200
	out := bytes.NewBuffer(append([]byte("MZ"), make([]byte, 0x7e)...))
	binary.LittleEndian.PutUint32(out.Bytes()[0x3c:], 0x80)
	optional := pe.OptionalHeader64{Magic: 0x20b, SectionAlignment: align, FileAlignment: align, SizeOfHeaders: size, NumberOfRvaAndSizes: 16}
	magic := pe.SectionHeader32{VirtualSize: 5, VirtualAddress: 0x4000, SizeOfRawData: align, PointerToRawData: size}
	copy(magic.Name[:], ".sdmagic")
	for _, v := range []any{[]byte("PE\x00\x00"), pe.FileHeader{Machine: pe.IMAGE_FILE_MACHINE_AMD64, NumberOfSections: 1,
		SizeOfOptionalHeader: uint16(binary.Size(optional))}, optional, magic} {
		if err := binary.Write(out, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	return append(out.Bytes(), make([]byte, size+align-out.Len())...)
}

func spec(t *testing.T) Spec {
	t.Helper()
	k := kernel(t)
	k.Image = filepath.Join(k.Root, "vmlinuz")
	if err := os.WriteFile(k.Image, []byte("the kernel"), 0o644); err != nil {
		t.Fatal(err)
	}
	return Spec{Initramfs: initramfs(k), Stub: stub(t)}
}

// A release's ramdisk and the site's CA make what was there before the CA, and the CA in a plain archive before it.
func TestLocalize(t *testing.T) {
	s := spec(t)
	s.Authority = nil
	base, err := BuildBase(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := Localize(base, []byte("the site's CA"))
	if err != nil {
		t.Fatal(err)
	}
	before, err := uki.Open(base)
	if err != nil {
		t.Fatal(err)
	}
	after, err := uki.Open(whole)
	if err != nil {
		t.Fatal(err)
	}
	first, same := bytes.CutSuffix(after.Initrd, before.Initrd)
	if !same || len(first)%4 != 0 {
		t.Fatalf("the release's initramfs does not stand whole behind %d bytes", len(first))
	}
	after.Initrd = before.Initrd
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("beside the initramfs something changed (-before +after):\n%s", diff)
	}
	got := map[string]string{}
	for r := cpio.NewReader(bytes.NewReader(first)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		got[h.Name] = string(data)
	}
	if diff := cmp.Diff(map[string]string{"etc": "", "etc/metald": "", "etc/metald/ca.crt": "the site's CA"}, got); diff != "" {
		t.Errorf("what was added (-want +got):\n%s", diff)
	}
	if _, ok := unpack(t, before.Initrd)["etc/metald/ca.crt"]; ok {
		t.Error("the release's ramdisk carries a CA")
	}
	for name, image := range map[string][]byte{"base": base, "whole": whole} {
		if kernel, ok := Released(image); !ok || kernel != "6.1.0-test" {
			t.Errorf("%s: Released says %q, %v; want 6.1.0-test, true", name, kernel, ok)
		}
	}
}

func TestLocalizeRefuses(t *testing.T) {
	s := spec(t)
	own, err := Build(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := Released(own); ok {
		t.Error("a ramdisk of one's own is taken for a release's")
	}
	if _, err := BuildBase(t.Context(), s); err == nil || !strings.Contains(err.Error(), "must not carry a site CA") {
		t.Errorf("a release with a site's CA: got error %v", err)
	}
	s.Authority = nil
	if _, err := Build(t.Context(), s); err == nil || !strings.Contains(err.Error(), "needs the site CA") {
		t.Errorf("a ramdisk without a CA: got error %v", err)
	}
	base, err := BuildBase(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := Localize(base, []byte("ca"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		base, authority []byte
		want            string
	}{
		"a person's own ramdisk":   {own, []byte("ca"), ErrNoBase.Error()},
		"one that has a CA":        {whole, []byte("ca"), "it carries one already"},
		"no CA":                    {base, nil, "there is none"},
		"something else than that": {[]byte("hello"), []byte("ca"), "reading a unified kernel image"},
	} {
		if _, err := Localize(c.base, c.authority); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got error %v, want one with %q", name, err, c.want)
		}
	}
}
