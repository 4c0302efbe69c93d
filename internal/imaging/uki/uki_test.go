// SPDX-License-Identifier: Apache-2.0

package uki

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// stub makes the least PE program that looks like systemd's stub: two sections, and headers of the given size.
func stub(t *testing.T, headers int, change func(*pe.OptionalHeader64)) []byte {
	t.Helper()
	const peOffset, align = 0x80, 0x200
	dos := make([]byte, peOffset)
	copy(dos, "MZ")
	binary.LittleEndian.PutUint32(dos[peOffsetField:], peOffset)
	out := bytes.NewBuffer(dos)
	out.WriteString("PE\x00\x00")
	optional := pe.OptionalHeader64{
		Magic: 0x20b, SectionAlignment: align, FileAlignment: align, SizeOfHeaders: uint32(headers), NumberOfRvaAndSizes: 16, CheckSum: 7,
	}
	if change != nil {
		change(&optional)
	}
	write := func(v any) {
		if err := binary.Write(out, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	write(pe.FileHeader{Machine: pe.IMAGE_FILE_MACHINE_AMD64, NumberOfSections: 2, SizeOfOptionalHeader: uint16(binary.Size(optional))})
	write(optional)
	for i, name := range []string{".text", ".sdmagic"} {
		h := pe.SectionHeader32{VirtualSize: 5, VirtualAddress: uint32(0x4000 + 0x100*i), SizeOfRawData: align, PointerToRawData: uint32(headers + align*i)}
		copy(h.Name[:], name)
		write(h)
	}
	b := append(out.Bytes(), make([]byte, headers-out.Len())...)
	for _, text := range []string{"code!", "magic"} {
		b = append(b, text...)
		b = append(b, make([]byte, align-len(text))...)
	}
	return b
}

func parts(t *testing.T) Parts {
	return Parts{
		Stub: stub(t, 0x400, nil), OSRelease: "ID=x\n", CommandLine: "console=ttyS0 metald.root=1", Uname: "6.1",
		Kernel: bytes.Repeat([]byte("k"), 5000), Initrd: bytes.Repeat([]byte("i"), 4097),
	}
}

func TestSectionsReadBack(t *testing.T) {
	p := parts(t)
	image, err := Assemble(p)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Sections(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]byte{
		".text": []byte("code!"), ".sdmagic": []byte("magic"), ".osrel": []byte(p.OSRelease), ".cmdline": []byte(p.CommandLine),
		".uname": []byte(p.Uname), ".linux": p.Kernel, ".initrd": p.Initrd,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("sections (-want +got):\n%s", diff)
	}
	again, err := Assemble(parts(t))
	if err != nil || !bytes.Equal(image, again) {
		t.Errorf("a second assembly differs (error %v)", err)
	}
}

// TestLayout checks what firmware relies on: no two sections overlap, all is aligned, the image's size covers them, and
// the kernel lies last.
func TestLayout(t *testing.T) {
	image, err := Assemble(parts(t))
	if err != nil {
		t.Fatal(err)
	}
	file, err := pe.NewFile(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	header := file.OptionalHeader.(*pe.OptionalHeader64)
	var end, fileEnd uint32
	for _, s := range file.Sections {
		if s.VirtualAddress < end || s.Offset < fileEnd {
			t.Errorf("section %s at %#x (file %#x) lies on the one before it", s.Name, s.VirtualAddress, s.Offset)
		}
		if s.Offset%header.FileAlignment != 0 || s.Size%header.FileAlignment != 0 {
			t.Errorf("section %s lies off the file's grid", s.Name)
		}
		end, fileEnd = s.VirtualAddress+s.VirtualSize, s.Offset+s.Size
	}
	if header.SizeOfImage < end || header.SizeOfImage%header.SectionAlignment != 0 {
		t.Errorf("size of image %#x does not cover %#x", header.SizeOfImage, end)
	}
	if int(fileEnd) != len(image) {
		t.Errorf("the file has %d bytes, its sections end at %d", len(image), fileEnd)
	}
	if last := file.Sections[len(file.Sections)-1].Name; last != ".linux" {
		t.Errorf("last section %s, want .linux", last)
	}
	if header.CheckSum != 0 {
		t.Errorf("checksum %d is the stub's, want none", header.CheckSum)
	}
}

func TestAssembleRefuses(t *testing.T) {
	full := parts(t)
	for _, c := range []struct {
		name   string
		change func(*Parts)
		want   string
	}{
		{"no kernel", func(p *Parts) { p.Kernel = nil }, "kernel and command line"},
		{"no command line", func(p *Parts) { p.CommandLine = "" }, "kernel and command line"},
		{"no PE at all", func(p *Parts) { p.Stub = []byte("#!/bin/sh\n") }, "reading the boot stub"},
		{"another program", func(p *Parts) { p.Stub = bytes.ReplaceAll(p.Stub, []byte(".sdmagic"), []byte(".another")) }, "not systemd's stub"},
		{"an image again", func(p *Parts) { p.Stub, _ = Assemble(full) }, "already"},
		{"no room for headers", func(p *Parts) { p.Stub = stub(t, 0x200, nil) }, "no room"},
		{"signed", func(p *Parts) {
			p.Stub = stub(t, 0x400, func(h *pe.OptionalHeader64) { h.DataDirectory[pe.IMAGE_DIRECTORY_ENTRY_SECURITY].Size = 8 })
		}, "signed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := parts(t)
			c.change(&p)
			if _, err := Assemble(p); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestSectionsOfAnotherProgram(t *testing.T) {
	if _, err := Sections(bytes.NewReader(stub(t, 0x400, nil))); err == nil || !strings.Contains(err.Error(), ".linux") {
		t.Errorf("error %v, want one that misses .linux", err)
	}
}
