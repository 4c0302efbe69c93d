// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/google/renameio/v2"
)

// Archive is the directory beside the database: segments of old entries, each a file of lines, and the checkpoints. Nothing
// in it is ever removed or changed by metald but old checkpoints, for each of which a newer one vouches.
type Archive struct {
	dir string
	// most is how many bytes AllFile may have before it is put aside.
	most int64
}

// The files of checkpoints in an archive.
const (
	NewestFile = "checkpoint"      // the newest one
	AllFile    = "checkpoints"     // all, oldest first
	OldFile    = "checkpoints.old" // those before, once they were many
)

// mostCheckpoints is some 50,000 of them: the last six days at the least.
const mostCheckpoints = 16 << 20

// OpenArchive makes the directory where it is missing.
func OpenArchive(dir string) (*Archive, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the audit directory: %w", err)
	}
	return &Archive{dir, mostCheckpoints}, nil
}

// Keep writes a checkpoint: the newest one whole or not at all, and behind the older ones.
func (a *Archive) Keep(c Checkpoint) error {
	path := filepath.Join(a.dir, AllFile)
	if info, err := os.Stat(path); err == nil && info.Size() >= a.most {
		if err := os.Rename(path, filepath.Join(a.dir, OldFile)); err != nil {
			return fmt.Errorf("keeping a checkpoint: %w", err)
		}
	}
	all, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("keeping a checkpoint: %w", err)
	}
	defer all.Close()
	line := c.Line()
	if torn, err := endsTorn(all); err != nil {
		return fmt.Errorf("keeping a checkpoint: %w", err)
	} else if torn { // by a power cut: what follows must not be lost with it
		line = append([]byte("\n"), line...)
	}
	if _, err := all.Write(line); err != nil {
		return fmt.Errorf("keeping a checkpoint: %w", err)
	}
	if err := all.Sync(); err != nil {
		return fmt.Errorf("keeping a checkpoint: %w", err)
	}
	if err := renameio.WriteFile(filepath.Join(a.dir, NewestFile), c.Line(), 0o644); err != nil {
		return fmt.Errorf("keeping a checkpoint: %w", err)
	}
	return nil
}

func endsTorn(f *os.File) (bool, error) {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return false, err
	}
	last := make([]byte, 1)
	_, err = f.ReadAt(last, info.Size()-1)
	return last[0] != '\n', err
}

// Newest is the newest checkpoint, nil where there is none.
func (a *Archive) Newest() (*Checkpoint, error) {
	line, err := os.ReadFile(filepath.Join(a.dir, NewestFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the newest checkpoint: %w", err)
	}
	c, err := ParseCheckpoint(bytes.TrimSuffix(line, []byte("\n")))
	if err != nil {
		return nil, err
	}
	return &c, nil
}

const (
	segmentPrefix = "records-"
	segmentSuffix = ".jsonl"
)

// Store writes a segment: durable when it returns, and whole or not there. A segment that begins with the same entry is
// replaced where it says the same: it was written by a run that did not come to remove its entries from the database. One
// that says something else, from before a backup was restored, is kept beside under a name with its hash.
func (a *Archive) Store(entries []Entry) error {
	if len(entries) == 0 {
		return nil
	}
	var text bytes.Buffer
	for i, e := range entries {
		if i > 0 && (e.Seq != entries[i-1].Seq+1 || e.Prev != entries[i-1].Hash) {
			return fmt.Errorf("storing old records: entry %d does not follow entry %d", e.Seq, entries[i-1].Seq)
		}
		text.Write(e.Line())
	}
	path := filepath.Join(a.dir, fmt.Sprintf("%s%020d%s", segmentPrefix, entries[0].Seq, segmentSuffix))
	old, err := os.ReadFile(path)
	if err == nil && !bytes.HasPrefix(text.Bytes(), old) {
		err = os.Rename(path, fmt.Sprintf("%s.%s", path, asideName(old)))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("storing old records: %w", err)
	}
	if err := renameio.WriteFile(path, text.Bytes(), 0o600); err != nil {
		return fmt.Errorf("storing old records: %w", err)
	}
	d, err := os.Open(a.dir)
	if err == nil {
		err = errors.Join(d.Sync(), d.Close())
	}
	if err != nil {
		return fmt.Errorf("storing old records: %w", err)
	}
	return nil
}

// asideName tells segments of one number apart.
func asideName(segment []byte) string { return strings.TrimPrefix(Digest(segment), "sha256:")[:16] }

// segments are the first entries of all segments, in order.
func (a *Archive) segments() ([]uint64, error) {
	files, err := os.ReadDir(a.dir)
	if err != nil {
		return nil, fmt.Errorf("reading old records: %w", err)
	}
	var found []uint64
	for _, f := range files {
		digits, ok := strings.CutPrefix(strings.TrimSuffix(f.Name(), segmentSuffix), segmentPrefix)
		if seq, err := strconv.ParseUint(digits, 10, 64); ok && err == nil && strings.HasSuffix(f.Name(), segmentSuffix) {
			found = append(found, seq)
		}
	}
	slices.Sort(found)
	return found, nil
}

// Read answers the entries from one on that lie in the same segment; none where no segment has it.
func (a *Archive) Read(from uint64) ([]Entry, error) {
	firsts, err := a.segments()
	if err != nil {
		return nil, err
	}
	i, exact := slices.BinarySearch(firsts, from)
	if !exact {
		i--
	}
	if i < 0 {
		return nil, nil
	}
	path := filepath.Join(a.dir, fmt.Sprintf("%s%020d%s", segmentPrefix, firsts[i], segmentSuffix))
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading old records: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		return nil, fmt.Errorf("reading old records: %w", err)
	}
	var found []Entry
	n := 0
	for line := range bytes.Lines(text) {
		n++
		e, err := ParseLine(bytes.TrimSuffix(line, []byte("\n")))
		if err != nil {
			return nil, fmt.Errorf("reading line %d of %s: %w", n, path, err)
		}
		if e.Seq >= from {
			found = append(found, e)
		}
	}
	return found, nil
}
