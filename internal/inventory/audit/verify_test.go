// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

var start = time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)

// keyOf is a key that is the same in each run.
func keyOf(t testing.TB, seed byte) *Key {
	t.Helper()
	key, err := newKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// randomRecord is any record that the daemon could write.
func randomRecord(r *rand.Rand, seq uint64) Record {
	word := func() string {
		return []string{"a", "rack 3 moves", "ops1", "<&>\"\\", "ünïcødé\u2028", "10.0.0.1", "system:masters"}[r.IntN(7)]
	}
	record := Record{Time: start.Add(time.Duration(r.Int64N(int64(time.Hour)))), Actor: Actor{User: word(), Via: ViaDoor, Address: word()}, Reason: word()}
	for range r.IntN(3) {
		record.Actor.Groups = append(record.Actor.Groups, word())
	}
	for range r.IntN(3) {
		record.Changes = append(record.Changes, Change{
			Verb: Update, Object: Object{Group: "metal3.io", Resource: "baremetalhosts", Namespace: "default", Name: word(), UID: fmt.Sprint(r.Uint32())},
			Fields: []string{"spec", "metadata.labels"}, Before: Digest([]byte(word())), After: Digest([]byte(word())),
		})
	}
	if len(record.Changes) == 0 || r.IntN(2) == 0 {
		record.Host = "default/" + word()
		record.Act = &Act{Verb: "switch on", Phase: Intent, Target: word(), Epoch: r.Int64N(9)}
		if seq > 1 && r.IntN(2) == 0 {
			record.Act.Phase, record.Act.Intent = Done, 1+r.Uint64N(seq-1)
		}
	}
	return record
}

func randomLog(t testing.TB, r *rand.Rand, n int) []Entry {
	t.Helper()
	var log []Entry
	var last Hash
	for seq := range uint64(n) {
		payload, err := randomRecord(r, seq+1).Encode()
		if err != nil {
			t.Fatal(err)
		}
		e := Entry{Seq: seq + 1, Prev: last, Payload: payload}
		e.Hash = e.Sum()
		log, last = append(log, e), e.Hash
	}
	return log
}

// export is the export's lines, each with its end.
func export(t testing.TB, key *Key, log []Entry) []string {
	t.Helper()
	var b bytes.Buffer
	left := log
	next := func() ([]Entry, error) {
		some := left[:min(len(left), 3)]
		left = left[len(some):]
		return some, nil
	}
	sign := func(seq uint64, hash Hash) (Checkpoint, error) {
		return key.Checkpoint(seq, hash, start.Add(time.Hour)), nil
	}
	if err := Export(&b, key.Origin(), next, sign); err != nil {
		t.Fatal(err)
	}
	return slices.Collect(strings.Lines(b.String()))
}

func verified(t testing.TB, text string, given []Checkpoint, keys ...ed25519.PublicKey) Report {
	t.Helper()
	report, err := Verify(strings.NewReader(text), given, keys...)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// chained gives entries from i on new places in the chain, as somebody would who has no key.
func chained(log []Entry, i int) []Entry {
	log = slices.Clone(log)
	for ; i < len(log); i++ {
		log[i].Seq, log[i].Prev = uint64(i+1), Hash{}
		if i > 0 {
			log[i].Prev = log[i-1].Hash
		}
		log[i].Hash = log[i].Sum()
	}
	return log
}

// Every export verifies, and none does in which anything at all was done to it. The checkpoint of its head is known.
func TestEveryTamperingIsFound(t *testing.T) {
	key, other := keyOf(t, 1), keyOf(t, 2)
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 7))
		log := randomLog(t, r, 2+r.IntN(9))
		lines := export(t, key, log)
		text := strings.Join(lines, "")
		head := key.Checkpoint(uint64(len(log)), log[len(log)-1].Hash, start)
		part := r.IntN(len(log)) + 1
		given := []Checkpoint{key.Checkpoint(uint64(part), log[part-1].Hash, start), head, key.Checkpoint(0, Hash{}, start)}

		report := verified(t, text, given, key.Public())
		if len(report.Findings) > 0 || report.Matched != 3 || report.Entries != uint64(len(log)) || report.Head != log[len(log)-1].Hash {
			t.Fatalf("seed %d: the untouched export: %+v", seed, report)
		}
		own := lines[len(lines)-1] // signed by the key, for the whole log
		with := func(log []Entry, checkpoint string) string {
			t := lines[0]
			for _, e := range log {
				t += string(e.Line())
			}
			return t + checkpoint
		}
		i, j := 1+r.IntN(len(log)), 1+r.IntN(len(log)) // lines of entries
		for j == i {
			j = 1 + r.IntN(len(log))
		}
		at := r.IntN(len(text))
		without := func(from, to int) string { return strings.Join(slices.Delete(slices.Clone(lines), from, to), "") }
		edited := slices.Clone(log)
		edited[i-1].Payload = bytes.Replace(edited[i-1].Payload, []byte(`"via":"door"`), []byte(`"via":"mind"`), 1)
		rehashed := slices.Clone(edited)
		rehashed[i-1].Hash = rehashed[i-1].Sum()
		swapped := slices.Clone(lines)
		swapped[i], swapped[j] = swapped[j], swapped[i]
		swappedLog := slices.Clone(log)
		swappedLog[i-1], swappedLog[j-1] = swappedLog[j-1], swappedLog[i-1]
		shorter := chained(slices.Delete(slices.Clone(log), i-1, i), i-1)
		longer := chained(slices.Insert(slices.Clone(log), i, randomLog(t, r, 1)[0]), i)
		appended := chained(append(slices.Clone(log), randomLog(t, r, 1)[0]), len(log))

		for name, bad := range map[string]string{
			"a bit flipped":                      text[:at] + string([]byte{text[at] ^ 1<<r.IntN(8)}) + text[at+1:],
			"a byte dropped":                     text[:at] + text[at+1:],
			"a byte inserted":                    text[:at] + " " + text[at:],
			"a line dropped":                     without(i, i+1),
			"the first entries dropped":          without(1, i+1),
			"the last entries dropped":           without(i, len(lines)-1),
			"the header dropped":                 without(0, 1),
			"the checkpoint dropped":             without(len(lines)-1, len(lines)),
			"a line twice":                       strings.Join(slices.Insert(slices.Clone(lines), i, lines[i]), ""),
			"a line repeated later":              strings.Join(slices.Insert(slices.Clone(lines), len(lines)-1, lines[i]), ""),
			"two lines swapped":                  strings.Join(swapped, ""),
			"cut off in the middle":              text[:at],
			"cut off at a line":                  strings.Join(lines[:i+1], ""),
			"something after the end":            text + lines[i],
			"an empty line after the end":        text + "\n",
			"the whole twice":                    text + text,
			"an entry edited":                    with(edited, own),
			"an entry edited and hashed":         with(rehashed, own),
			"an entry edited and all chained":    with(chained(edited, i-1), own),
			"an entry dropped and all chained":   with(shorter, own),
			"an entry inserted and all chained":  with(longer, own),
			"entries swapped and all chained":    with(chained(swappedLog, 0), own),
			"an entry appended":                  with(appended, own),
			"cut off, with an older checkpoint":  with(log[:i-1], string(key.Checkpoint(uint64(i-1), Hash(log[i-1].Prev), start).Line())),
			"rolled back and gone on":            with(chained(edited, i-1), string(key.Checkpoint(uint64(len(log)), chained(edited, i-1)[len(log)-1].Hash, start).Line())),
			"signed with another key":            with(log, string(other.Checkpoint(uint64(len(log)), log[len(log)-1].Hash, start).Line())),
			"another key's, in this one's name":  with(log, string(foreign(other, key.Origin(), head).Line())),
			"another record, whole":              strings.Join(export(t, other, log), ""),
			"a checkpoint in the middle":         strings.Join(slices.Insert(slices.Clone(lines), i, own), ""),
			"ends of line for another system":    strings.ReplaceAll(text, "\n", "\r\n"),
			"no end of line at the end":          strings.TrimSuffix(text, "\n"),
			"a field twice":                      strings.Replace(text, `"actor":{`, `"actor":{"user":"x",`, 1),
			"a field that nobody knows":          strings.Replace(text, `"actor":{`, `"actor":{"note":"x",`, 1),
			"a space":                            strings.Replace(text, `"actor":{`, `"actor": {`, 1),
			"capital letters in a hash":          upperHash(lines, i),
			"nothing at all":                     "",
			"only a header":                      lines[0],
			"a header and a checkpoint of empty": lines[0] + string(key.Checkpoint(0, Hash{}, start).Line()),
		} {
			if bad == text {
				continue // capital letters of a hash without letters
			}
			report := verified(t, bad, given, key.Public())
			if len(report.Findings) == 0 {
				t.Errorf("seed %d: %s: not found", seed, name)
			}
		}
	}
}

