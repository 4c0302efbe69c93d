// SPDX-License-Identifier: Apache-2.0

//go:build long

package engine

import (
	"flag"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"
)

var killRounds = flag.Int("rounds", 200, "how often TestKillNine kills")

// TestKillNine kills 64 writers 200 times on one file: the ledger of what they were told is durable is a subset of what is
// there, and no revision is ever given out again.
func TestKillNine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	var last int64
	total := 0
	for round := range *killRounds {
		rev, acks := killRound(t, path, 64, 10*time.Millisecond+rand.N(100*time.Millisecond))
		if rev <= last {
			t.Errorf("round %d: revision went from %d to %d", round, last, rev)
		}
		last, total = rev, total+acks
		if t.Failed() {
			t.Fatalf("stopped after round %d", round)
		}
	}
	t.Logf("killed %d times, %d writes acknowledged, %d revisions", *killRounds, total, last)
}
