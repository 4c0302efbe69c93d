// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// fullLog is a record in which every field of every kind of record has a value.
func fullLog(t testing.TB) []Entry {
	t.Helper()
	at := func(n int) time.Time { return start.Add(time.Duration(n) * time.Second) }
	person := Actor{User: "ops1", Groups: []string{"operators", "system:authenticated"}, Via: ViaDoor, Address: "192.0.2.7", As: "tenant-a"}
	host := Object{Group: "metal3.io", Resource: "baremetalhosts", Namespace: "default", Name: "r1n01", UID: "4c4c4544"}
	metald := Actor{User: "metald", Via: ViaMind}
	act := Act{Verb: "switch power", Phase: Intent, Target: "redfish://192.0.2.9", Detail: "On", Epoch: 3}
	done, failed := act, act
	done.Phase, done.Intent = Done, 2
	failed.Phase, failed.Intent, failed.Error = Failed, 4, "the BMC hung"
	var log []Entry
	for n, r := range []Record{
		{Time: at(1), Actor: person, Request: "b9c1", Host: "default/r1n01", Reason: "rack 3 moves", Changes: []Change{
			{Verb: Update, Object: host, Fields: []string{"metadata.labels", "spec"}, Before: Digest([]byte("a")), After: Digest([]byte("b"))},
			{Verb: Delete, Object: host, Before: Digest([]byte("b"))}}},
		{Time: at(2), Actor: metald, Host: "default/r1n01", Reason: "to boot the ramdisk", Act: &act},
		{Time: at(3), Actor: metald, Host: "default/r1n01", Reason: "to boot the ramdisk", Act: &done},
		{Time: at(4), Actor: metald, Host: "default/r1n01", Act: &act},
		{Time: at(5), Actor: metald, Host: "default/r1n01", Act: &failed},
	} {
		payload, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		log = append(log, Entry{Seq: uint64(n + 1), Payload: payload})
	}
	return chained(log, 0)
}

// field is one word or number of a line of JSON, or the name of one.
type field struct {
	path       string
	from, to   int // its bytes
	name, text bool
}

// fieldsOf are all of a line.
func fieldsOf(t testing.TB, line string) (fields []field) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(line))
	d.UseNumber()
	type place struct {
		name   string
		object bool
		key    bool // a name comes next
	}
	var in []place
	path := func() (text string) {
		for _, p := range in {
			text += "." + p.name
		}
		return strings.Trim(text, ".")
	}
	for {
		before := int(d.InputOffset())
		token, err := d.Token()
		if err == io.EOF {
			return fields
		}
		if err != nil {
			t.Fatal(err)
		}
		to := int(d.InputOffset())
		top := len(in) - 1
		switch v := token.(type) {
		case json.Delim:
			if v == '{' || v == '[' {
				in = append(in, place{object: v == '{', key: v == '{'})
				continue
			}
			if in = in[:top]; len(in) > 0 && in[len(in)-1].object {
				in[len(in)-1].key = true
			}
			continue
		case string:
			from := before + strings.IndexByte(line[before:], '"')
			if in[top].key {
				in[top].name, in[top].key = v, false
				fields = append(fields, field{path() + " (its name)", from, to, true, true})
				continue
			}
			fields = append(fields, field{path(), from, to, false, true})
		case json.Number:
			fields = append(fields, field{path(), to - len(v), to, false, false})
		}
		if in[top].object {
			in[top].key = true
		}
	}
}

// edits are other values of a field, spelt as metald would spell them.
func (f field) edits(line string) (edits []string) {
	old := line[f.from:f.to]
	put := func(value string) { edits = append(edits, line[:f.from]+value+line[f.to:]) }
	if !f.text {
		put("1" + old)
		put(string('1'+(old[0]-'0')%9) + old[1:])
		return edits
	}
	word := old[1 : len(old)-1]
	for _, other := range []string{word + "0", word[:len(word)-1], strings.ToUpper(word), strings.Map(func(r rune) rune {
		switch {
		case r >= '0' && r < '9', r >= 'a' && r < 'f':
			return r + 1
		}
		return r
	}, word)} {
		if other != word {
			put(`"` + other + `"`)
		}
	}
	return edits
}

