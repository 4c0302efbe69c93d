// SPDX-License-Identifier: Apache-2.0

//go:build long

package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"metald.io/metald/internal/inventory/engine"
	"metald.io/metald/internal/inventory/etcd/etcdtest"
)

// A second daemon ends within two seconds and says who has it; it takes over as soon as the first has gone.
func TestSecondDaemonIsRefused(t *testing.T) {
	s := etcdtest.Start(t)
	first := open(t, s, func(_ *Config, o *Options) { o.Me = Holder{Process: 4711, Host: "first", Lock: "one"} })
	second := func(_ *Config, o *Options) { o.Me = Holder{Process: 4712, Host: "second", Lock: "two"} }
	began := time.Now()
	_, err := tryOpen(s, second)
	if !errors.Is(err, ErrHeld) || !strings.Contains(err.Error(), "process 4711 on first") {
		t.Errorf("the second: %v, want ErrHeld and who holds it", err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %s", took)
	}
	// Another prefix is another inventory.
	other := open(t, s, second, func(c *Config, _ *Options) { c.Prefix = "/other" })
	mustPut(t, first, "/a", "first")
	mustPut(t, other, "/a", "other")
	if resp, err := first.Client().Get(t.Context(), "/a"); err != nil || string(resp.Kvs[0].Value) != "first" {
		t.Errorf("prefixes are not apart: %v, %v", resp, err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Client().Put(t.Context(), "/a", "late"); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("a write after Close: %v, want ErrClosed", err)
	}
	mustPut(t, open(t, s, second), "/a", "second")
}

// A daemon that died without a word is followed at once by one that has its lock, and after its lease by any other.
func TestDeadHoldersAreFollowed(t *testing.T) {
	s := etcdtest.Start(t)
	// What a dead daemon leaves: a connection that is gone, and a lease that is not renewed.
	die := func(b *Backend) {
		b.once.Do(func() { close(b.stop) })
		b.wg.Wait()
		b.raw.Close()
	}
	me := func(_ *Config, o *Options) { o.Me = Holder{Process: 1, Host: "here", Lock: "mine"} }
	b, err := tryOpen(s, me)
	if err != nil {
		t.Fatal(err)
	}
	mustPut(t, b, "/a", "1")
	die(b)
	began := time.Now()
	if b, err = tryOpen(s, me); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("with its lock it took %s", took)
	}
	mustPut(t, b, "/a", "2")
	die(b)
	stranger := func(_ *Config, o *Options) { o.Me = Holder{Process: 2, Host: "there", Lock: "other"} }
	for end := time.Now().Add(30 * time.Second); ; {
		other, err := tryOpen(s, stranger)
		if err == nil {
			defer other.Close()
			mustPut(t, other, "/a", "3")
			if n := len(texts(t, other)); n != 3 {
				t.Errorf("the log has %d entries, want 3", n)
			}
			return
		}
		if !errors.Is(err, ErrHeld) || time.Now().After(end) {
			t.Fatalf("the stranger: %v", err)
		}
	}
}

// end ends a backend's lease behind its back, as etcd does when the daemon was out of reach for too long.
func end(t *testing.T, s *etcdtest.Server, b *Backend) {
	t.Helper()
	etcdctl := s.Client(t)
	defer etcdctl.Close()
	if _, err := etcdctl.Revoke(t.Context(), b.held.Load().lease); err != nil {
		t.Fatal(err)
	}
}

// A hold that ended is taken again where nobody had it meanwhile; where somebody had, nothing is written and the daemon ends.
func TestLostHold(t *testing.T) {
	s := etcdtest.Start(t)
	b := open(t, s)
	mustPut(t, b, "/a", "1")
	end(t, s, b)
	mustPut(t, b, "/a", "2")
	end(t, s, b)
	if _, err := b.Append(t.Context(), []byte("act")); err != nil {
		t.Errorf("adding to the log after a lost hold: %v", err)
	}
	end(t, s, b)
	if err := b.Records("leases").Put(t.Context(), "k", nil); err != nil {
		t.Errorf("a record after a lost hold: %v", err)
	}

	end(t, s, b)
	other := open(t, s, func(_ *Config, o *Options) { o.Me = Holder{Process: 4712, Host: "second", Lock: "two"} })
	for name, write := range map[string]func() error{
		"a key":       func() error { _, err := b.Client().Put(context.Background(), "/a", "late"); return err },
		"a record":    func() error { return b.Records("leases").Put(context.Background(), "k", []byte("late")) },
		"an entry":    func() error { _, err := b.Append(context.Background(), []byte("late")); return err },
		"a trimming":  func() error { return b.Trim(context.Background(), 1) },
		"a quiet key": func() error { _, err := b.Client().Delete(context.Background(), "/a"); return err },
	} {
		if err := write(); !errors.Is(err, engine.ErrClosed) {
			t.Errorf("%s of who lost the hold: %v, want ErrClosed", name, err)
		}
	}
	select {
	case err := <-b.Fatal():
		if !errors.Is(err, errTaken) || !strings.Contains(err.Error(), "process 4712 on second") {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("it did not end")
	}
	if resp, err := other.Client().Get(t.Context(), "/a"); err != nil || string(resp.Kvs[0].Value) != "2" {
		t.Errorf("the second reads %v, %v", resp, err)
	}
	if n := len(texts(t, other)); n != 3 {
		t.Errorf("the log has %d entries, want 3", n)
	}
}

// One that came and went leaves its term behind: what the first knows of the world may be old.
func TestHoldThatSomebodyHadMeanwhile(t *testing.T) {
	s := etcdtest.Start(t)
	b := open(t, s)
	end(t, s, b)
	if err := open(t, s, func(_ *Config, o *Options) { o.Me = Holder{Process: 2, Host: "second"} }).Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Client().Put(t.Context(), "/a", "late"); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
	if err := <-b.Fatal(); !errors.Is(err, errTaken) {
		t.Errorf("ended with %v", err)
	}
}

// While etcd is killed again and again, whatever was acknowledged is there afterwards, the chain holds, and nobody has to do
// anything. What was not acknowledged may be there too, with its entry.
func TestKilledEtcdLosesNothing(t *testing.T) {
	s := etcdtest.Start(t)
	b := open(t, s)
	const writers = 16
	ctx, stop := context.WithCancel(t.Context())
	acknowledged := make([][]string, writers)
	var wg sync.WaitGroup
	var once sync.Once
	for w := range writers {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				key := fmt.Sprintf("/%d/%d", w, i)
				limited, cancel := context.WithTimeout(context.Background(), time.Second)
				var err error
				if w%4 == 0 {
					err = b.Records("leases").Put(limited, key, []byte(key))
				} else {
					_, err = b.Client().Put(limited, key, key)
				}
				cancel()
				switch {
				case err == nil:
					acknowledged[w] = append(acknowledged[w], key)
				case !errors.Is(err, ErrAway) && !errors.Is(err, context.DeadlineExceeded):
					once.Do(func() { t.Errorf("writing while etcd goes and comes: %v", err) })
				}
			}
		})
	}
	for range 5 {
		time.Sleep(500 * time.Millisecond)
		s.Kill(t)
		time.Sleep(300 * time.Millisecond)
		s.Run(t)
	}
	time.Sleep(500 * time.Millisecond)
	stop()
	wg.Wait()
	select {
	case err := <-b.Fatal():
		t.Fatalf("the backend ended: %v", err)
	default:
	}
	there := map[string]bool{}
	resp, err := b.Client().Get(t.Context(), "/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range resp.Kvs {
		there[string(kv.Key)] = true
	}
	entries := map[string]int{}
	for _, line := range texts(t, b) {
		entries[line]++
	}
	for key := range there {
		if n := entries["PUT "+key+";"]; n != 1 {
			t.Errorf("%s has %d entries in the log, want 1", key, n)
		}
	}
	if len(entries) != len(there) {
		t.Errorf("%d entries for %d keys", len(entries), len(there))
	}
	records, err := b.Records("leases").All(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for w, keys := range acknowledged {
		total += len(keys)
		for _, key := range keys {
			if _, isRecord := records[key]; !there[key] && !(w%4 == 0 && isRecord) {
				t.Errorf("%s was acknowledged and is not there", key)
			}
		}
	}
	if total == 0 {
		t.Error("nothing was acknowledged")
	}
	t.Logf("%d writes acknowledged, %d keys, %d records", total, len(there), len(records))
}

