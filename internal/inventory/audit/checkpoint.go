// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Checkpoint says how far a record had come at a time: the number and the hash of its newest entry, signed. Whoever has it
// can tell later whether that entry, and all before it, are still there and as they were.
type Checkpoint struct {
	// Origin names the record, see Key.Origin.
	Origin string
	// Seq is 0, and Hash zero, for a record without entries.
	Seq       uint64
	Hash      Hash
	Time      time.Time
	Signature []byte // Ed25519 over message
}

// message is what is signed: five lines of text.
func (c Checkpoint) message() []byte {
	return fmt.Appendf(nil, "metald-audit-checkpoint/1\n%s\n%d\n%s\n%s\n", c.Origin, c.Seq, c.Hash, c.Time.UTC().Format(time.RFC3339Nano))
}

// Signed tells whether one of the keys has signed the checkpoint, and for its own record.
func (c Checkpoint) Signed(keys ...ed25519.PublicKey) bool {
	for _, key := range keys {
		if c.Origin == OriginOf(key) && ed25519.Verify(key, c.message(), c.Signature) {
			return true
		}
	}
	return false
}

type checkpointLine struct {
	Checkpoint checkpointFields `json:"checkpoint"`
}

type checkpointFields struct {
	Origin    string    `json:"origin"`
	Seq       uint64    `json:"seq"`
	Hash      string    `json:"hash"`
	Time      time.Time `json:"time"`
	Signature []byte    `json:"signature"`
}

// Line is the checkpoint's one spelling, with its end of line: in an export as well as in a file of checkpoints.
func (c Checkpoint) Line() []byte {
	line, err := json.Marshal(checkpointLine{checkpointFields{c.Origin, c.Seq, c.Hash.String(), c.Time.UTC(), c.Signature}})
	if err != nil { // a year past 9999 alone
		panic(fmt.Sprintf("encoding a checkpoint: %v", err))
	}
	return append(line, '\n')
}

// checkpointMark begins every checkpoint's line.
const checkpointMark = `{"checkpoint":`

// ParseCheckpoint reads one line without its end. It does not look at the signature.
func ParseCheckpoint(line []byte) (Checkpoint, error) {
	var l checkpointLine
	if err := decode(line, &l); err != nil {
		return Checkpoint{}, fmt.Errorf("reading a checkpoint: %w", err)
	}
	f := l.Checkpoint
	c := Checkpoint{Origin: f.Origin, Seq: f.Seq, Time: f.Time, Signature: f.Signature}
	if len(f.Hash) != 2*len(c.Hash) {
		return Checkpoint{}, fmt.Errorf("reading a checkpoint: a hash of %d digits", len(f.Hash))
	}
	if _, err := hex.Decode(c.Hash[:], []byte(f.Hash)); err != nil {
		return Checkpoint{}, fmt.Errorf("reading a checkpoint: %w", err)
	}
	if again := c.Line(); !bytes.Equal(again[:len(again)-1], line) {
		return Checkpoint{}, fmt.Errorf("reading a checkpoint: %w", errSpelling)
	}
	return c, nil
}

// ReadCheckpoints reads a file of them, one a line. The error names the lines that are none; the others are read.
func ReadCheckpoints(r io.Reader) ([]Checkpoint, error) {
	var found []Checkpoint
	var bad []error
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		c, err := ParseCheckpoint(lines.Bytes())
		if err != nil {
			bad = append(bad, fmt.Errorf("line %d: %w", n, err))
			continue
		}
		found = append(found, c)
	}
	if err := lines.Err(); err != nil {
		bad = append(bad, fmt.Errorf("reading checkpoints: %w", err))
	}
	return found, errors.Join(bad...)
}