// Each field of each line is changed to another value, and each is renamed: found at once where it was only edited, and by the
// checkpoint where all hashes after it were made to fit.
func TestEveryFieldCounts(t *testing.T) {
	key := keyOf(t, 1)
	log := fullLog(t)
	lines := export(t, key, log)
	head := []Checkpoint{key.Checkpoint(uint64(len(log)), log[len(log)-1].Hash, start)}
	if r := verified(t, strings.Join(lines, ""), head, key.Public()); len(r.Findings) > 0 {
		t.Fatalf("the untouched export: %v", r.Findings)
	}
	seen, tried := map[string]bool{}, 0
	for n, line := range lines {
		for _, f := range fieldsOf(t, strings.TrimSuffix(line, "\n")) {
			seen[f.path] = true
			for _, bad := range f.edits(line) {
				tried++
				edited := slices.Clone(lines)
				edited[n] = bad
				if r := verified(t, strings.Join(edited, ""), nil, key.Public()); len(r.Findings) == 0 {
					t.Errorf("line %d, %s: %q in place of %q: not found", n+1, f.path, bad, line)
				}
			}
		}
		if n == 0 || n == len(lines)-1 {
			continue
		}
		payload := string(log[n-1].Payload)
		for _, f := range fieldsOf(t, payload) {
			for _, bad := range f.edits(payload) {
				tried++
				other := slices.Clone(log)
				other[n-1].Payload = []byte(bad)
				text := lines[0]
				for _, e := range chained(other, n-1) {
					text += string(e.Line())
				}
				if r := verified(t, text+lines[len(lines)-1], nil, key.Public()); len(r.Findings) == 0 {
					t.Errorf("entry %d, %s: %q, with all hashes made to fit: not found", n, f.path, bad)
				}
			}
		}
	}
	for _, path := range []string{"metald-audit", "origin", "seq", "prev", "hash", "record.time", "record.actor.user", "record.actor.groups", "record.actor.via",
		"record.actor.address", "record.actor.as", "record.request", "record.host", "record.reason", "record.act.verb", "record.act.phase", "record.act.intent",
		"record.act.target", "record.act.detail", "record.act.epoch", "record.act.error", "record.changes..verb", "record.changes..object.group",
		"record.changes..object.resource", "record.changes..object.namespace", "record.changes..object.name", "record.changes..object.uid",
		"record.changes..fields", "record.changes..before", "record.changes..after", "checkpoint.origin", "checkpoint.seq", "checkpoint.hash",
		"checkpoint.time", "checkpoint.signature", "record.time (its name)"} {
		if !seen[path] && !seen[path+"."] {
			t.Errorf("field %s was not tried", path)
		}
	}
	t.Logf("%d edits of %d fields", tried, len(seen))
}

