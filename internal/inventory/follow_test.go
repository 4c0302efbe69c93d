// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	clientv3 "go.etcd.io/etcd/client/v3"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// inBubble runs test with a store in fake time.
func inBubble(t *testing.T, test func(t *testing.T, ctx context.Context, s *Store)) {
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(t.TempDir(), Options{NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		test(t, ctx, s)
		cancel()
		synctest.Wait()
	})
}

// watched collects a Watch's events as text.
type watched struct {
	got  []string
	done chan error
}

func follow(ctx context.Context, o *Objects[*metal3.BareMetalHost]) *watched {
	w := &watched{done: make(chan error, 1)}
	go func() {
		w.done <- o.Watch(ctx, func(ev Event[*metal3.BareMetalHost]) {
			text := string(ev.Type)
			if ev.Object != nil {
				text += " " + ev.Object.Name + " " + ev.Object.Status.ErrorMessage
			}
			w.got = append(w.got, text)
		})
	}()
	return w
}

func (w *watched) take() []string {
	synctest.Wait()
	got := w.got
	w.got = nil
	return got
}

func say(text string) func(*metal3.BareMetalHost) error {
	return func(h *metal3.BareMetalHost) error { h.Status.ErrorMessage = text; return nil }
}

func update(t *testing.T, ctx context.Context, s *Store, name, text string) {
	t.Helper()
	if _, err := s.Hosts().Update(ctx, "default", name, say(text)); err != nil {
		t.Fatal(err)
	}
}

func TestWatchTellsWhatHappens(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, s *Store) {
		create(t, s.Hosts(), host("a"))
		w := follow(ctx, s.Hosts())
		if diff := cmp.Diff([]string{"Added a ", "Synced"}, w.take()); diff != "" {
			t.Fatalf("at the start (-want +got):\n%s", diff)
		}
		create(t, s.Hosts(), host("b"))
		update(t, ctx, s, "a", "1")
		update(t, ctx, s, "a", "1")
		if err := s.Hosts().Delete(ctx, "default", "a"); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"Added b ", "Modified a 1", "Deleted a 1"}, w.take()); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		// An hour in which nothing happens costs nothing and ends nothing.
		time.Sleep(time.Hour)
		update(t, ctx, s, "b", "2")
		if diff := cmp.Diff([]string{"Modified b 2"}, w.take()); diff != "" {
			t.Errorf("an hour later (-want +got):\n%s", diff)
		}
	})
}

// A watch whose place in the history was compacted lists again, and tells what went and what came meanwhile.
func TestWatchCatchesUpAfterCompaction(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, s *Store) {
		for _, name := range []string{"goes", "stays", "changes", "returns"} {
			create(t, s.Hosts(), host(name))
		}
		hold := make(chan struct{})
		var got []string
		synced := false
		go s.Hosts().Watch(ctx, func(ev Event[*metal3.BareMetalHost]) {
			if ev.Type == Synced {
				synced = true
				return
			}
			if synced {
				got = append(got, fmt.Sprint(ev.Type, " ", ev.Object.Name, " ", ev.Object.Status.ErrorMessage))
				<-hold // the first event after the start holds the watch up
			}
		})
		synctest.Wait()
		for i := range 600 {
			update(t, ctx, s, "changes", fmt.Sprint(i))
		}
		returned := func() {
			if err := s.Hosts().Delete(ctx, "default", "returns"); err != nil {
				t.Fatal(err)
			}
			create(t, s.Hosts(), host("returns"))
		}
		returned()
		if err := s.Hosts().Delete(ctx, "default", "goes"); err != nil {
			t.Fatal(err)
		}
		create(t, s.Hosts(), host("new"))
		resp, err := s.Etcd().Get(ctx, "/", clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Etcd().Compact(ctx, resp.Header.Revision); err != nil {
			t.Fatal(err)
		}
		close(hold)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if len(got) >= 600 {
			t.Errorf("saw %d events: the watch was never behind, so this test shows nothing", len(got))
		}
		for _, want := range []string{"Modified changes 599", "Deleted goes ", "Deleted returns ", "Added returns ", "Added new "} {
			if !slices.Contains(got, want) {
				t.Errorf("want %q among the last events %q", want, got[max(0, len(got)-8):])
			}
		}
		if slices.Index(got, "Deleted returns ") > slices.Index(got, "Added returns ") {
			t.Errorf("the new host came before the old one went: %q", got[max(0, len(got)-8):])
		}
		for _, ev := range got {
			if ev == "Modified stays " || ev == "Added stays " {
				t.Errorf("told again what did not change: %q", ev)
			}
		}
	})
}

func TestWatchEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, s *Store) {
		ctx, cancel := context.WithCancel(ctx)
		w := follow(ctx, s.Hosts())
		synctest.Wait()
		cancel()
		if err := <-w.done; err != nil {
			t.Errorf("after its context ended: got %v, want nil", err)
		}
		w = follow(t.Context(), s.Hosts())
		synctest.Wait()
		s.Close()
		if err := <-w.done; !errors.Is(err, ErrClosed) {
			t.Errorf("after the store closed: got %v, want ErrClosed", err)
		}
	})
}

// Events go by themselves when their time is over, also across a restart, and a watch hears of it.
func TestEventsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		reopen := func() *Store {
			s, err := Open(dir, Options{NoSync: true})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		s := reopen()
		event := newEvent("e")
		if _, err := s.Events().Create(t.Context(), event); err != nil {
			t.Fatal(err)
		}
		time.Sleep(eventLife / 2)
		s.Close()
		s = reopen()
		defer s.Close()
		time.Sleep(eventLife/2 - time.Hour)
		if _, err := s.Events().Get(t.Context(), "default", "e"); err != nil {
			t.Errorf("an hour before its end: %v", err)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if _, err := s.Events().Get(t.Context(), "default", "e"); !apierrors.IsNotFound(err) {
			t.Errorf("an hour after its end: got %v, want NotFound", err)
		}
	})
}
