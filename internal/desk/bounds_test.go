// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"metald.io/metald/api/v1alpha1"
)

func TestBadRequests(t *testing.T) {
	s := newSite(t)
	session := s.open(newTPM(t), v1alpha1.RamdiskMode)
	good := `{"mode":"ramdisk","agentVersion":"v0","bootID":"` + bootID + `","macs":["52:54:00:00:00:01"]`
	for _, test := range []struct{ name, path, kind, body, want string }{
		{"no JSON", v1alpha1.HelloPath, "application/json", "hello", "reading the request"},
		{"a form", v1alpha1.HelloPath, "application/x-www-form-urlencoded", "mode=ramdisk", "content type"},
		{"an unknown field", v1alpha1.HelloPath, "application/json", good + `,"root":true}`, "root"},
		{"two objects", v1alpha1.HelloPath, "application/json", good + `}{}`, "follows"},
		{"a huge body", v1alpha1.HelloPath, "application/json", `{"mode":"` + strings.Repeat("x", maxBody) + `"}`, "larger"},
		{"another mode", v1alpha1.HelloPath, "application/json", `{"mode":"root"}`, "mode"},
		{"no boot id", v1alpha1.HelloPath, "application/json", `{"mode":"os","agentVersion":"","bootID":"1","macs":["52:54:00:00:00:01"]}`, "bootID"},
		{"no address", v1alpha1.HelloPath, "application/json", `{"mode":"os","agentVersion":"","bootID":"` + bootID + `","macs":[]}`, "MAC addresses"},
		{"a strange address", v1alpha1.HelloPath, "application/json", `{"mode":"os","agentVersion":"","bootID":"` + bootID + `","macs":["x"]}`, "MAC address"},
		{"a strange boot address", v1alpha1.HelloPath, "application/json", good + `,"bootMAC":"x"}`, "MAC address"},
		{"a strange root hash", v1alpha1.HelloPath, "application/json", good + `,"rootHash":"../.."}`, "rootHash"},
		{"a slot that there is not", v1alpha1.HelloPath, "application/json", good + `,"slot":"c"}`, "slot"},
		{"facts and progress", v1alpha1.ReportPath, "application/json",
			`{"hostUID":"uid-1","epoch":3,"step":"erase","facts":{},"progress":{"doing":"x"}}`, "one of them"},
		{"progress of an inspection", v1alpha1.ReportPath, "application/json",
			`{"hostUID":"uid-1","epoch":3,"step":"inspect","progress":{"doing":"x"}}`, "no progress"},
		{"progress below nothing", v1alpha1.ReportPath, "application/json",
			`{"hostUID":"uid-1","epoch":3,"step":"erase","progress":{"doing":"x","done":-1}}`, "-1"},
		{"drives erased by joining", v1alpha1.DonePath, "application/json",
			`{"hostUID":"uid-1","epoch":3,"step":"join","ok":true,"erased":[{"name":"sda","ok":true,"started":null}]}`, "erases nothing"},
		{"an image there by joining", v1alpha1.DonePath, "application/json",
			`{"hostUID":"uid-1","epoch":3,"step":"join","ok":true,"alreadyThere":true}`, "installs nothing"},
		{"more drives than there are", v1alpha1.DonePath, "application/json", `{"hostUID":"uid-1","epoch":3,"step":"erase","ok":true,"erased":[` +
			strings.TrimSuffix(strings.Repeat(`{"name":"sda","ok":true,"started":null},`, maxDrives+1), ",") + `]}`, "more than 256"},
		{"no facts", v1alpha1.ReportPath, "application/json", `{"hostUID":"uid-1","epoch":3,"step":"inspect"}`, "no facts"},
		{"facts that weigh too much", v1alpha1.ReportPath, "application/json",
			`{"hostUID":"uid-1","epoch":3,"facts":{"kernel":"` + strings.Repeat("x", maxFacts) + `"}}`, "weigh"},
		{"a step that there is not", v1alpha1.DonePath, "application/json", `{"hostUID":"uid-1","epoch":3,"step":"dance","ok":true}`, "dance"},
	} {
		r := httptest.NewRequest(http.MethodPost, test.path, strings.NewReader(test.body))
		r.Header.Set("Content-Type", test.kind)
		r.Header.Set("Authorization", "Bearer "+session.Token)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), `"BadRequest"`) || !strings.Contains(w.Body.String(), test.want) {
			t.Errorf("%s: got %d %s, want 400 and %q", test.name, w.Code, w.Body, test.want)
		}
	}
	for method, want := range map[string]int{http.MethodGet: 405, http.MethodPut: 405} {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest(method, v1alpha1.HelloPath, nil))
		if w.Code != want {
			t.Errorf("%s: got %d, want %d", method, w.Code, want)
		}
	}
}

func TestOneAddressCannotFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimits(2)
		one, other := netip.MustParseAddr("172.22.0.9"), netip.MustParseAddr("172.22.0.10")
		passed := 0
		for range 100 {
			if l.allow(one) {
				passed++
			}
		}
		if passed != 20 {
			t.Errorf("%d of 100 requests at once passed, want ten seconds' worth, 20", passed)
		}
		if !l.allow(other) {
			t.Error("another address has to wait for the first")
		}
		time.Sleep(time.Second)
		passed = 0
		for range 10 {
			if l.allow(one) {
				passed++
			}
		}
		if passed != 2 {
			t.Errorf("a second later %d more passed, want 2", passed)
		}
		for i := range maxSources + 100 {
			l.allow(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
		}
		if len(l.sources) > maxSources {
			t.Errorf("the table has %d addresses, want at most %d", len(l.sources), maxSources)
		}
		if !l.allow(other) {
			t.Error("a flood of addresses pushed out one that was there")
		}
		time.Sleep(2 * sourceIdle)
		if !l.allow(netip.MustParseAddr("192.0.2.1")) || len(l.sources) != 1 {
			t.Errorf("idle addresses are kept: %d", len(l.sources))
		}
	})
}

func TestBusyIsSaid(t *testing.T) {
	s := newSite(t)
	s.limits = newLimits(0.1)
	for n, want := range []int{http.StatusOK, http.StatusTooManyRequests} {
		if _, status, _ := post[struct{}](s, v1alpha1.HelloPath, "", hello(newTPM(t), v1alpha1.RamdiskMode)); status != want {
			t.Errorf("hello %d: got %d, want %d", n+1, status, want)
		}
	}
}

func TestChallengesEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChallenges()
		late := c.put(pending{secret: []byte("s")})
		time.Sleep(challengeLife + time.Second)
		if _, _, found := c.take(late, []byte("s")); found {
			t.Error("a challenge was taken after its end")
		}
		oldest := c.put(pending{secret: []byte("s")})
		var newest string
		for range maxChallenges {
			newest = c.put(pending{secret: []byte("s")})
		}
		if len(c.open) > maxChallenges || len(c.order) > maxChallenges {
			t.Errorf("the table has %d challenges, %d in order", len(c.open), len(c.order))
		}
		if _, _, found := c.take(oldest, []byte("s")); found {
			t.Error("the oldest challenge did not give way")
		}
		if _, right, found := c.take(newest, []byte("s")); !found || !right {
			t.Error("the newest challenge is not there")
		}
		if _, _, found := c.take(newest, []byte("s")); found {
			t.Error("a challenge was taken twice")
		}
	})
}

func TestSessionsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSessions()
		secret, _ := s.open(Session{Host: v1alpha1.HostRef{UID: "uid-1"}})
		if _, found := s.find(secret); !found {
			t.Error("a new session is not there")
		}
		time.Sleep(sessionLife + time.Second)
		if _, found := s.find(secret); found || len(s.byHost) != 0 {
			t.Error("a session outlived its end")
		}
	})
}

func TestPollsEndInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSessions()
		secret, _ := s.open(Session{Host: v1alpha1.HostRef{UID: "uid-1"}})
		first, cancel := s.poll(t.Context(), secret, pollFor)
		defer cancel()
		second, cancel := s.poll(t.Context(), secret, pollFor)
		defer cancel()
		if first.Err() == nil || second.Err() != nil {
			t.Errorf("of two polls the first has %v, the second %v", first.Err(), second.Err())
		}
		time.Sleep(pollFor)
		synctest.Wait()
		if second.Err() == nil {
			t.Error("a poll waits for longer than it may")
		}
		third, cancel := s.poll(t.Context(), secret, pollFor)
		defer cancel()
		s.open(Session{Host: v1alpha1.HostRef{UID: "uid-1"}})
		if third.Err() == nil {
			t.Error("the poll of a replaced session goes on")
		}
		if last, cancel := s.poll(t.Context(), secret, pollFor); last.Err() == nil {
			cancel()
			t.Error("a replaced session can poll")
		}
	})
}

// An order that was made for another session of the host, or while the epoch changed, must not reach this one.
func TestOrderOfAnotherEpochIsKeptBack(t *testing.T) {
	s := newSite(t)
	session := s.open(newTPM(t), v1alpha1.OSMode)
	stale := of(session, v1alpha1.JoinStep)
	stale.Epoch++
	s.order <- v1alpha1.Order{Message: stale, Join: &v1alpha1.JoinSeed{BootstrapKubeconfig: "secret"}}
	got, status, _ := post[v1alpha1.Order](s, v1alpha1.NextPath, session.Token, of(session, ""))
	if status != http.StatusOK || got.Step != v1alpha1.WaitStep || got.Join != nil {
		t.Errorf("got %d %+v, want to wait", status, got)
	}
	held := make(chan v1alpha1.Order)
	s.order = held
	ended := make(chan string)
	go func() {
		_, status, reason := post[v1alpha1.Order](s, v1alpha1.NextPath, session.Token, of(session, ""))
		ended <- fmt.Sprint(status, reason)
	}()
	order := v1alpha1.Order{Message: of(session, v1alpha1.JoinStep), Join: &v1alpha1.JoinSeed{BootstrapKubeconfig: "secret"}}
	s.change(func(h *Identified) { h.Epoch++ })
	select {
	case held <- order:
		if got := <-ended; got != "409OldEpoch" {
			t.Errorf("an order that came up while the epoch changed: got %s", got)
		}
	case got := <-ended: // it had not begun to wait yet
		if got != "409OldEpoch" {
			t.Errorf("got %s", got)
		}
	}
}

func TestRefusalsDoNotKeepTheDiskBusy(t *testing.T) {
	s := newSite(t)
	s.change(func(h *Identified) { h.PinnedEK = strings.Repeat("ab", 32) })
	tpm := newTPM(t)
	for range 20 {
		post[struct{}](s, v1alpha1.HelloPath, "", hello(tpm, v1alpha1.RamdiskMode))
	}
	object, err := s.store.Inventories().Get(t.Context(), "default", "r1n01")
	if err != nil {
		t.Fatal(err)
	}
	first := object.ResourceVersion
	for range 20 {
		post[struct{}](s, v1alpha1.HelloPath, "", hello(newTPM(t), v1alpha1.RamdiskMode))
	}
	if object, err = s.store.Inventories().Get(t.Context(), "default", "r1n01"); err != nil || object.ResourceVersion != first {
		t.Errorf("20 more refusals within two seconds wrote %s after %s, %v", object.ResourceVersion, first, err)
	}
}

func TestClip(t *testing.T) {
	for _, test := range []struct {
		in   string
		most int
		want string
	}{
		{"plain", 10, "plain"}, {"a\nb\x1b[0m", 10, "a b [0m"}, {"0123456789abc", 10, "0123456789"}, {"ääääää", 5, "ää"}, {"\xff\xfe", 5, ""},
	} {
		if got := clip(test.in, test.most); got != test.want {
			t.Errorf("%q: got %q, want %q", test.in, got, test.want)
		}
	}
}
