// SPDX-License-Identifier: Apache-2.0

package bmc

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"metald.io/metald/internal/bmc/bmctest"
)

// spoiler serves a BMC with one value of one resource replaced, at any depth.
type spoiler struct {
	bmc *bmctest.BMC

	mu    sync.Mutex
	seen  map[string][]byte // what each resource says unspoilt
	path  string
	spoil []byte // answered at path
}

func (s *spoiler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	path, spoilt := s.path, s.spoil
	s.mu.Unlock()
	if r.Method != http.MethodGet {
		s.bmc.ServeHTTP(w, r)
		return
	}
	if r.URL.Path == path {
		_, _ = w.Write(spoilt)
		return
	}
	rec := httptest.NewRecorder()
	s.bmc.ServeHTTP(rec, r)
	s.mu.Lock()
	s.seen[r.URL.Path] = rec.Body.Bytes()
	s.mu.Unlock()
	w.WriteHeader(rec.Code)
	_, _ = w.Write(rec.Body.Bytes())
}

// spoilt returns v with each of its values replaced in turn.
func spoilt(v any, with []any) []any {
	var all []any
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			old := v[k]
			for _, x := range append(slices.Clone(with), spoilt(old, with)...) {
				c := maps.Clone(v)
				c[k] = x
				all = append(all, c)
			}
		}
	case []any:
		for i, old := range v {
			for _, x := range append(slices.Clone(with), spoilt(old, with)...) {
				c := slices.Clone(v)
				c[i] = x
				all = append(all, c)
			}
		}
	}
	return all
}

var everySpoilt = flag.Bool("spoil", false, "TestSpoilt replaces every value by every other (half a minute), and not a random few")

// TestSpoilt replaces each value of each resource by values of other types. Nothing may panic or hang; errors are fine.
func TestSpoilt(t *testing.T) {
	with := []any{nil, map[string]any{}, []any{}, "", "x", 7.5, true, []any{nil}, map[string]any{"@odata.id": ""}, map[string]any{"@odata.id": pathOne}}
	seed := rand.Uint64()
	dice := rand.New(rand.NewPCG(seed, 0))
	s := &spoiler{bmc: bmctest.New(bmctest.NewMemoryMachine(described), bmctest.Options{Username: "root", Password: password, MaxSessions: 1 << 20}), seen: map[string][]byte{}}
	server := httptest.NewServer(s)
	defer server.Close()
	address, err := ParseAddress("redfish+http://" + strings.TrimPrefix(server.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	use := func() error {
		c, err := Dial(ctx, Target{Address: address, Username: "root", Password: password})
		if err != nil {
			return err
		}
		_, _ = c.Identity(ctx)
		_, _ = c.OneTimeBoot(ctx)
		_, err = c.(Inventorier).Inventory(ctx)
		_ = c.Close(ctx)
		return err
	}
	if err := use(); err != nil {
		t.Fatal(err)
	}
	resources := map[string][]byte{}
	for path, body := range s.seen {
		resources[path] = bytes.Clone(body)
	}
	n := 0
	for _, path := range slices.Sorted(maps.Keys(resources)) {
		body := resources[path]
		var whole any
		if err := json.Unmarshal(body, &whole); err != nil {
			t.Fatal(err)
		}
		for _, v := range spoilt(whole, with) {
			if !*everySpoilt && dice.IntN(40) != 0 {
				continue
			}
			b, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			s.mu.Lock()
			s.path, s.spoil = path, b
			s.mu.Unlock()
			start := time.Now()
			_ = use()
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("%s took %v with %s", path, took, b)
			}
			n++
		}
	}
	if ctx.Err() != nil {
		t.Fatal("not done in time")
	}
	t.Logf("%d resources, %d spoilt answers, seed %d", len(resources), n, seed)
	if open := s.bmc.Sessions(); open != 0 {
		t.Errorf("%d sessions are left open", open)
	}
}
