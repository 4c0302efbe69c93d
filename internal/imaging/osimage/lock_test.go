// SPDX-License-Identifier: Apache-2.0

package osimage

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestLocalFiles(t *testing.T) {
	r, err := recipe(t, goodRecipe)
	if err != nil {
		t.Fatal(err)
	}
	got, err := localFiles(r, inputs(r))
	if err != nil {
		t.Fatal(err)
	}
	want := []LockedFile{
		{Role: "agent", SHA256: textDigest([]byte("agent")), path: "/usr/bin/metald-agent", mode: 0o755},
		{Role: "container metald.local/pause:1 /pause", SHA256: textDigest([]byte("pause")), path: "/pause", mode: 0o755},
		{Role: "file /usr/bin/kubelet", SHA256: textDigest([]byte("kubelet")), path: "/usr/bin/kubelet", mode: 0o755},
		{Role: "folder /etc/motd", SHA256: textDigest([]byte("hello\n")), path: "/etc/motd", mode: 0o644},
		{Role: "folder /etc/net.d", Target: "../run/net.d", path: "/etc/net.d", mode: 0o644},
		{Role: "folder /usr/lib/run", SHA256: textDigest([]byte("#!/bin/sh\n")), path: "/usr/lib/run", mode: 0o755},
		{Role: "loader", SHA256: textDigest([]byte("loader"))},
		{Role: "stub", SHA256: textDigest([]byte("stub"))},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(LockedFile{}), cmpopts.IgnoreFields(LockedFile{}, "source")); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	in := inputs(r)
	in.Loader = "" // an image that runs diskless only
	if got, err := localFiles(r, in); err != nil || len(got) != len(want)-1 {
		t.Errorf("without a loader: %d files, %v, want %d", len(got), err, len(want)-1)
	}
	in.Sources = nil
	if _, err := localFiles(r, in); err == nil || !strings.Contains(err.Error(), "--source bin=DIR") {
		t.Errorf("error %v, want one that asks for --source bin=DIR", err)
	}
}

func TestLockNamesEachDifference(t *testing.T) {
	r, err := recipe(t, goodRecipe)
	if err != nil {
		t.Fatal(err)
	}
	files, err := localFiles(r, inputs(r))
	if err != nil {
		t.Fatal(err)
	}
	l := &Lock{Files: files, Tools: []Tool{{"mmdebstrap", "1.3"}, {"erofs-utils", "1.5"}}}
	if err := l.compare(files, l.Tools); err != nil {
		t.Errorf("nothing differs: %v", err)
	}
	for name, text := range map[string]string{"agent": "another agent", "tree/etc/new": "new"} {
		if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"tree/etc/motd", "tree/etc/net.d"} {
		if err := os.Remove(filepath.Join(r.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/elsewhere", filepath.Join(r.dir, "tree/etc/net.d")); err != nil {
		t.Fatal(err)
	}
	changed, err := localFiles(r, inputs(r))
	if err != nil {
		t.Fatal(err)
	}
	err = l.compare(changed, []Tool{{"mmdebstrap", "1.4"}, {"erofs-utils", "1.5"}, {"kmod", "30"}})
	if err == nil {
		t.Fatal("no error, want all differences")
	}
	want := []string{
		"agent is " + textDigest([]byte("another agent")) + ", the lock has " + textDigest([]byte("agent")),
		"folder /etc/net.d is /elsewhere, the lock has ../run/net.d",
		"folder /etc/new is not in the lock",
		"folder /etc/motd is in the lock and not here",
		"tool mmdebstrap is version 1.4, the lock has 1.3",
		"tool kmod is version 30, the lock has none",
	}
	if diff := cmp.Diff(want, strings.Split(err.Error(), "\n")); diff != "" {
		t.Errorf("differences (-want +got):\n%s", diff)
	}
}

func lock() *Lock {
	return &Lock{
		APIVersion: APIVersion, Kind: LockKind, Recipe: "test", RecipeSHA256: strings.Repeat("1", 64), Architecture: "amd64",
		Kernel:   Package{Name: "linux-image-6.1.0-1-amd64", Version: "6.1.1-1", Architecture: "amd64", SizeBytes: 1, SHA256: strings.Repeat("2", 64)},
		Packages: []Package{{Name: "ethtool", Version: "1:6.1-1", Architecture: "amd64", SizeBytes: 2, SHA256: strings.Repeat("3", 64)}},
		Files:    []LockedFile{{Role: "agent", SHA256: strings.Repeat("4", 64)}},
		Tools:    []Tool{{"kmod", "30"}},
	}
}

func TestLockReadsBack(t *testing.T) {
	want := lock()
	text, err := want.Text()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "image.lock")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := LoadLock(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(LockedFile{})); diff != "" {
		t.Errorf("lock (-want +got):\n%s", diff)
	}
	for name, change := range map[string][2]string{
		"unknown key":            {"recipe: test", "recipe: test\nextra: 1"},
		"another kind":           {"kind: Lock", "kind: Recipe"},
		"a name with a path":     {"name: ethtool", "name: ../ethtool"},
		"a version with a path":  {"version: 6.1.1-1", "version: ../../x"},
		"a digest cut short":     {strings.Repeat("3", 64), "333"},
		"an option in the place": {"name: ethtool", "name: --option"},
	} {
		t.Run(name, func(t *testing.T) {
			bad := strings.Replace(string(text), change[0], change[1], 1)
			if bad == string(text) {
				t.Fatal("the case changes nothing")
			}
			if err := os.WriteFile(file, []byte(bad), 0o644); err != nil {
				t.Fatal(err)
			}
			if l, err := LoadLock(file); err == nil {
				t.Errorf("read %v, want an error", l)
			}
		})
	}
}

func TestParseURIs(t *testing.T) {
	digest := strings.Repeat("a", 64)
	got, err := parseURIs("Reading package lists...\n'http://mirror/e.deb' ethtool_1%3a6.1-1_amd64.deb 196612 SHA256:" + digest + "\n")
	if err != nil {
		t.Fatal(err)
	}
	want := []Package{{Name: "ethtool", Version: "1:6.1-1", Architecture: "amd64", SizeBytes: 196612, SHA256: digest}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("packages (-want +got):\n%s", diff)
	}
	if got, want := got[0].File(), "ethtool_1%3a6.1-1_amd64.deb"; got != want {
		t.Errorf("file %s, want %s", got, want)
	}
	if _, err := parseURIs("'http://mirror/e.deb' ethtool_1_amd64.deb 1 MD5Sum:00\n"); err == nil {
		t.Error("a package without SHA256 is no error")
	}
}

func TestFetchRefusesAnotherDigest(t *testing.T) {
	if _, err := os.Stat("/usr/bin/apt-get"); err != nil {
		t.Skip("there is no apt-get")
	}
	pool := t.TempDir()
	p := Package{Name: "metald-no-such-package", Version: "1", Architecture: "all", SHA256: textDigest([]byte("right"))}
	file := filepath.Join(pool, p.File())
	if err := os.WriteFile(file, []byte("right"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := fetch(t.Context(), pool, []Package{p}); err != nil {
		t.Errorf("the right file is in the pool: %v", err)
	}
	if err := os.WriteFile(file, []byte("wrong"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := fetch(t.Context(), pool, []Package{p}); err == nil {
		t.Error("a wrong file in the pool is no error")
	}
	if err := checkPool(pool, []Package{p}); err == nil || !strings.Contains(err.Error(), textDigest([]byte("wrong"))) || !strings.Contains(err.Error(), p.SHA256) {
		t.Errorf("error %v, want one with both digests", err)
	}
}
