// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is written can be read, whatever others put into it; what is not written that way is refused.
func TestRecordHasOneSpelling(t *testing.T) {
	for name, text := range map[string]string{
		"plain": "why", "bytes that are no text": "a\xff\xc3b", "half a letter at the cut": strings.Repeat("é", maxText),
		"bad bytes at the cut": strings.Repeat("\xbf", 2*maxText), "what JSON writes otherwise": "<a>&\u2028\\ufffd\x00\x7f", "replacement": "\uFFFD",
	} {
		r := Record{Time: start, Actor: Actor{User: text, Groups: []string{text}, Via: ViaDoor}, Reason: text,
			Act: &Act{Verb: "switch on", Phase: Failed, Intent: 3, Error: text}}
		payload, err := r.Encode()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := DecodeRecord(payload)
		if err != nil {
			t.Errorf("%s: %v: %s", name, err, payload)
			continue
		}
		if got.Reason != got.Act.Error || got.Reason != got.Actor.User || len(got.Reason) > maxText+len("…")+2*maxText {
			t.Errorf("%s: got %q", name, got.Reason)
		}
		if r.Act.Error != text || r.Actor.Groups[0] != text {
			t.Errorf("%s: encoding changed the caller's record", name)
		}
	}
	good := `{"time":"2026-03-01T08:00:00Z","actor":{"user":"a","via":"door"},"act":{"verb":"switch on","phase":"intent"}}`
	if _, err := DecodeRecord([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"a zone":            strings.Replace(good, "08:00:00Z", "09:00:00+01:00", 1),
		"a zero":            strings.Replace(good, `"intent"}`, `"intent","intent":0}`, 1),
		"a null":            strings.Replace(good, `"via":"door"`, `"via":"door","groups":null`, 1),
		"another case":      strings.Replace(good, `"user"`, `"User"`, 1),
		"two":               good + good,
		"nothing":           `{"time":"2026-03-01T08:00:00Z","actor":{"user":"a","via":"door"}}`,
		"intent of another": strings.Replace(good, `"intent"}`, `"intent","intent":2}`, 1),
		"escaped otherwise": strings.Replace(good, `"a"`, `"\u0061"`, 1),
		"no record":         `[]`,
	} {
		if _, err := DecodeRecord([]byte(bad)); err == nil {
			t.Errorf("%s was taken: %s", name, bad)
		}
	}
}

func TestKeyIsMadeOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	first, err := EnsureKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	public := filepath.Join(dir, PublicFile)
	if err := os.Remove(public); err != nil {
		t.Fatal(err)
	}
	second, err := EnsureKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	if first.Origin() != second.Origin() || first.Digest([]byte("x")) != second.Digest([]byte("x")) {
		t.Error("the second start has another key")
	}
	data, err := os.ReadFile(public)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := ParsePublicKeys(append(data, data...))
	if err != nil || len(keys) != 2 || OriginOf(keys[1]) != first.Origin() {
		t.Errorf("the public file: %v, %v", keys, err)
	}
	for path, want := range map[string]os.FileMode{filepath.Join(dir, KeyFile): 0o600, public: 0o644} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	for name, bad := range map[string]string{"empty": "", "junk": "junk", "public": string(data)} {
		if err := os.WriteFile(filepath.Join(dir, KeyFile), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := EnsureKey(dir); err == nil {
			t.Errorf("a key file that is %s was replaced or taken", name)
		}
		if got, err := os.ReadFile(filepath.Join(dir, KeyFile)); err != nil || string(got) != bad {
			t.Errorf("a key file that is %s is now %q", name, got)
		}
	}
}

// A keyed digest is no help for guessing: it is not the plain one, and differs from key to key.
func TestDigestsOfSecrets(t *testing.T) {
	a, b := keyOf(t, 1), keyOf(t, 2)
	secret := []byte("calvin")
	if a.Digest(secret) == b.Digest(secret) || strings.Contains(a.Digest(secret), strings.TrimPrefix(Digest(secret), "sha256:")) {
		t.Error("the digest of a secret does not depend on the key")
	}
	if a.Digest(secret) != keyOf(t, 1).Digest(secret) || a.Digest(secret) == a.Digest([]byte("calvim")) {
		t.Error("the digest of a secret does not depend on the secret alone")
	}
}
