// SPDX-License-Identifier: Apache-2.0

// Package imaging keeps the files that machines boot: unified kernel images and root file systems, found by their digest
// in one folder. It must not know who is offered which file (provision decides, pxe serves), and nothing of the API.
// Beside it lie the makers and users of such files: uki, ramdisk and osimage build them, kmod and diskless are the
// agent's half, in packages of their own so that the agent stays small.
//
// Start reading at Store.
package imaging

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"

	"metald.io/metald/api/v1alpha1"
)

// Store is a folder of files named by their SHA-256, and the name of each architecture's ramdisk. Several programs may
// use one folder at once: a file appears whole or not at all, and is never changed.
type Store struct {
	dir string
}

// ErrDigest says that a file is not what its name or its Image promises.
var ErrDigest = errors.New("wrong digest")

// OpenStore makes the folder if need be.
func OpenStore(dir string) (*Store, error) {
	if err := os.MkdirAll(filepath.Join(dir, "blobs"), 0o755); err != nil {
		return nil, fmt.Errorf("opening the image store: %w", err)
	}
	return &Store{dir: dir}, nil
}

// Add copies r into the store and returns its digest and length once they are on disk. What is there already is kept.
func (s *Store) Add(ctx context.Context, r io.Reader) (v1alpha1.File, error) {
	file, err := s.add(ctx, r, nil)
	if err != nil {
		return v1alpha1.File{}, fmt.Errorf("storing a file: %w", err)
	}
	return file, nil
}

// AddBytes is Add of bytes in memory.
func (s *Store) AddBytes(ctx context.Context, b []byte) (v1alpha1.File, error) {
	return s.Add(ctx, bytes.NewReader(b))
}

// AddFile copies the file at path into the store if it is what was promised. A difference is ErrDigest, and nothing of
// the file is kept.
func (s *Store) AddFile(ctx context.Context, path string, want v1alpha1.File) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("storing a file: %w", err)
	}
	defer f.Close()
	if _, err := s.add(ctx, f, &want); err != nil {
		return fmt.Errorf("storing %s: %w", path, err)
	}
	return nil
}

// add stores r under its digest, unless something else is wanted.
func (s *Store) add(ctx context.Context, r io.Reader, want *v1alpha1.File) (_ v1alpha1.File, err error) {
	blobs := filepath.Join(s.dir, "blobs")
	tmp, err := os.CreateTemp(blobs, ".incoming-*")
	if err != nil {
		return v1alpha1.File{}, err
	}
	defer func() {
		tmp.Close()
		if err != nil {
			os.Remove(tmp.Name())
		}
	}()
	digest := sha256.New()
	size, err := io.Copy(io.MultiWriter(tmp, digest), contextReader{ctx, r})
	if err != nil {
		return v1alpha1.File{}, err
	}
	file := v1alpha1.File{SHA256: hex.EncodeToString(digest.Sum(nil)), SizeBytes: size}
	if want != nil && file != *want {
		return v1alpha1.File{}, fmt.Errorf("it has sha256 %s and %d bytes, want %s and %d: %w", file.SHA256, file.SizeBytes, want.SHA256, want.SizeBytes, ErrDigest)
	}
	if err := tmp.Chmod(0o644); err != nil {
		return v1alpha1.File{}, err
	}
	if err := tmp.Sync(); err != nil {
		return v1alpha1.File{}, err
	}
	// Replacing an equal file also mends one that rotted.
	if err := os.Rename(tmp.Name(), s.path(file.SHA256)); err != nil {
		return v1alpha1.File{}, err
	}
	return file, syncDir(blobs)
}

// Open opens a file by its digest. An absent one is fs.ErrNotExist, also when the digest is not one.
func (s *Store) Open(digest string) (*os.File, error) {
	if !isDigest(digest) {
		return nil, fmt.Errorf("opening image file %q: not a SHA-256 digest in hex: %w", digest, fs.ErrNotExist)
	}
	f, err := os.Open(s.path(digest))
	if err != nil {
		return nil, fmt.Errorf("opening image file %s: %w", digest, err)
	}
	return f, nil
}

// Verify reads a whole file and compares it with what was promised. A difference is ErrDigest, an absent file
// fs.ErrNotExist.
func (s *Store) Verify(want v1alpha1.File) error {
	f, err := s.Open(want.SHA256)
	if err != nil {
		return err
	}
	defer f.Close()
	digest := sha256.New()
	size, err := io.Copy(digest, f)
	if err != nil {
		return fmt.Errorf("verifying image file %s: %w", want.SHA256, err)
	}
	if got := hex.EncodeToString(digest.Sum(nil)); got != want.SHA256 {
		return fmt.Errorf("verifying image file %s: it is %s: %w", want.SHA256, got, ErrDigest)
	}
	if size != want.SizeBytes {
		return fmt.Errorf("verifying image file %s: it has %d bytes, want %d: %w", want.SHA256, size, want.SizeBytes, ErrDigest)
	}
	return nil
}

// SetRamdisk remembers a stored file as the ramdisk of an architecture (Go's word).
func (s *Store) SetRamdisk(arch string, file v1alpha1.File) error {
	if err := s.setRamdisk(arch, file); err != nil {
		return fmt.Errorf("remembering the %s ramdisk: %w", arch, err)
	}
	return nil
}

func (s *Store) setRamdisk(arch string, file v1alpha1.File) error {
	name, err := s.ramdisk(arch)
	if err != nil {
		return err
	}
	if _, err := os.Stat(s.path(file.SHA256)); err != nil {
		return err
	}
	text, err := json.Marshal(file)
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(name, append(text, '\n'), 0o644); err != nil {
		return err
	}
	return syncDir(s.dir)
}

// Ramdisk is the ramdisk of an architecture. When none was made yet the error is fs.ErrNotExist.
func (s *Store) Ramdisk(arch string) (v1alpha1.File, error) {
	name, err := s.ramdisk(arch)
	if err != nil {
		return v1alpha1.File{}, fmt.Errorf("finding the %s ramdisk: %w", arch, err)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return v1alpha1.File{}, fmt.Errorf("finding the %s ramdisk: %w", arch, err)
	}
	var file v1alpha1.File
	if err := json.Unmarshal(text, &file); err != nil {
		return v1alpha1.File{}, fmt.Errorf("finding the %s ramdisk: %w", arch, err)
	}
	return file, nil
}

func (s *Store) path(digest string) string { return filepath.Join(s.dir, "blobs", digest) }

func (s *Store) ramdisk(arch string) (string, error) {
	if arch != "amd64" && arch != "arm64" {
		return "", fmt.Errorf("architecture %q is neither amd64 nor arm64", arch)
	}
	return filepath.Join(s.dir, "ramdisk-"+arch+".json"), nil
}

// isDigest keeps every other name, and so every path, out of the file system.
func isDigest(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// contextReader ends a long copy with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
