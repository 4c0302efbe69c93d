// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"
)

// Finding is one thing that is wrong with an export.
type Finding struct {
	// Line of the export; 0 where no line is to blame.
	Line int
	// Seq is the number of the entry; 0 where it is not known.
	Seq     uint64
	Problem string
}

func (f Finding) String() string {
	switch {
	case f.Line == 0:
		return f.Problem
	case f.Seq == 0:
		return fmt.Sprintf("line %d: %s", f.Line, f.Problem)
	}
	return fmt.Sprintf("line %d, entry %d: %s", f.Line, f.Seq, f.Problem)
}

// Report is what Verify found. The export is what the daemon wrote exactly if there are no findings.
type Report struct {
	Origin string
	// Entries is how many were read, Head the hash of the last, From and To the times of the first and the last.
	Entries  uint64
	Head     Hash
	From, To time.Time
	// Matched is how many of the given checkpoints lie in the export and agree with it.
	Matched int
	// Turns are where the record says itself that it was put back, oldest first: what a rollback that somebody meant looks like.
	// They excuse no finding, as who has the machine could have written them.
	Turns    []Turn
	Findings []Finding
	// Omitted is how many findings there are beyond those.
	Omitted int
}

// Turn is one entry whose act is Restore or GoOn.
type Turn struct {
	Seq    uint64
	Record Record
}

func (t Turn) String() string {
	text := fmt.Sprintf("entry %d says that %s did at %s: %s", t.Seq, t.Record.Actor.User, stamp(t.Record.Time), t.Record.Act.Verb)
	for _, more := range []string{t.Record.Act.Detail, t.Record.Reason} {
		if more != "" {
			text += ", " + more
		}
	}
	return text
}

const (
	// maxFindings are told; after that they are counted. Turns have the same bound.
	maxFindings = 100
	// maxLine is the longest line taken. A record's words are cut to far less.
	maxLine = 1 << 20
)

// Verify reads an export and compares it with its own hashes, its own checkpoint and the given ones, which the site kept
// elsewhere. Any edit, drop, insertion, reorder, truncation or rollback of it is a finding, up to the newest checkpoint among
// its own and the given. An error says that r could not be read.
func Verify(r io.Reader, given []Checkpoint, keys ...ed25519.PublicKey) (Report, error) {
	v := verifier{keys: keys, due: map[uint64][]Checkpoint{}, next: 1}
	for _, c := range given {
		if !c.Signed(keys...) {
			v.find(0, 0, "the checkpoint of %s for entry %d is not signed by the key", stamp(c.Time), c.Seq)
			continue
		}
		v.due[c.Seq] = append(v.due[c.Seq], c)
	}
	lines := bufio.NewReaderSize(r, 64<<10)
	for {
		line, whole, err := readLine(lines)
		if err != nil && !errors.Is(err, io.EOF) {
			return v.Report, fmt.Errorf("reading the export: %w", err)
		}
		if len(line) > 0 || whole {
			v.line++
			v.take(line, whole)
		}
		if err != nil {
			break
		}
	}
	v.end()
	return v.Report, nil
}

