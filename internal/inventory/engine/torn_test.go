// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestTornFile spoils a closed file at random places, as disks do: bits flip, pages are cut, lost, old, or another's. Then
// either Open refuses it by a clear error, or every value that is served is one that was acknowledged at that revision.
func TestTornFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.db")
	wrote := map[string]bool{} // key, revision and value
	fill := func(rounds int) []byte {
		e := open(t, path, func(o *Options) { o.Note = say })
		rng := rand.New(rand.NewPCG(uint64(rounds), 7))
		for i := range rounds {
			key, value := fmt.Sprintf("/%d", rng.IntN(60)), fmt.Sprint(rounds, i, strings.Repeat("x", rng.IntN(1500)))
			wrote[fmt.Sprint(key, put(t, e.Client(), key, value), value)] = true
			record := fmt.Sprint(rng.IntN(20))
			if err := e.Records("dhcp").Put(t.Context(), record, []byte(value)); err != nil {
				t.Fatal(err)
			}
			wrote["record"+record+value] = true
		}
		for _, p := range payloads(t, e) {
			wrote["log"+p] = true
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	old := fill(150)
	whole := fill(150)

	page := os.Getpagesize()
	used := 0 // pages before the growth of the file
	for i := range len(whole) / page {
		if whole[i*page+8] != 0 {
			used = i + 1
		}
	}
	kinds := []struct {
		name  string
		spoil func(b []byte, rng *rand.Rand) []byte
	}{
		{"bit", func(b []byte, rng *rand.Rand) []byte { b[rng.IntN(used*page)] ^= 1 << rng.IntN(8); return b }},
		{"bit in a header", func(b []byte, rng *rand.Rand) []byte {
			b[rng.IntN(used)*page+rng.IntN(96)] ^= 1 << rng.IntN(8)
			return b
		}},
		{"half a page", func(b []byte, rng *rand.Rand) []byte {
			clear(b[rng.IntN(used)*page:][512*rng.IntN(8) : page])
			return b
		}},
		{"old page", func(b []byte, rng *rand.Rand) []byte {
			i := rng.IntN(min(used, len(old)/page)) * page
			copy(b[i:i+page], old[i:])
			return b
		}},
		{"part of an old page", func(b []byte, rng *rand.Rand) []byte {
			i := rng.IntN(min(used, len(old)/page)) * page
			copy(b[i:i+512*rng.IntN(8)], old[i:])
			return b
		}},
		{"another page", func(b []byte, rng *rand.Rand) []byte {
			i, j := rng.IntN(used)*page, rng.IntN(used)*page
			copy(b[i:i+page], b[j:])
			return b
		}},
		{"cut", func(b []byte, rng *rand.Rand) []byte { return b[:rng.IntN(used*page)] }},
	}
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			var refused, rows, sound int
			for seed := range uint64(60) {
				path := filepath.Join(dir, "torn.db")
				b := kind.spoil(append([]byte(nil), whole...), rand.New(rand.NewPCG(seed, 1)))
				if err := os.WriteFile(path, b, 0o600); err != nil {
					t.Fatal(err)
				}
				e, err := Open(path, Options{Logger: discard, Now: time.Now, NoSync: true})
				if err != nil {
					if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNewerSchema) {
						t.Errorf("seed %d: got %v, want ErrCorrupt", seed, err)
					}
					refused++
					continue
				}
				bad := serves(t, e, wrote)
				if rows += bad; bad == 0 {
					sound++
				}
				if err := e.Close(); err != nil {
					t.Errorf("seed %d: %v", seed, err)
				}
			}
			t.Logf("of 60 files %d were refused, %d have served all but %d rows, %d all", refused, 60-refused-sound, rows, sound)
			if kind.name != "cut" && refused+rows == 0 {
				t.Error("no damage was found at all")
			}
		})
	}
}

// serves reads everything, one by one and together, and returns how many reads were refused.
func serves(t *testing.T, e *Engine, wrote map[string]bool) (refused int) {
	t.Helper()
	ctx := t.Context()
	check := func(what string) {
		if !wrote[what] {
			t.Errorf("served what nobody wrote: %.60q", what)
		}
	}
	for i := range 60 {
		resp, err := e.Client().Get(ctx, fmt.Sprintf("/%d", i))
		if err != nil {
			refused++
			continue
		}
		for _, kv := range resp.Kvs {
			check(fmt.Sprint(string(kv.Key), kv.ModRevision, string(kv.Value)))
		}
	}
	if resp, err := e.Client().Get(ctx, "/", clientv3.WithPrefix()); err == nil {
		for _, kv := range resp.Kvs {
			check(fmt.Sprint(string(kv.Key), kv.ModRevision, string(kv.Value)))
		}
	}
	for i := range 20 {
		value, err := e.Records("dhcp").Get(fmt.Sprint(i))
		if err != nil {
			refused++
		} else if value != nil {
			check(fmt.Sprint("record", i, string(value)))
		}
	}
	head, _ := e.Head()
	for seq := uint64(1); seq <= head; seq++ {
		entries, err := e.Log(seq, 1)
		if err != nil {
			refused++
			continue
		}
		check("log" + string(entries[0].Payload))
	}
	// It takes writes, or refuses them; it does not fall over.
	e.Client().Put(ctx, "/new", "1") //nolint:errcheck // either will do
	return refused
}
