// SPDX-License-Identifier: Apache-2.0

// Package uki assembles and reads unified kernel images: one PE program for UEFI that holds a boot stub, a kernel, its
// initramfs and its command line (UAPI.5). It must not know what the kernel boots into.
//
// Start reading at Assemble.
package uki

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Parts are what goes into a unified kernel image. Stub, Kernel and CommandLine are needed.
type Parts struct {
	// Stub is systemd's EFI boot stub (linuxx64.efi.stub).
	Stub []byte
	// OSRelease is an os-release(5) file.
	OSRelease string
	// CommandLine is the kernel's.
	CommandLine string
	// Uname is the kernel's release.
	Uname string
	// Kernel is a bootable kernel with an EFI entry (bzImage).
	Kernel []byte
	// Initrd is one or more cpio archives, compressed or not.
	Initrd []byte
}

// Sizes and places of the fields that change, from the PE/COFF specification (Microsoft, revision 11).
const (
	peOffsetField      = 0x3c // in the DOS header
	signatureSize      = 4
	coffHeaderSize     = 20
	sectionHeaderSize  = 40
	numberOfSections   = 2  // in the COFF header
	symbolTableField   = 8  // "
	numberOfSymbols    = 12 // "
	codeSizeField      = 4  // in the optional header
	initializedField   = 8  // "
	sectionAlignField  = 32 // "
	fileAlignField     = 36 // "
	sizeOfImageField   = 56 // "
	sizeOfHeadersField = 60 // "
	checksumField      = 64 // "

	// readOnlyData is IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ.
	readOnlyData = 0x40000040
	page         = 4096
)

type section struct {
	name string
	data []byte
}

// Assemble appends the parts to the stub as sections and returns the whole. Equal parts give equal bytes.
func Assemble(p Parts) ([]byte, error) {
	if len(p.Kernel) == 0 || p.CommandLine == "" {
		return nil, errors.New("assembling a unified kernel image: kernel and command line are needed")
	}
	// The kernel comes last: older stubs let it unpack itself over what lies behind it.
	sections := []section{
		{".osrel", []byte(p.OSRelease)},
		{".cmdline", append([]byte(p.CommandLine), 0)},
		{".uname", []byte(p.Uname)},
		{".initrd", p.Initrd},
		{".linux", p.Kernel},
	}
	out, err := appendSections(p.Stub, sections)
	if err != nil {
		return nil, fmt.Errorf("assembling a unified kernel image: %w", err)
	}
	return out, nil
}

func appendSections(stub []byte, sections []section) ([]byte, error) {
	file, err := pe.NewFile(bytes.NewReader(stub))
	if err != nil {
		return nil, fmt.Errorf("reading the boot stub: %w", err)
	}
	header, ok := file.OptionalHeader.(*pe.OptionalHeader64)
	if !ok {
		return nil, errors.New("reading the boot stub: it is not a 64-bit PE program")
	}
	if file.Section(".sdmagic") == nil {
		return nil, errors.New("reading the boot stub: it has no .sdmagic section, so it is not systemd's stub")
	}
	if header.DataDirectory[pe.IMAGE_DIRECTORY_ENTRY_SECURITY].Size != 0 {
		return nil, errors.New("reading the boot stub: it is signed; sections cannot be added to a signed program")
	}
	coff := int(binary.LittleEndian.Uint32(stub[peOffsetField:])) + signatureSize
	optional := coff + coffHeaderSize
	table := optional + int(file.FileHeader.SizeOfOptionalHeader)

	address, end := uint32(0), uint32(0)
	for _, s := range file.Sections {
		if s.Name == ".linux" || s.Name == ".cmdline" || s.Name == ".initrd" {
			return nil, fmt.Errorf("reading the boot stub: it has a %s already", s.Name)
		}
		address = max(address, s.VirtualAddress+s.VirtualSize)
		end = max(end, s.Offset+s.Size)
	}
	out := append([]byte(nil), stub[:end]...)
	next := table + len(file.Sections)*sectionHeaderSize
	count := len(file.Sections)
	added := uint32(0)
	for _, s := range sections {
		if len(s.data) == 0 {
			continue
		}
		if next+sectionHeaderSize > int(header.SizeOfHeaders) {
			return nil, fmt.Errorf("the boot stub's headers have no room for section %s", s.name)
		}
		address = align(address, max(page, header.SectionAlignment))
		out = pad(out, header.FileAlignment)
		h := pe.SectionHeader32{
			VirtualSize: uint32(len(s.data)), VirtualAddress: address,
			SizeOfRawData: align(uint32(len(s.data)), header.FileAlignment), PointerToRawData: uint32(len(out)),
			Characteristics: readOnlyData,
		}
		copy(h.Name[:], s.name)
		if _, err := binary.Encode(out[next:], binary.LittleEndian, h); err != nil {
			return nil, fmt.Errorf("writing the header of section %s: %w", s.name, err)
		}
		out = pad(append(out, s.data...), header.FileAlignment)
		address += h.VirtualSize
		added += h.SizeOfRawData
		next += sectionHeaderSize
		count++
	}
	put32 := func(at int, v uint32) { binary.LittleEndian.PutUint32(out[at:], v) }
	binary.LittleEndian.PutUint16(out[coff+numberOfSections:], uint16(count))
	// A linker's symbols lie behind the last section: what is added has taken their place.
	put32(coff+symbolTableField, 0)
	put32(coff+numberOfSymbols, 0)
	put32(optional+initializedField, header.SizeOfInitializedData+added)
	put32(optional+sizeOfImageField, align(address, max(page, header.SectionAlignment)))
	// Firmware does not check it for programs; zero says "none" rather than a wrong one.
	put32(optional+checksumField, 0)
	return out, nil
}

// Sections reads back what Assemble put in, by section name.
func Sections(r io.ReaderAt) (map[string][]byte, error) {
	file, err := pe.NewFile(r)
	if err != nil {
		return nil, fmt.Errorf("reading a unified kernel image: %w", err)
	}
	found := map[string][]byte{}
	for _, s := range file.Sections {
		data, err := s.Data()
		if err != nil {
			return nil, fmt.Errorf("reading section %s: %w", s.Name, err)
		}
		found[s.Name] = data[:min(len(data), int(s.VirtualSize))]
	}
	if len(found[".linux"]) == 0 {
		return nil, errors.New("reading a unified kernel image: it has no .linux section")
	}
	found[".cmdline"] = bytes.TrimRight(found[".cmdline"], "\x00")
	return found, nil
}

func align(n, to uint32) uint32 { return (n + to - 1) / to * to }

func pad(b []byte, to uint32) []byte {
	return append(b, make([]byte, int(align(uint32(len(b)), to))-len(b))...)
}
