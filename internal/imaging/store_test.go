// SPDX-License-Identifier: Apache-2.0

package imaging

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"metald.io/metald/api/v1alpha1"
)

// helloFile is "hello\n", by sha256sum.
var helloFile = v1alpha1.File{SHA256: "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03", SizeBytes: 6}

func store(t *testing.T) (*Store, string) {
	t.Helper()
	dir := t.TempDir()
	s, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s, dir
}

func add(t *testing.T, s *Store, text string) v1alpha1.File {
	t.Helper()
	file, err := s.Add(t.Context(), strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func TestAddAndOpen(t *testing.T) {
	s, dir := store(t)
	for range 2 {
		if diff := cmp.Diff(helloFile, add(t, s, "hello\n")); diff != "" {
			t.Errorf("file (-want +got):\n%s", diff)
		}
	}
	f, err := s.Open(helloFile.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := io.ReadAll(f); err != nil || string(got) != "hello\n" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := s.Verify(helloFile); err != nil {
		t.Errorf("verifying: %v", err)
	}
	names, err := os.ReadDir(filepath.Join(dir, "blobs"))
	if err != nil || len(names) != 1 {
		t.Errorf("%d files in the store, want one (%v)", len(names), err)
	}
}

func TestOpenRefusesWhatIsNoDigest(t *testing.T) {
	s, dir := store(t)
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, digest := range []string{"", "../secret", "..", strings.ToUpper(helloFile.SHA256), helloFile.SHA256 + "0", strings.Repeat("0", 63) + "/", helloFile.SHA256} {
		if f, err := s.Open(digest); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Open(%q) = %v, %v, want it not to exist", digest, f, err)
		}
	}
}

func TestVerifyFindsRot(t *testing.T) {
	s, dir := store(t)
	add(t, s, "hello\n")
	path := filepath.Join(dir, "blobs", helloFile.SHA256)
	if err := os.WriteFile(path, []byte("hellO\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(helloFile); !errors.Is(err, ErrDigest) {
		t.Errorf("a changed byte: error %v, want ErrDigest", err)
	}
	// Adding the right bytes mends it.
	add(t, s, "hello\n")
	if err := s.Verify(helloFile); err != nil {
		t.Errorf("after mending: %v", err)
	}
	wrongSize := helloFile
	wrongSize.SizeBytes++
	if err := s.Verify(wrongSize); !errors.Is(err, ErrDigest) {
		t.Errorf("another length: error %v, want ErrDigest", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(helloFile); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after removal: error %v, want fs.ErrNotExist", err)
	}
}

func TestAddFileKeepsOnlyWhatWasPromised(t *testing.T) {
	s, dir := store(t)
	// Another image's file lies under the digest that the wrong file has: it must survive.
	other := add(t, s, "another image's root\n")
	file := filepath.Join(t.TempDir(), "root.img")
	for _, text := range []string{"another image's root\n", "hellO\n"} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := s.AddFile(t.Context(), file, helloFile); !errors.Is(err, ErrDigest) {
			t.Errorf("%q: error %v, want ErrDigest", text, err)
		}
	}
	if err := s.Verify(other); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(file, []byte("hello\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.AddFile(t.Context(), file, helloFile); err != nil {
		t.Error(err)
	}
	if names, err := os.ReadDir(filepath.Join(dir, "blobs")); err != nil || len(names) != 2 {
		t.Errorf("%v in the store, want two files (%v)", names, err)
	}
}

func TestAddLeavesNothingHalfDone(t *testing.T) {
	s, dir := store(t)
	broken := errors.New("the line went dead")
	if _, err := s.Add(t.Context(), io.MultiReader(strings.NewReader("hel"), failing{broken})); !errors.Is(err, broken) {
		t.Errorf("error %v, want the reader's", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Add(ended, strings.NewReader("hello\n")); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want the context's", err)
	}
	if names, err := os.ReadDir(filepath.Join(dir, "blobs")); err != nil || len(names) != 0 {
		t.Errorf("%v is left in the store (%v)", names, err)
	}
}

func TestRamdisk(t *testing.T) {
	s, dir := store(t)
	if _, err := s.Ramdisk("amd64"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before any: error %v, want fs.ErrNotExist", err)
	}
	if err := s.SetRamdisk("amd64", helloFile); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not stored: error %v, want fs.ErrNotExist", err)
	}
	if err := s.SetRamdisk("../amd64", add(t, s, "hello\n")); err == nil {
		t.Error("an architecture with a path is no error")
	}
	if err := s.SetRamdisk("amd64", add(t, s, "old\n")); err != nil {
		t.Fatal(err)
	}
	if err := s.SetRamdisk("amd64", add(t, s, "hello\n")); err != nil {
		t.Fatal(err)
	}
	// A daemon that runs already sees what another program set.
	other, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	got, err := other.Ramdisk("amd64")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(helloFile, got); diff != "" {
		t.Errorf("ramdisk (-want +got):\n%s", diff)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