// An etcd without room takes nothing and says so; reads go on, and so does everything as soon as there is room.
func TestFullEtcd(t *testing.T) {
	s := etcdtest.Start(t, "--quota-backend-bytes=2097152")
	b := open(t, s)
	mustPut(t, b, "/a", "1")
	big := strings.Repeat("x", 512<<10)
	var err error
	for i := 0; err == nil && i < 100; i++ {
		_, err = b.Client().Put(t.Context(), "/big", big)
	}
	if !errors.Is(err, rpctypes.ErrNoSpace) {
		t.Fatalf("a full etcd answers %v", err)
	}
	seq, _ := b.Head()
	for name, err := range map[string]error{
		"a record": b.Records("leases").Put(t.Context(), "k", []byte("1")),
		"an entry": func() error { _, err := b.Append(t.Context(), []byte("x")); return err }(),
	} {
		if !errors.Is(err, engine.ErrFull) {
			t.Errorf("%s: %v, want ErrFull", name, err)
		}
	}
	if got, err := b.Client().Get(t.Context(), "/a"); err != nil || string(got.Kvs[0].Value) != "1" {
		t.Errorf("reading: %v, %v", got, err)
	}
	if now, _ := b.Head(); now != seq {
		t.Errorf("the log grew from %d to %d", seq, now)
	}
	// What its operator does: cut the history, defragment, end the alarm.
	etcdctl := s.Client(t)
	defer etcdctl.Close()
	resp, err := etcdctl.Get(t.Context(), "/")
	if err != nil {
		t.Fatal(err)
	}
	_, err = etcdctl.Compact(t.Context(), resp.Header.Revision, clientv3.WithCompactPhysical())
	if err == nil {
		_, err = etcdctl.Defragment(t.Context(), s.Endpoint)
	}
	if err == nil {
		_, err = etcdctl.AlarmDisarm(t.Context(), &clientv3.AlarmMember{})
	}
	if err != nil {
		t.Fatal(err)
	}
	mustPut(t, b, "/a", "2")
}