// foreign is a checkpoint that another key signed under the name of this record.
func foreign(key *Key, origin string, c Checkpoint) Checkpoint {
	c.Origin = origin
	c.Signature = ed25519.Sign(key.private, c.message())
	return c
}

func upperHash(lines []string, i int) string {
	lines = slices.Clone(lines)
	head, rest, _ := strings.Cut(lines[i], hashMark)
	lines[i] = head + hashMark + strings.ToUpper(rest[:64]) + rest[64:]
	return strings.Join(lines, "")
}

// Every single byte of an export counts: whichever is changed, to whatever, is found.
func TestEveryByteCounts(t *testing.T) {
	key := keyOf(t, 1)
	r := rand.New(rand.NewPCG(3, 3))
	text := strings.Join(export(t, key, randomLog(t, r, 2)), "")
	for at := range text {
		for _, b := range []byte{text[at] ^ 0x01, text[at] ^ 0x20, byte(r.Uint32())} {
			bad := text[:at] + string([]byte{b}) + text[at+1:]
			if bad == text {
				continue
			}
			if report := verified(t, bad, nil, key.Public()); len(report.Findings) == 0 {
				t.Errorf("byte %d, %q in place of %q: not found", at, b, text[at])
			}
		}
	}
}

// What is said of a tampered export leads to the place.
func TestFindings(t *testing.T) {
	key := keyOf(t, 1)
	log := randomLog(t, rand.New(rand.NewPCG(1, 1)), 4)
	lines := export(t, key, log)
	edited := slices.Clone(lines)
	edited[2] = strings.Replace(edited[2], `"time":"2026`, `"time":"2025`, 1)
	later := key.Checkpoint(9, Hash{9}, start)
	for _, test := range []struct {
		name, text string
		given      []Checkpoint
		want       []string
	}{
		{"edited", strings.Join(edited, ""), nil, []string{"line 3, entry 2: its hash is not that of what it says: it was edited"}},
		{"dropped", strings.Join(slices.Delete(slices.Clone(lines), 2, 3), ""), nil,
			[]string{"line 3, entry 3: entries 2 to 2 are missing before it", "line 3, entry 3: it does not follow the entry before it"}},
		{"rolled back", strings.Join(lines, ""), []Checkpoint{later},
			[]string{"the checkpoint of 2026-03-01T08:00:00Z vouches for entry 9, the last one here is 4: the record was cut off or rolled back"}},
		{"not a checkpoint of this key", strings.Join(lines, ""), []Checkpoint{keyOf(t, 2).Checkpoint(4, log[3].Hash, start)},
			[]string{"the checkpoint of 2026-03-01T08:00:00Z for entry 4 is not signed by the key"}},
	} {
		var got []string
		for _, f := range verified(t, test.text, test.given, key.Public()).Findings {
			got = append(got, f.String())
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

// Whatever text comes: it is answered, and it is good only if it is what Export would write of it.
func FuzzVerify(f *testing.F) {
	key := keyOf(f, 1)
	for seed := range uint64(4) {
		r := rand.New(rand.NewPCG(seed, 1))
		f.Add(strings.Join(export(f, key, randomLog(f, r, int(seed))), ""))
	}
	f.Add("{}\n\n{\"checkpoint\":null}\n")
	f.Fuzz(func(t *testing.T, text string) {
		report := verified(t, text, nil, key.Public())
		if len(report.Findings) > 0 {
			return
		}
		var log []Entry
		lines := slices.Collect(strings.Lines(text))
		for _, line := range lines[1 : len(lines)-1] {
			e, err := ParseLine([]byte(strings.TrimSuffix(line, "\n")))
			if err != nil {
				t.Fatalf("Verify took a line that ParseLine does not: %v", err)
			}
			log = append(log, e)
		}
		again := export(t, key, log)
		if got, want := strings.Join(lines[:len(lines)-1], ""), strings.Join(again[:len(again)-1], ""); got != want {
			t.Errorf("taken: %q, written: %q", got, want)
		}
	})
}
