// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"metald.io/metald/internal/inventory"
	"metald.io/metald/internal/inventory/audit"
)

// Each login that is signed beside the daemon comes into the record once, also after a restart; a line that is still being
// written waits; a list that was cut is told.
func TestSignedLoginsAreRecorded(t *testing.T) {
	t.Setenv("SUDO_USER", "nora")
	dir, now := t.TempDir(), time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	if _, err := EnsurePKI(dir, nil, now); err != nil {
		t.Fatal(err)
	}
	open := func() *logins {
		store, err := inventory.Open(dir, inventory.Options{NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		return &logins{path: filepath.Join(dir, "pki", issuedFile), store: store, log: slog.New(slog.DiscardHandler)}
	}
	l := open()
	expect := func(what string, want ...string) {
		t.Helper()
		if err := l.note(t.Context()); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		var got []string
		err := l.store.ReadRecord(t.Context(), time.Time{}, func(_ audit.Entry, r audit.Record) (bool, error) {
			if r.Act != nil && r.Actor.Via == audit.ViaOffline {
				got = append(got, r.Act.Phase+" "+r.Act.Verb+": "+r.Act.Target+r.Act.Detail+r.Act.Error)
				if by := map[bool]string{true: "nora", false: nobody}[strings.Contains(got[len(got)-1], "2026-03-01")]; r.Actor.User != by {
					t.Errorf("%s: %q was done by %q, want %q", what, got[len(got)-1], r.Actor.User, by)
				}
			}
			return true, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(want) {
			t.Fatalf("%s: got %q, want %q", what, got, want)
		}
		for i := range want {
			if !strings.HasPrefix(got[i], want[i]) {
				t.Errorf("%s: got %q, want %q", what, got[i], want[i])
			}
		}
	}
	sign := func(user string, groups ...string) {
		t.Helper()
		if _, err := SignLogin(dir, Login{User: user, Groups: groups, Life: time.Hour}, now); err != nil {
			t.Fatal(err)
		}
	}
	expect("nothing is signed")
	sign("olga", "metald:operators", "night")
	olga := "done sign login: user olga, groups metald:operators, night, from 2026-03-01T08:00:00Z until 2026-03-01T09:00:00Z, serial "
	expect("one", olga)
	expect("again", olga)
	if err := Rotate(dir, "client", "begin", now); err != nil {
		t.Fatal(err)
	}
	begun := "done replace CA: clientbegin, 2026-03-01T08:00:00Z"
	expect("a step", olga, begun)
	sign("tim")
	if err := l.store.Close(); err != nil {
		t.Fatal(err)
	}
	l = open()
	tim := "done sign login: user tim, groups none"
	expect("after a restart", olga, begun, tim)
	list, err := os.ReadFile(l.path)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(l.path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(string(list) + `{"serial":"1","user":"ev`)
	expect("half a line", olga, begun, tim)
	write(string(list) + `{"serial":"1","user":"eve"}` + "\nx\n")
	unread := "failed sign login: a line of the list of logins cannot be read: "
	expect("a line that is none", olga, begun, tim, "done sign login: user eve, groups none", unread)
	write("")
	cut := "failed sign login: the list of logins has 0 bytes and had "
	expect("an emptied list", olga, begun, tim, "done sign login: user eve", unread, cut)
	if err := os.Remove(l.path); err != nil {
		t.Fatal(err)
	}
	expect("no list any more", olga, begun, tim, "done sign login: user eve", unread, cut)
	write(string(list))
	if err := l.note(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(l.path); err != nil {
		t.Fatal(err)
	}
	expect("a removed list", olga, begun, tim, "done sign login: user eve", unread, cut, olga, begun, tim, cut)
	if err := l.store.Close(); err != nil {
		t.Fatal(err)
	}
}
