// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// Hash is a place in the chain.
type Hash [sha256.Size]byte

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Entry is one entry of the log. Hash is SHA-256 over Prev, the number in 8 bytes big endian, and the payload; Prev is the
// hash of the entry before, all zeroes for the first, whose number is 1.
type Entry struct {
	Seq        uint64
	Prev, Hash [sha256.Size]byte
	Payload    []byte
}

// Sum computes what an entry's hash must be.
func (e Entry) Sum() Hash {
	h := sha256.New()
	h.Write(e.Prev[:])
	h.Write(binary.BigEndian.AppendUint64(nil, e.Seq))
	h.Write(e.Payload)
	var sum Hash
	h.Sum(sum[:0])
	return sum
}

// Line is the entry as an export has it, with its end of line. The record stands in it byte by byte as it was hashed.
func (e Entry) Line() []byte {
	b := make([]byte, 0, len(e.Payload)+180)
	b = append(b, seqMark...)
	b = strconv.AppendUint(b, e.Seq, 10)
	b = append(b, prevMark...)
	b = hex.AppendEncode(b, e.Prev[:])
	b = append(b, hashMark...)
	b = hex.AppendEncode(b, e.Hash[:])
	b = append(b, recordMark...)
	b = append(b, e.Payload...)
	return append(b, "}\n"...)
}

const (
	seqMark    = `{"seq":`
	prevMark   = `,"prev":"`
	hashMark   = `","hash":"`
	recordMark = `","record":`
)

var errLine = errors.New("the line is not an entry")

// ParseLine reads one line without its end. Nothing but what Line writes is taken; whether hash and record are right is not
// looked at.
func ParseLine(line []byte) (Entry, error) {
	var e Entry
	rest, ok := bytes.CutPrefix(line, []byte(seqMark))
	digits, rest, found := bytes.Cut(rest, []byte(prevMark))
	if !ok || !found {
		return e, errLine
	}
	seq, err := strconv.ParseUint(string(digits), 10, 64)
	if err != nil {
		return e, errLine
	}
	e.Seq = seq
	for _, part := range []struct {
		into *[sha256.Size]byte
		end  string
	}{{&e.Prev, hashMark}, {&e.Hash, recordMark}} {
		const length = 2 * sha256.Size
		if len(rest) < length {
			return e, errLine
		}
		if _, err := hex.Decode(part.into[:], rest[:length]); err != nil {
			return e, errLine
		}
		if rest, ok = bytes.CutPrefix(rest[length:], []byte(part.end)); !ok {
			return e, errLine
		}
	}
	payload, ok := bytes.CutSuffix(rest, []byte("}"))
	if !ok || len(payload) == 0 {
		return e, errLine
	}
	e.Payload = payload
	if again := e.Line(); !bytes.Equal(again[:len(again)-1], line) {
		return e, errSpelling // capital hexadecimal digits, leading zeroes
	}
	return e, nil
}

// header is an export's first line.
type header struct {
	Version int    `json:"metald-audit"`
	Origin  string `json:"origin"`
}

const version = 1

// Export writes the export of a log: its header, the entries that next hands out until it gives none, and a checkpoint of
// the last, made by sign. The entries must follow each other from 1 on, or the export ends with an error.
func Export(w io.Writer, origin string, next func() ([]Entry, error), sign func(seq uint64, hash Hash) (Checkpoint, error)) error {
	if _, err := fmt.Fprintf(w, "{\"metald-audit\":%d,\"origin\":%q}\n", version, origin); err != nil {
		return err
	}
	var seq uint64
	var last Hash
	for {
		entries, err := next()
		if err != nil {
			return err
		}
		if len(entries) == 0 {
			break
		}
		for _, e := range entries {
			if e.Seq != seq+1 || e.Prev != last || e.Sum() != e.Hash {
				return fmt.Errorf("exporting entry %d: it does not follow entry %d", e.Seq, seq)
			}
			if _, err := w.Write(e.Line()); err != nil {
				return err
			}
			seq, last = e.Seq, e.Hash
		}
	}
	checkpoint, err := sign(seq, last)
	if err != nil {
		return err
	}
	_, err = w.Write(checkpoint.Line())
	return err
}
