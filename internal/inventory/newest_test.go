// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"context"
	"testing"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// What a watch has in memory is answered only while it is what is stored; a watch that is behind makes no difference but in cost.
func TestNewest(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s := open(t, t.TempDir())
	hosts := s.Hosts()
	create(t, hosts, host("a"))
	heard := make(chan *metal3.BareMetalHost)
	ended := make(chan error, 1)
	go func() {
		ended <- hosts.Watch(ctx, func(e Event[*metal3.BareMetalHost]) {
			select {
			case heard <- e.Object: // the watch goes on when the test has heard
			case <-ctx.Done():
			}
		})
	}()
	say := func(words string) *metal3.BareMetalHost {
		t.Helper()
		h, err := hosts.Update(ctx, "default", "a", func(h *metal3.BareMetalHost) error { h.Status.ErrorMessage = words; return nil })
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	newest := func() *metal3.BareMetalHost {
		t.Helper()
		h, err := hosts.Newest(ctx, "default", "a")
		if err != nil {
			t.Fatal(err)
		}
		return h
	}

	shared := <-heard
	<-heard // Synced
	if got := newest(); got != shared {
		t.Errorf("the stored version was watched, and was read again: got %p, want %p", got, shared)
	}
	same := say("")
	if same == shared || same.ResourceVersion != shared.ResourceVersion {
		t.Errorf("an update that changes nothing: got version %s (the shared object itself: %t), want a copy of version %s",
			same.ResourceVersion, same == shared, shared.ResourceVersion)
	}
	same.Status.ErrorMessage = "the caller's own"
	if shared.Status.ErrorMessage != "" {
		t.Error("the answer of an update is the shared object")
	}

	create(t, hosts, host("b")) // the watch waits until it is heard of, and hears no more of a
	changed := say("one")
	if got := newest(); got == shared || got.Status.ErrorMessage != "one" || got.ResourceVersion != changed.ResourceVersion {
		t.Errorf("with a watch that is behind: got %q of version %s, want \"one\" of %s", got.Status.ErrorMessage, got.ResourceVersion, changed.ResourceVersion)
	}
	if back := say(""); back.ResourceVersion == changed.ResourceVersion || newest().Status.ErrorMessage != "" {
		t.Error("an update was held against what the watch had, not against what is stored: it is lost")
	}
	if err := hosts.Delete(ctx, "default", "a"); err != nil {
		t.Fatal(err)
	}
	if h, err := hosts.Newest(ctx, "default", "a"); !apierrors.IsNotFound(err) {
		t.Errorf("an object that is gone: got %v, %v; want NotFound", h, err)
	}
	if _, err := hosts.Update(ctx, "default", "a", func(*metal3.BareMetalHost) error { return nil }); !apierrors.IsNotFound(err) {
		t.Errorf("updating an object that is gone: got %v, want NotFound", err)
	}
	another := create(t, hosts, host("a"))
	if got := newest(); got.UID != another.UID {
		t.Errorf("another object of the same name: got uid %s, want %s", got.UID, another.UID)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	ctx = context.Background()
	if got := newest(); got.UID != another.UID || got == newest() {
		t.Error("without a watch an object is not read")
	}
}

// A caller's error ends an update as ever, also where the change is first tried on what a watch has.
func TestUpdateOfWatchedObjectThatFails(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, s *Store) {
		create(t, s.Hosts(), host("a"))
		w := follow(ctx, s.Hosts())
		w.take()
		before := raw(t, s, registry+"/metal3.io/baremetalhosts/default/a")
		_, err := s.Hosts().Update(ctx, "default", "a", func(h *metal3.BareMetalHost) error {
			h.Status.ErrorMessage = "half done"
			return context.DeadlineExceeded
		})
		if err != context.DeadlineExceeded {
			t.Errorf("got %v, want the caller's own error", err)
		}
		if got := raw(t, s, registry+"/metal3.io/baremetalhosts/default/a"); got != before {
			t.Error("it was written all the same")
		}
		if h, err := s.Hosts().Newest(ctx, "default", "a"); err != nil || h.Status.ErrorMessage != "" {
			t.Errorf("what the failed change left: %q, %v", h.Status.ErrorMessage, err)
		}
	})
}
