// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"metald.io/metald/internal/inventory"
	"metald.io/metald/internal/inventory/audit"
)

func TestRecordIsServed(t *testing.T) {
	dir, now := t.TempDir(), time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	store, err := inventory.Open(dir, inventory.Options{NoSync: true, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for n := range 6 {
		if _, err := store.Record(t.Context(), fmt.Sprint("default/h", n%2), audit.Act{Verb: fmt.Sprint("act", n), Phase: audit.Done}); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Minute)
	}
	paths := AuditPaths(store, slog.New(slog.DiscardHandler))
	ask := func(method, target string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(method, target, nil)
		paths[r.URL.Path].ServeHTTP(w, r)
		return w
	}
	for _, test := range []struct {
		query, want string
		status      int
	}{
		{"", "act0 act1 act2 act3 act4 act5", 200},
		{"?host=default/h1", "act1 act3 act5", 200},
		{"?since=2026-03-01T08:04:00Z", "act4 act5", 200},
		{"?last=1&host=default/h0", "act4", 200},
		{"?last=2", "act4 act5", 200},
		{"?host=default/other", "", 200},
		{"?last=0", "", 400}, {"?last=x", "", 400}, {"?since=yesterday", "", 400},
	} {
		w := ask("GET", AuditRecordsPath+test.query)
		var got []string
		if w.Code == http.StatusOK {
			for line := range strings.Lines(w.Body.String()) {
				e, err := audit.ParseLine([]byte(strings.TrimSuffix(line, "\n")))
				if err != nil {
					t.Fatal(err)
				}
				r, err := audit.DecodeRecord(e.Payload)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, r.Act.Verb)
			}
		}
		if strings.Join(got, " ") != test.want || w.Code != test.status {
			t.Errorf("%q: got %d %q, want %d %q", test.query, w.Code, got, test.status, test.want)
		}
	}
	if w := ask("POST", AuditExportPath); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("a POST was answered %d", w.Code)
	}
	public, err := os.ReadFile(filepath.Join(dir, "pki", audit.PublicFile))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := audit.ParsePublicKeys(public)
	if err != nil {
		t.Fatal(err)
	}
	report, err := audit.Verify(ask("GET", AuditExportPath).Body, nil, keys...)
	if err != nil || len(report.Findings) > 0 || report.Entries != 6 {
		t.Errorf("the export: %+v, %v", report, err)
	}
}

// The log of requests has a bound, and loses no line before that.
func TestAPILogIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api.log")
	l := &apiLog{path: path, most: 20, keep: 3}
	for n := range 11 { // two lines a file, with a restart in between
		if _, err := fmt.Fprintf(l, "line %03d\n", n); err != nil {
			t.Fatal(err)
		}
		if n == 4 {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		path: "line 010\n", path + ".1": "line 008\nline 009\n", path + ".2": "line 006\nline 007\n", path + ".3": "line 004\nline 005\n",
	} {
		if got, err := os.ReadFile(name); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
		}
	}
	if all, err := filepath.Glob(path + "*"); err != nil || len(all) != 4 {
		t.Errorf("files: %v, %v", all, err)
	}
}