// readLine reads up to the next end of line. whole is false for a line that is too long or has no end.
func readLine(r *bufio.Reader) (line []byte, whole bool, err error) {
	for {
		part, err := r.ReadSlice('\n')
		if len(line) <= maxLine {
			line = append(line, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil:
			return line, false, err
		}
		return bytes.TrimSuffix(line, []byte("\n")), len(line) <= maxLine, nil
	}
}

type verifier struct {
	Report
	keys []ed25519.PublicKey
	due  map[uint64][]Checkpoint // the given ones that were not met yet, by entry
	line int
	next uint64      // the number that must come
	last *Checkpoint // the export's own, once it was met
}

func (v *verifier) find(line int, seq uint64, format string, args ...any) {
	if len(v.Findings) >= maxFindings {
		v.Omitted++
		return
	}
	v.Findings = append(v.Findings, Finding{line, seq, fmt.Sprintf(format, args...)})
}

func (v *verifier) take(line []byte, whole bool) {
	switch {
	case !whole:
		v.find(v.line, 0, "the line is cut off, or too long")
	case v.line == 1:
		v.header(line)
	case v.last != nil:
		v.find(v.line, 0, "something stands after the checkpoint that ends an export")
	case bytes.HasPrefix(line, []byte(checkpointMark)):
		v.checkpoint(line)
	default:
		v.entry(line)
	}
}

func (v *verifier) header(line []byte) {
	var h header
	if err := decode(line, &h); err != nil {
		v.find(v.line, 0, "the export does not begin with its header: %v", err)
		return
	}
	if h.Version != version {
		v.find(v.line, 0, "the export has version %d, this program knows %d", h.Version, version)
	}
	v.Origin = h.Origin
	for _, key := range v.keys {
		if OriginOf(key) == h.Origin {
			v.meet() // a checkpoint of the empty record
			return
		}
	}
	v.find(v.line, 0, "the record of %s is not the key's", h.Origin)
}

// entry checks one entry and goes on as if it were right, so that one edit is told once.
func (v *verifier) entry(line []byte) {
	e, err := ParseLine(line)
	if err != nil {
		v.find(v.line, 0, "%v", err)
		return
	}
	switch {
	case e.Seq > v.next:
		v.find(v.line, e.Seq, "entries %d to %d are missing before it", v.next, e.Seq-1)
	case e.Seq < v.next:
		v.find(v.line, e.Seq, "it is out of order: entry %d should stand here", v.next)
	}
	if e.Prev != v.Head {
		v.find(v.line, e.Seq, "it does not follow the entry before it")
	}
	if e.Sum() != e.Hash {
		v.find(v.line, e.Seq, "its hash is not that of what it says: it was edited")
	}
	if r, err := DecodeRecord(e.Payload); err != nil {
		v.find(v.line, e.Seq, "its record cannot be read: %v", err)
	} else {
		if r.Act != nil && r.Act.Intent >= e.Seq {
			v.find(v.line, e.Seq, "it is the outcome of entry %d, which comes later", r.Act.Intent)
		}
		if r.Act != nil && (r.Act.Verb == Restore || r.Act.Verb == GoOn) && len(v.Turns) < maxFindings {
			v.Turns = append(v.Turns, Turn{e.Seq, r})
		}
		if v.Entries == 0 {
			v.From = r.Time
		}
		v.To = r.Time
	}
	v.Entries++
	v.next, v.Head = e.Seq+1, e.Hash
	v.meet()
}

// meet compares the place that was just reached with the given checkpoints of it.
func (v *verifier) meet() {
	for _, c := range v.due[v.next-1] {
		if c.Hash == v.Head && c.Origin == v.Origin {
			v.Matched++
			continue
		}
		v.find(v.line, c.Seq, "the checkpoint of %s has another hash for it: this or an earlier entry was replaced, or the record was rolled back and went on",
			stamp(c.Time))
	}
	delete(v.due, v.next-1)
}

func (v *verifier) checkpoint(line []byte) {
	c, err := ParseCheckpoint(line)
	if err != nil {
		v.find(v.line, 0, "%v", err)
		return
	}
	v.last = &c
	switch {
	case !c.Signed(v.keys...):
		v.find(v.line, c.Seq, "the export's checkpoint is not signed by the key")
	case c.Origin != v.Origin:
		v.find(v.line, c.Seq, "the export's checkpoint is of another record, %s", c.Origin)
	case c.Seq != v.next-1:
		v.find(v.line, c.Seq, "the export's checkpoint is for entry %d, the last one here is %d", c.Seq, v.next-1)
	case c.Hash != v.Head:
		v.find(v.line, c.Seq, "the export's checkpoint has another hash for the last entry")
	}
}

func (v *verifier) end() {
	if v.last == nil {
		v.find(0, 0, "the export does not end with its checkpoint: it was cut off")
	}
	for _, seq := range slices.Sorted(maps.Keys(v.due)) {
		for _, c := range v.due[seq] {
			if seq >= v.next {
				v.find(0, 0, "the checkpoint of %s vouches for entry %d, the last one here is %d: the record was cut off or rolled back", stamp(c.Time), seq, v.next-1)
			} else {
				v.find(0, 0, "entry %d, for which there is the checkpoint of %s, is not here", seq, stamp(c.Time))
			}
		}
	}
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
