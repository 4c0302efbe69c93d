// SPDX-License-Identifier: Apache-2.0

package uki

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"strings"
	"testing"
)

func TestOpenUndoesAssemble(t *testing.T) {
	p := parts(t)
	image, err := Assemble(p)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := Open(image)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Assemble(opened)
	if err != nil || !bytes.Equal(image, again) {
		t.Fatalf("the parts of an image make another image (error %v)", err)
	}
	// A part that is exchanged changes nothing else: the image is what it would have been from the start.
	opened.Initrd, p.Initrd = []byte("another"), []byte("another")
	got, err := Assemble(opened)
	if err != nil {
		t.Fatal(err)
	}
	want, err := Assemble(p)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("an image with its initrd exchanged is not the image made with that initrd (error %v)", err)
	}
}

// A stub as Debian links it has symbols behind its sections; an image that still pointed to them could not be read.
func TestOpenAfterSymbols(t *testing.T) {
	p := parts(t)
	end := len(p.Stub)
	binary.LittleEndian.PutUint32(p.Stub[0x80+signatureSize+symbolTableField:], uint32(end))
	binary.LittleEndian.PutUint32(p.Stub[0x80+signatureSize+numberOfSymbols:], 2)
	p.Stub = append(p.Stub, make([]byte, 2*18)...)
	p.Stub = append(p.Stub, "\x08\x00\x00\x00abc\x00"...)
	p.OSRelease = string(bytes.Repeat([]byte{0xff}, 64))
	image, err := Assemble(p)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := Open(image)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Assemble(opened); err != nil || !bytes.Equal(image, again) {
		t.Errorf("the parts of an image make another image (error %v)", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	whole, err := Assemble(parts(t))
	if err != nil {
		t.Fatal(err)
	}
	signed := bytes.Clone(whole)
	directories := 0x80 + signatureSize + coffHeaderSize + binary.Size(pe.OptionalHeader64{}) - 16*8
	binary.LittleEndian.PutUint32(signed[directories+pe.IMAGE_DIRECTORY_ENTRY_SECURITY*8+4:], 1)
	for name, c := range map[string]struct {
		image []byte
		want  string
	}{
		"no program":       {[]byte("hello"), "reading a unified kernel image"},
		"the stub alone":   {parts(t).Stub, "no .linux section"},
		"a signed image":   {signed, "it is signed"},
		"an image cut off": {whole[:len(whole)-2048], "reading"},
	} {
		if _, err := Open(c.image); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got error %v, want one with %q", name, err, c.want)
		}
	}
}
