// SPDX-License-Identifier: Apache-2.0

package diskless

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var sample = Root{
	SHA256: strings.Repeat("a1", 32), SizeBytes: 3 * BlockSize, RootHash: strings.Repeat("b2", 32), HashOffset: BlockSize, Format: "erofs",
	Superblock: strings.Repeat("c3", 32),
}

func TestCommandLineReadsBack(t *testing.T) {
	got, found, err := ParseCommandLine("console=ttyS0 " + sample.CommandLine() + " panic=30")
	if err != nil || !found {
		t.Fatalf("found %v, error %v, want it found", found, err)
	}
	if diff := cmp.Diff(sample, got); diff != "" {
		t.Errorf("root (-want +got):\n%s", diff)
	}
}

func TestParseCommandLine(t *testing.T) {
	line := sample.CommandLine()
	for _, c := range []struct {
		name, line string
		found      bool
		err        string // a part of the error, empty for none
	}{
		{"no image", "console=ttyS0 root=/dev/sda1", false, ""},
		{"digest cut short", strings.Replace(line, "a1a1", "a1", 1), true, "metald.root="},
		{"digest not hex", strings.Replace(line, "a1a1", "zza1", 1), true, "metald.root="},
		{"superblock's digest cut short", strings.Replace(line, "c3c3", "c3", 1), true, "metald.superblock="},
		{"an older image", strings.Replace(line, " metald.superblock="+sample.Superblock, "", 1), true, ""},
		{"no root hash", strings.Replace(line, "metald.roothash", "other", 1), true, "metald.roothash="},
		{"size not a number", strings.Replace(line, "rootsize=12288", "rootsize=many", 1), true, "metald.rootsize=many"},
		{"negative size", strings.Replace(line, "rootsize=12288", "rootsize=-1", 1), true, "metald.rootsize=-1"},
		{"hashes behind the end", strings.Replace(line, "hashoffset=4096", "hashoffset=12288", 1), true, "metald.hashoffset=12288"},
		{"hashes off the grid", strings.Replace(line, "hashoffset=4096", "hashoffset=4097", 1), true, "metald.hashoffset=4097"},
		{"unknown file system", strings.Replace(line, "=erofs", "=ntfs", 1), true, "ntfs"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, found, err := ParseCommandLine(c.line)
			if found != c.found {
				t.Errorf("found = %v, want %v", found, c.found)
			}
			switch {
			case c.err == "" && err != nil:
				t.Errorf("error %v, want none", err)
			case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
				t.Errorf("error %v, want one with %q", err, c.err)
			}
		})
	}
}

func TestMachineID(t *testing.T) {
	a, again, b := MachineID("uuid-a"), MachineID("uuid-a"), MachineID("uuid-b")
	if a != again || a == b {
		t.Errorf("ids %s, %s and %s: want the first two equal and the third another", a, again, b)
	}
	if len(a) != 32 || strings.Trim(a, "0123456789abcdef") != "" {
		t.Errorf("id %q, want 32 hex digits", a)
	}
}

func TestRemoveBelow(t *testing.T) {
	root := t.TempDir()
	for _, f := range []string{"init", "etc/metald/ca.crt", "lib/modules/x/a.ko"} {
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(f)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, f), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	outside := filepath.Join(t.TempDir(), "kept")
	if err := os.WriteFile(outside, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Dir(outside), filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	device, err := deviceOf(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := removeBelow(root, device+1); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(root); len(left) != 4 {
		t.Errorf("files of another device are gone: %d of 4 left", len(left))
	}
	if err := removeBelow(root, device); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(root); len(left) != 0 {
		t.Errorf("%v is left, want nothing", left)
	}
	if _, err := os.Stat(outside); err != nil {
		t.Errorf("a link was followed: %v", err)
	}
}