// What is done to whole lines and whole files, at the first, a middle and the last entry; with what each is told as.
func TestLinesAndFiles(t *testing.T) {
	key, other := keyOf(t, 1), keyOf(t, 2)
	log := fullLog(t)
	lines := export(t, key, log)
	whole, last := strings.Join(lines, ""), len(log)
	at := func(n int) Checkpoint { return key.Checkpoint(uint64(n), log[n-1].Hash, start) }
	without := func(n int) string { return strings.Join(slices.Delete(slices.Clone(lines), n, n+1), "") }
	twice := func(n int) string { return strings.Join(slices.Insert(slices.Clone(lines), n, lines[n]), "") }
	swapped := func(i, j int) string {
		l := slices.Clone(lines)
		l[i], l[j] = l[j], l[i]
		return strings.Join(l, "")
	}
	// forked is a record that went on from an earlier entry, as after a restored backup, signed by the daemon itself.
	forked := func(n int) string {
		l := append(slices.Clone(log[:n]), fullLog(t)[0], fullLog(t)[1], fullLog(t)[2], fullLog(t)[3])
		return strings.Join(export(t, key, chained(l, n)), "")
	}
	reencoded := func(change func(map[string]any)) string {
		l := slices.Clone(lines)
		for i := range l {
			var v map[string]any
			if err := json.Unmarshal([]byte(l[i]), &v); err != nil {
				t.Fatal(err)
			}
			change(v)
			text, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			l[i] = string(text) + "\n"
		}
		return strings.Join(l, "")
	}
	for _, test := range []struct {
		name, text string
		given      []Checkpoint
		want       string // what the first finding says
	}{
		{"untouched", whole, []Checkpoint{at(1), at(3), at(last)}, ""},
		{"the first entry dropped", without(1), nil, "entries 1 to 1 are missing"},
		{"a middle entry dropped", without(3), nil, "entries 3 to 3 are missing"},
		{"the last entry dropped", without(last), nil, "the export's checkpoint is for entry 5, the last one here is 4"},
		{"the first entry twice", twice(1), nil, "out of order"},
		{"a middle entry twice", twice(3), nil, "out of order"},
		{"the last entry twice", twice(last), nil, "out of order"},
		{"the header twice", twice(0), nil, "the line is not an entry"},
		{"the checkpoint twice", twice(last + 1), nil, "something stands after the checkpoint"},
		{"the first two swapped", swapped(1, 2), nil, "entries 1 to 1 are missing"},
		{"the first and the last swapped", swapped(1, last), nil, "entries 1 to 4 are missing"},
		{"the last and the checkpoint swapped", swapped(last, last+1), nil, "the export's checkpoint is for entry 5"},
		{"cut off after an entry", strings.Join(lines[:last], ""), nil, "does not end with its checkpoint"},
		{"cut off within a line", whole[:len(whole)-len(lines[last+1])-9], nil, "cut off, or too long"},
		{"an earlier export, whole", strings.Join(export(t, key, log[:3]), ""), []Checkpoint{at(last)}, "was cut off or rolled back"},
		{"an earlier export, and nobody has a later checkpoint", strings.Join(export(t, key, log[:3]), ""), []Checkpoint{at(3)}, ""},
		{"the empty record", strings.Join(export(t, key, nil), ""), []Checkpoint{at(1)}, "was cut off or rolled back"},
		{"forked, and gone on past the checkpoint", forked(2), []Checkpoint{at(2), at(last)}, "this or an earlier entry was replaced, or the record was rolled back and went on"},
		{"forked after the newest checkpoint that was kept", forked(2), []Checkpoint{at(2)}, ""},
		{"its checkpoint swapped for an earlier one", strings.Join(lines[:last+1], "") + string(at(2).Line()), nil, "is for entry 2, the last one here is 5"},
		{"its checkpoint swapped for another daemon's", strings.Join(lines[:last+1], "") + string(other.Checkpoint(uint64(last), log[last-1].Hash, start).Line()), nil, "not signed by the key"},
		{"another daemon's record", strings.Join(export(t, other, log), ""), nil, "is not the key's"},
		{"a kept checkpoint of another daemon", whole, []Checkpoint{other.Checkpoint(3, log[2].Hash, start)}, "is not signed by the key"},
		{"a kept checkpoint of another hash", whole, []Checkpoint{key.Checkpoint(3, log[1].Hash, start)}, "has another hash for it"},
		{"an empty file", "", nil, "does not end with its checkpoint"},
		{"an empty line first", "\n" + whole, nil, "does not begin with its header"},
		{"a byte order mark", "\uFEFF" + whole, nil, "does not begin with its header"},
		{"a zero byte at the end", whole + "\x00", nil, "cut off, or too long"},
		{"a word at the end", whole + "x\n", nil, "something stands after the checkpoint"},
		{"a space at the end of a line", strings.Replace(whole, "}\n", "} \n", 1), nil, "does not begin with its header"},
		{"other ends of line", strings.ReplaceAll(whole, "\n", "\r\n"), nil, "does not begin with its header"},
		{"written anew by another encoder, which sorts the names", reencoded(func(map[string]any) {}), nil, "the line is not an entry"},
		{"a field more", reencoded(func(v map[string]any) { v["note"] = "x" }), nil, "does not begin with its header"},
		{"letters spelt as escapes", strings.Replace(whole, `"ops1"`, `"\u006fps1"`, 1), nil, "it was edited"},
		{"longer than any line", lines[0] + strings.Repeat("x", maxLine+1) + "\n" + strings.Join(lines[1:], ""), nil, "cut off, or too long"},
	} {
		r := verified(t, test.text, test.given, key.Public())
		switch {
		case test.want == "" && (len(r.Findings) > 0 || r.Matched != len(test.given)):
			t.Errorf("%s: got %v, and %d of %d checkpoints agree; want nothing found", test.name, r.Findings, r.Matched, len(test.given))
		case test.want != "" && (len(r.Findings) == 0 || !strings.Contains(fmt.Sprint(r.Findings), test.want)):
			t.Errorf("%s: got %v, want %q", test.name, r.Findings, test.want)
		}
	}
	// Of two keys that are trusted, one may not sign for the other's record.
	crossed := strings.Join(lines[:last+1], "") + string(foreign(other, other.Origin(), at(last)).Line())
	if r := verified(t, crossed, nil, key.Public(), other.Public()); len(r.Findings) == 0 {
		t.Error("a checkpoint of another trusted key was taken for this record's")
	}
}

// Flips of single bits all over a longer export: none is harmless.
func TestFlippedBits(t *testing.T) {
	const flips = 1000
	key := keyOf(t, 1)
	r := rand.New(rand.NewPCG(11, 12))
	text := []byte(strings.Join(export(t, key, randomLog(t, r, 60)), ""))
	for range flips {
		at, bit := r.IntN(len(text)), byte(1)<<r.IntN(8)
		text[at] ^= bit
		report, err := Verify(bytes.NewReader(text), nil, key.Public())
		if err != nil {
			t.Fatal(err)
		}
		if len(report.Findings) == 0 {
			t.Errorf("bit %#x of byte %d of %d: not found", bit, at, len(text))
		}
		text[at] ^= bit
	}
	if report := verified(t, string(text), nil, key.Public()); len(report.Findings) > 0 {
		t.Errorf("with every bit back in its place: %v", report.Findings)
	}
}

// A kept checkpoint is evidence, so each of its bytes counts as well.
func TestEveryByteOfACheckpointCounts(t *testing.T) {
	key := keyOf(t, 1)
	log := fullLog(t)
	text := strings.Join(export(t, key, log), "")
	line := string(key.Checkpoint(3, log[2].Hash, start).Line())
	for at := range len(line) - 1 {
		for bit := range 8 {
			bad := line[:at] + string([]byte{line[at] ^ 1<<bit}) + line[at+1:]
			given, err := ReadCheckpoints(strings.NewReader(bad))
			if err != nil {
				continue // it is told
			}
			if report := verified(t, text, given, key.Public()); len(report.Findings) == 0 {
				t.Errorf("byte %d, %q in place of %q: not found", at, bad[at], line[at])
			}
		}
	}
}
