// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"metald.io/metald/internal/inventory/engine"
)

// ErrCorrupt is wrapped by the error for something in the file, or in a backup, that is not what was written.
var ErrCorrupt = engine.ErrCorrupt

// ErrNoBackup is Backup's error for an inventory in etcd. etcd copies itself, all of it and no part: a copy of our prefix alone
// could not be put back by etcd's own tools, and theirs not by ours.
var ErrNoBackup = errors.New("this inventory is kept in etcd: back it up with etcdctl snapshot save, together with the data directory")

// A backup is a line that says what it is, a line of JSON that says when and how long, a copy of the file, and the SHA-256 of
// all of that. A copy of the file alone would open as well when its end is missing, or look sound when a page of it is not.
// It holds no key: the Secrets in it are as encrypted as they are in the file.
const (
	backupMagic = "metald backup 1\n"
	// maxHead is how long the line of JSON may be.
	maxHead = 4096
)

// BackupHead is what a backup says of itself.
type BackupHead struct {
	Time     time.Time `json:"time"`
	Revision int64     `json:"revision"`
	Size     int64     `json:"size"` // of the file in it, in bytes
}

// Backup writes a copy of everything as it is at one moment, while writes go on: what was acknowledged before the call is in
// it. It returns how many bytes it wrote.
func (s *Store) Backup(ctx context.Context, w io.Writer) (int64, error) {
	copier, ok := s.backend.(snapshotter)
	if !ok {
		return 0, ErrNoBackup
	}
	sum := &summed{w: w, hash: sha256.New()}
	err := copier.Snapshot(ctx, func(size, revision int64) (io.Writer, error) {
		head, err := json.Marshal(BackupHead{Time: s.now().UTC(), Revision: revision, Size: size})
		if err != nil {
			return nil, err
		}
		_, err = fmt.Fprintf(sum, "%s%s\n", backupMagic, head)
		return sum, err
	})
	if err == nil {
		_, err = sum.Write(sum.hash.Sum(nil))
	}
	if err != nil {
		return sum.n, fmt.Errorf("writing a backup: %w", err)
	}
	return sum.n, nil
}

// summed writes, counts and hashes.
type summed struct {
	w    io.Writer
	hash hash.Hash
	n    int64
}

func (s *summed) Write(b []byte) (int, error) {
	n, err := s.w.Write(b)
	s.hash.Write(b[:n])
	s.n += int64(n)
	return n, err
}

// readBackup copies the file in a backup to w. Only when it returns without an error is the copy good.
func readBackup(r io.Reader, w io.Writer) (BackupHead, error) {
	var head BackupHead
	bad := func(what string, args ...any) (BackupHead, error) {
		return head, fmt.Errorf("reading the backup: "+what+": %w", append(args, ErrCorrupt)...)
	}
	in := bufio.NewReaderSize(r, 64<<10)
	magic := make([]byte, len(backupMagic))
	if _, err := io.ReadFull(in, magic); err != nil || string(magic) != backupMagic {
		return bad("it does not begin with %q", backupMagic)
	}
	line, err := io.ReadAll(io.LimitReader(&untilNewline{r: in}, maxHead))
	if err != nil {
		return head, fmt.Errorf("reading the backup: %w", err)
	}
	if err := json.Unmarshal(line, &head); err != nil || head.Size <= 0 || len(line) == 0 || line[len(line)-1] != '\n' {
		return bad("its second line is not a head")
	}
	sum := sha256.New()
	sum.Write(magic)
	sum.Write(line)
	if n, err := io.CopyN(io.MultiWriter(w, sum), in, head.Size); errors.Is(err, io.EOF) {
		return bad("it ends after %d bytes of %d", n, head.Size)
	} else if err != nil {
		return head, fmt.Errorf("copying the backup: %w", err)
	}
	digest := make([]byte, sha256.Size)
	if _, err := io.ReadFull(in, digest); err != nil {
		return bad("it ends before its digest")
	}
	if !bytes.Equal(digest, sum.Sum(nil)) {
		return bad("its digest is another")
	}
	if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
		return bad("something follows its digest")
	}
	return head, nil
}

// untilNewline ends after the first newline.
type untilNewline struct {
	r    io.ByteReader
	done bool
}

func (u *untilNewline) Read(b []byte) (int, error) {
	if u.done || len(b) == 0 {
		return 0, io.EOF
	}
	c, err := u.r.ReadByte()
	if err != nil {
		return 0, err
	}
	b[0], u.done = c, c == '\n'
	return 1, nil
}
