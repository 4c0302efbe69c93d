// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"metald.io/metald/internal/inventory/audit"
)

// The record of the whole run, with its killed daemons, verifies without a daemon, with the checkpoints that were signed on the
// way; one flipped bit in it does not. What was done to the run's hosts is in it, each with its intent before.
func TestRecordOfTheRun(t *testing.T) {
	dir := t.TempDir()
	kept := func(name string) string {
		text, err := os.ReadFile(filepath.Join(lab.Data(), name))
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, filepath.Base(name))
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	// The site has its evidence before the record is asked for.
	key, all, newest := kept("pki/"+audit.PublicFile), kept("audit/"+audit.AllFile), kept("audit/"+audit.NewestFile)
	export := filepath.Join(dir, "record.jsonl")
	metald(t, "audit", "export", "-o", export)
	for _, checkpoints := range []string{all, newest} {
		out, complaint, err := verify(t, dir, export, key, checkpoints)
		t.Logf("metald audit verify: %s", out)
		if err != nil || !strings.Contains(out, "agrees with ") {
			t.Errorf("the record of this run does not verify: %v %s", err, complaint)
		}
	}

	text, err := os.ReadFile(export)
	if err != nil {
		t.Fatal(err)
	}
	seed := seed(t)
	random := rand.New(rand.NewPCG(seed, 3))
	at, bit := random.IntN(len(text)), byte(1)<<random.IntN(8)
	text[at] ^= bit
	flipped := filepath.Join(dir, "flipped.jsonl")
	if err := os.WriteFile(flipped, text, 0o600); err != nil {
		t.Fatal(err)
	}
	text[at] ^= bit
	out, _, err := verify(t, dir, flipped, key, all)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(out, "line ") {
		t.Errorf("E2E_SEED=%d: bit %#x of byte %d of %d was flipped, and verify says %v:\n%s", seed, bit, at, len(text), err, out)
	}
	for _, word := range confidences(t) {
		if at := bytes.Index(text, word); at >= 0 {
			t.Errorf("the record tells a secret at byte %d", at)
		}
	}
	judgeRecord(t, text)
}

// verify runs metald where no daemon can be reached: outside of its namespace, and without its data.
func verify(t *testing.T, dir, export, key, checkpoints string) (out, complaint string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), lab.Metald(), "audit", "verify", export, "--key", key, "--checkpoint", checkpoints,
		"--data-dir", filepath.Join(dir, "none"))
	cmd.Env = []string{"PATH=/nowhere"}
	return try(cmd)
}

// judgeRecord looks for what the run has done to each host, and that nothing was done without a word before.
func judgeRecord(t *testing.T, text []byte) {
	t.Helper()
	open := map[uint64]audit.Record{}
	done := map[string]map[string]int{} // host -> verb -> how often
	changes := map[string]int{}
	entries := 0
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		e, err := audit.ParseLine(lines.Bytes())
		if err != nil {
			continue // the header and the checkpoint; verify has judged the form
		}
		entries++
		r, err := audit.DecodeRecord(e.Payload)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range r.Changes {
			changes[c.Verb+" "+c.Object.Resource]++
		}
		if r.Act == nil {
			continue
		}
		a := *r.Act
		switch {
		case a.Phase == audit.Intent:
			open[e.Seq] = r
			continue
		case a.Intent != 0:
			if i, ok := open[a.Intent]; !ok || i.Act.Verb != a.Verb || i.Act.Detail != a.Detail || i.Host != r.Host {
				t.Errorf("entry %d is the outcome of no intent: %+v", e.Seq, a)
			}
			delete(open, a.Intent)
		default:
			maps.DeleteFunc(open, func(_ uint64, i audit.Record) bool {
				return i.Host == r.Host && i.Act.Verb == a.Verb && i.Act.Detail == a.Detail
			})
		}
		if done[r.Host] == nil {
			done[r.Host] = map[string]int{}
		}
		if a.Phase == audit.Done || a.Verb == "drain node" { // a drain may end by its time
			done[r.Host][a.Verb]++
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Concat([]string{host}, installed) {
		want := []string{"log in to BMC", "set one-time boot", "switch power", "release agent session", "make join credential", "release join seed",
			"approve certificate request", "label node", "revoke join credential"}
		if slices.Contains(installed, name) {
			want = append(want, "write image")
		}
		if name == ipmiHost { // the one that left
			want = append(want, "cordon node", "drain node", "delete node", "erase drives")
		}
		for _, verb := range want {
			if done["default/"+name][verb] == 0 {
				t.Errorf("host %s: %q is not in the record; it has %v", name, verb, done["default/"+name])
			}
		}
		t.Logf("%s: %v", name, done["default/"+name])
	}
	for _, what := range []string{"create baremetalhosts", "create secrets", "create nodepools", "update hostprogresses", "update hostinventories"} {
		if changes[what] == 0 {
			t.Errorf("%q is not in the record; it has %v", what, changes)
		}
	}
	// A daemon that was killed in between has left an intent without an outcome, which says just that; a living one leaves none.
	for n, r := range open {
		t.Logf("entry %d of %s has no outcome: %s of %s, %s", n, r.Time.Format(time.RFC3339), r.Act.Verb, r.Host, r.Act.Detail)
	}
	log, err := os.ReadFile(lab.Log("metald"))
	if err != nil {
		t.Fatal(err)
	}
	starts := bytes.Count(log, []byte("msg=ready "))
	if most := (starts - 1) * len(lab.Names()); starts == 0 || len(open) > most {
		t.Errorf("%d intents have no outcome after %d starts, more than the %d that killed daemons may leave", len(open), starts, most)
	}
	t.Logf("%d entries, %d intents without an outcome", entries, len(open))
}
