// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var built = time.Date(2026, 11, 2, 3, 4, 5, 0, time.UTC)

func TestDebVersion(t *testing.T) {
	for version, want := range map[string]string{
		"v0.1.0":                   "0.1.0",
		"v0.1.0-rc.1":              "0.1.0~rc.1",
		"v0.1.0-rc.1-3-gabcdef1":   "0.1.0~rc.1+3.abcdef1",
		"v0.1.0-dirty":             "0.1.0+dirty",
		"v0.1.0-7-g1035186":        "0.1.0+7.1035186",
		"v0.1.0-7-g1035186-dirty":  "0.1.0+7.1035186+dirty",
		"1035186":                  "0~20261102030405.1035186",
		"1035186-dirty":            "0~20261102030405.1035186.dirty",
		"a4c6736":                  "0~20261102030405.a4c6736",
		"devel":                    "0~20261102030405.devel",
		"v1.2.3~beta1-1-gabcdef12": "1.2.3~beta1+1.abcdef12",
	} {
		if got := debVersion(version, built); got != want {
			t.Errorf("%s: got %s, want %s", version, got, want)
		}
	}
}

// The lock that is in the tree serves both architectures, and what is wrong with a lock is named.
func TestReadLock(t *testing.T) {
	for arch, want := range map[string]string{"amd64": "linux systemd ipxe", "arm64": "linux systemd"} {
		parts, err := readLock(debianLock, arch)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, p := range parts {
			got = append(got, p.sourceName())
			if debianLicences[p.sourceName()] == "" || p.sourceVersion() == "" {
				t.Errorf("%s: nothing says its licence, or its source's version", p.name)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: got %s, want %s", arch, got, want)
		}
	}
	sum := strings.Repeat("0", 64)
	for lock, want := range map[string]string{
		"": "it has no",
		"amd64 linux-image-1 1 linux=1 short pool/l":                                                            "line 1: want arch",
		"amd64 bash 1 bash=1 " + sum + " pool/b":                                                                "line 1: bash is asked for",
		"amd64 linux-image-1 1 linux=1 " + sum + " pool/l\n#\namd64 linux-image-2 1 linux=1 " + sum + " pool/m": "line 3: linux-image-2 is asked for twice",
	} {
		if _, err := readLock(lock, "amd64"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got error %v, want one with %q", lock, err, want)
		}
	}
}

func TestSPDX(t *testing.T) {
	for text, want := range map[string]string{
		"                                 Apache License\n                           Version 2.0, January 2004":                             "Apache-2.0",
		"// Licensed under the Apache License,\n// Version 2.0":                                                                             "Apache-2.0",
		"Permission to use, copy, modify, and/or distribute this software for any\npurpose with or without fee is hereby granted, provided": "ISC",
		"Mozilla Public License, version 2.0 ... \"Secondary License\" means the GNU General Public License":                                "MPL-2.0",
		"GNU GENERAL PUBLIC LICENSE\n Version 2, June 1991":                                                                                 "GPL",
		"All rights reserved.": "",
	} {
		if got := strings.Join(spdx(text), " "); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// A module whose licence nobody knows, or none may link, stops the release and is named.
func TestFindLicencesRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"GNU GENERAL PUBLIC LICENSE\n Version 2, June 1991": "example.org/x/COPYING: GPL: a static program",
		"All rights reserved.":                              "example.org/x/COPYING: no licence that is known",
		"":                                                  "example.org/x/COPYING: no licence",
	} {
		l := library{path: "example.org/x", version: "v1.0.0", dir: t.TempDir()}
		if err := writeFile(filepath.Join(l.dir, "COPYING"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := l.findLicences(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got error %v, want one with %q", text, err, want)
		}
	}
	empty := library{path: "example.org/y", version: "v1.0.0", dir: t.TempDir()}
	if err := empty.findLicences(); err == nil || !strings.Contains(err.Error(), "it has no file that says so") {
		t.Errorf("a module without a licence: got error %v", err)
	}
}

func TestEscapePath(t *testing.T) {
	if got, want := escapePath("github.com/NYTimes/gziphandler"), "github.com/!n!y!times/gziphandler"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Two trees of the same content, made at other times, in another order and under another umask, give the same archive.
func TestTarballDependsOnContentAlone(t *testing.T) {
	files := []string{"usr/bin/x", "usr/share/doc/a", "usr/share/doc-b"}
	var archives [][]byte
	for round := range 2 {
		root, out := t.TempDir(), filepath.Join(t.TempDir(), "a.tar.gz")
		for _, f := range files {
			mode := os.FileMode(0o644)
			if f == "usr/bin/x" {
				mode = 0o755
			}
			if round == 1 {
				mode &^= 0o077
			}
			if err := writeFile(filepath.Join(root, f), []byte(f), mode); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink("x", filepath.Join(root, "usr/bin/y")); err != nil {
			t.Fatal(err)
		}
		if err := settle(root, built); err != nil {
			t.Fatal(err)
		}
		if err := writeTarball(out, root, "metald_1", built); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		archives = append(archives, data)
		slices.Reverse(files)
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("the archives differ")
	}
}
