// SPDX-License-Identifier: Apache-2.0

package uki

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
)

// Open takes an image apart into what Assemble made it of, the stub included, so that a part can be exchanged:
// assembling the parts again gives the same bytes. A signed image cannot be taken apart.
func Open(image []byte) (Parts, error) {
	file, err := pe.NewFile(bytes.NewReader(image))
	if err != nil {
		return Parts{}, fmt.Errorf("reading a unified kernel image: %w", err)
	}
	found, err := Sections(bytes.NewReader(image))
	if err != nil {
		return Parts{}, err
	}
	stub, err := stubOf(image, file)
	if err != nil {
		return Parts{}, fmt.Errorf("reading a unified kernel image: %w", err)
	}
	return Parts{
		Stub: stub, OSRelease: string(found[".osrel"]), CommandLine: string(found[".cmdline"]), Uname: string(found[".uname"]),
		Kernel: found[".linux"], Initrd: found[".initrd"],
	}, nil
}

// stubOf undoes appendSections: the sections from the first of ours on go, from the table and from the sums over it.
func stubOf(image []byte, file *pe.File) ([]byte, error) {
	header, ok := file.OptionalHeader.(*pe.OptionalHeader64)
	if !ok {
		return nil, errors.New("it is not a 64-bit PE program")
	}
	if header.DataDirectory[pe.IMAGE_DIRECTORY_ENTRY_SECURITY].Size != 0 {
		return nil, errors.New("it is signed")
	}
	ours := map[string]bool{".osrel": true, ".cmdline": true, ".uname": true, ".initrd": true, ".linux": true}
	count, end, added := 0, uint32(0), uint32(0)
	for _, s := range file.Sections {
		switch {
		case ours[s.Name]:
			added += s.Size
		case added > 0:
			return nil, fmt.Errorf("section %s stands behind the added ones", s.Name)
		default:
			count++
			end = max(end, s.Offset+s.Size)
		}
	}
	if int(end) > len(image) {
		return nil, errors.New("it is cut short")
	}
	stub := append([]byte(nil), image[:end]...)
	coff := int(binary.LittleEndian.Uint32(stub[peOffsetField:])) + signatureSize
	optional := coff + coffHeaderSize
	table := optional + int(file.FileHeader.SizeOfOptionalHeader)
	clear(stub[table+count*sectionHeaderSize : table+len(file.Sections)*sectionHeaderSize])
	binary.LittleEndian.PutUint16(stub[coff+numberOfSections:], uint16(count))
	binary.LittleEndian.PutUint32(stub[optional+initializedField:], header.SizeOfInitializedData-added)
	return stub, nil
}
