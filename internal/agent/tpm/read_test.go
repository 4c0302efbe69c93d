// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"bytes"
	"testing"
)

func TestTrim(t *testing.T) {
	whole := append([]byte{0x30, 0x82, 0x01, 0x00}, bytes.Repeat([]byte{1}, 256)...)
	for _, test := range []struct {
		name string
		der  []byte
		want int
	}{
		{"whole", whole, 260},
		{"padded", append(bytes.Clone(whole), bytes.Repeat([]byte{0xff}, 700)...), 260},
		{"cut short", whole[:200], 0},
		{"blank index", bytes.Repeat([]byte{0xff}, 1000), 0},
		{"empty", nil, 0},
	} {
		if got := trim(test.der); len(got) != test.want {
			t.Errorf("%s: got %d bytes, want %d", test.name, len(got), test.want)
		}
	}
}

func TestCharacters(t *testing.T) {
	for value, want := range map[uint32]string{0x322e3000: "2.0", 0x49465800: "IFX", 0x49424d20: "IBM", 0: ""} {
		if got := characters(value); got != want {
			t.Errorf("%#x: got %q, want %q", value, got, want)
		}
	}
}
