// SPDX-License-Identifier: Apache-2.0

//go:build long

package inventory

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	clientv3 "go.etcd.io/etcd/client/v3"

	"metald.io/metald/internal/inventory/audit"
	"metald.io/metald/internal/inventory/etcd"
	"metald.io/metald/internal/inventory/etcd/etcdtest"
)

// KeepOnEtcd has the stores of a test kept in an etcd of its own, each data directory under another prefix.
func KeepOnEtcd(t *testing.T, flags ...string) *etcdtest.Server {
	t.Helper()
	s := etcdtest.Start(t, flags...)
	before := keptIn
	keptIn = func(dir string, o Options) (string, Options) {
		o.Etcd = etcd.Config{Endpoints: []string{s.Endpoint}, Prefix: dir}
		return dir, o
	}
	t.Cleanup(func() { keptIn = before })
	return s
}

// The tests of this package that are about what a store does, and not about its file or its clock, on a real etcd.
func TestOnEtcd(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"Create": TestCreate, "KeysAndNames": TestKeysAndNames, "Update": TestUpdate, "UpdateKeepsUnknownFields": TestUpdateKeepsUnknownFields,
		"ConcurrentUpdatesLoseNothing": TestConcurrentUpdatesLoseNothing, "Delete": TestDelete, "FieldOwners": TestFieldOwners,
		"ListIsOfANamespaceOrAll": TestListIsOfANamespaceOrAll, "Records": TestRecords, "WhatIsRecorded": TestWhatIsRecorded,
		"Acts": TestActs, "Newest": TestNewest, "ReadingFromATimeOn": TestReadingFromATimeOn, "SecondOpener": TestSecondOpenerIsToldWhoHoldsIt,
	} {
		t.Run(name, func(t *testing.T) {
			s := KeepOnEtcd(t)
			test(t)
			stranger := s.Client(t)
			defer stranger.Close()
			resp, err := stranger.Get(t.Context(), "/", clientv3.WithPrefix(), clientv3.WithCountOnly())
			if err != nil || resp.Count == 0 {
				t.Errorf("the test left nothing in etcd: %v, %v", resp, err)
			}
		})
	}
}

// A watch of objects and writes outlive an etcd that is away for a while; what cannot be written says that it may be tried again.
func TestEtcdGoesAndComes(t *testing.T) {
	server := KeepOnEtcd(t)
	s := open(t, t.TempDir())
	create(t, s.Hosts(), host("a"))
	seen := make(chan string, 100)
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		ended <- s.Hosts().Watch(ctx, func(ev Event[*metal3.BareMetalHost]) {
			if ev.Object != nil {
				seen <- fmt.Sprint(ev.Type, " ", ev.Object.Name, " ", ev.Object.Status.ErrorMessage)
			}
		})
	}()
	want := func(text string) {
		t.Helper()
		select {
		case got := <-seen:
			if got != text {
				t.Errorf("the watch saw %q, want %q", got, text)
			}
		case err := <-ended:
			t.Fatalf("the watch ended: %v", err)
		case <-time.After(30 * time.Second):
			t.Fatalf("the watch did not see %q", text)
		}
	}
	want("Added a ")
	server.Kill(t)
	_, err := s.Hosts().Update(ctx, "default", "a", say("while it is away"))
	if !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrClosed) {
		t.Errorf("a write while etcd is away: %v, want ErrUnavailable", err)
	}
	if _, err := s.Hosts().Get(ctx, "default", "a"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a read while etcd is away: %v, want ErrUnavailable", err)
	}
	if err := s.Records("dhcp").Put(ctx, "k", nil); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a record while etcd is away: %v, want ErrUnavailable", err)
	}
	if _, err := s.Events().Create(ctx, newEvent("e")); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a write with a life while etcd is away: %v, want ErrUnavailable", err)
	}
	server.Run(t)
	update(t, ctx, s, "a", "again")
	want("Modified a again")
	if n := wellFormed(t, s); n != 1 { // the host; its status is no news
		t.Errorf("%d entries in the record, want 1", n)
	}
	select {
	case err := <-s.Fatal():
		t.Errorf("the store ended: %v", err)
	default:
	}
}

func TestFullEtcd(t *testing.T) {
	KeepOnEtcd(t, "--quota-backend-bytes=2097152")
	s := open(t, t.TempDir())
	create(t, s.Hosts(), host("a"))
	var err error
	for i := 0; err == nil && i < 100; i++ {
		err = s.Records("dhcp").Put(t.Context(), fmt.Sprint(i), make([]byte, 256<<10))
	}
	if !errors.Is(err, ErrFull) {
		t.Errorf("a record: %v, want ErrFull", err)
	}
	if _, err := s.Hosts().Update(t.Context(), "default", "a", say("x")); !errors.Is(err, ErrFull) {
		t.Errorf("an object: %v, want ErrFull", err)
	}
	if err := s.Act(t.Context(), "default/a", audit.Act{Verb: "switch off"}, func(context.Context) error { t.Error("it was done"); return nil }); !errors.Is(err, ErrFull) {
		t.Errorf("an act: %v, want ErrFull", err)
	}
	if _, err := s.Hosts().Get(t.Context(), "default", "a"); err != nil {
		t.Errorf("reading: %v", err)
	}
}

// One data directory is of one inventory, in a file or in one etcd.
func TestDirectoryOfAnotherInventory(t *testing.T) {
	server := KeepOnEtcd(t)
	dir := t.TempDir()
	s := open(t, dir)
	create(t, s.Hosts(), host("a"))
	if _, err := s.Backup(t.Context(), new(strings.Builder)); !errors.Is(err, ErrNoBackup) || !strings.Contains(err.Error(), "etcdctl snapshot save") {
		t.Errorf("a backup: %v, want ErrNoBackup and what to do", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{NoSync: true}); !errors.Is(err, errOnEtcd) {
		t.Errorf("opened as a file: %v", err)
	}
	if _, err := Restore(t.Context(), dir, strings.NewReader(""), start); !errors.Is(err, errOnEtcd) {
		t.Errorf("a file restored: %v", err)
	}
	_, err := Open(dir, Options{Etcd: etcd.Config{Endpoints: []string{server.Endpoint}, Prefix: "/another"}})
	if !errors.Is(err, errAnother) || !strings.Contains(err.Error(), onEtcdFile) {
		t.Errorf("another prefix: %v", err)
	}
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "inventory.db"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(keptIn(other, Options{})); !errors.Is(err, errInFile) {
		t.Errorf("a directory with a file: %v", err)
	}
	if _, err := open(t, dir).Hosts().Get(t.Context(), "default", "a"); err != nil {
		t.Errorf("opened again: %v", err)
	}
}

// An etcd that its operator puts back is noticed: the mind is told that what it reads may be old, and the record says so.
func TestEtcdIsPutBack(t *testing.T) {
	server := KeepOnEtcd(t)
	dir := t.TempDir()
	s := openRecorded(t, dir)
	create(t, s.Hosts(), host("a"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	back := server.Save(t)
	s = openRecorded(t, dir)
	if _, ok, err := s.Restored(); ok || err != nil {
		t.Errorf("restored before anything was: %v, %v", ok, err)
	}
	create(t, s.Hosts(), host("b"))
	s.keepRecord(t.Context())
	later := *s.recorder.checkpointed
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	back()
	s = openRecorded(t, dir)
	r, ok, err := s.Restored()
	if err != nil || !ok || time.Since(r.At) > time.Hour || r.BackupOf.IsZero() || r.Epochs() < time.Now().Add(-time.Hour).Unix() {
		t.Errorf("Restored() = %+v, %v, %v", r, ok, err)
	}
	if err := s.compareRecord(t.Context()); err != nil {
		t.Fatal(err)
	}
	lines := recorded(t, s)
	if got, want := lines[len(lines)-1], "metald done go on after a rollback"; got != want {
		t.Errorf("the record ends with %q, want %q", got, want)
	}
	s.keepRecord(t.Context())
	wellFormed(t, s)
	text, key := exported(t, s)
	if report, err := audit.Verify(strings.NewReader(text), []audit.Checkpoint{later}, key); err != nil || len(report.Findings) == 0 {
		t.Errorf("the rollback was not found: %v, %+v", err, report)
	}
	s.Close()
	again := openRecorded(t, dir)
	if second, _, err := again.Restored(); err != nil || !second.At.Equal(r.At) {
		t.Errorf("marked again without reason: %v, then %v, %v", r.At, second.At, err)
	}
}

// Another data directory is another daemon, on whatever machine: it is told who has the inventory.
func TestSecondDirectoryIsRefused(t *testing.T) {
	server := KeepOnEtcd(t)
	config := etcd.Config{Endpoints: []string{server.Endpoint}}
	s, err := Open(t.TempDir(), Options{Etcd: config})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	began := time.Now()
	_, err = Open(t.TempDir(), Options{Etcd: config})
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %s", took)
	}
	if !errors.Is(err, ErrHeld) || !strings.Contains(err.Error(), fmt.Sprintf("process %d on ", os.Getpid())) {
		t.Errorf("got %v, want ErrHeld and who has it", err)
	}
	create(t, s.Hosts(), host("a"))
}

// Old records move out of etcd into files, all of them stay readable, and an export has each once.
func TestOldRecordsMoveOutOfEtcd(t *testing.T) {
	KeepOnEtcd(t)
	dir := t.TempDir()
	s := openRecorded(t, dir)
	payload, err := audit.Record{Time: s.now(), Actor: audit.Actor{User: manager, Via: audit.ViaMind}, Act: &audit.Act{Verb: "x", Phase: audit.Done}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	const writers, each = 16, (recordsKept + segmentLength + 64) / 16
	errs := make(chan error, writers)
	for range writers {
		go func() {
			var err error
			for range each {
				_, e := s.backend.Append(context.Background(), payload)
				err = errors.Join(err, e)
			}
			errs <- err
		}()
	}
	for range writers {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	s.keepRecord(t.Context())
	files, err := filepath.Glob(filepath.Join(dir, "audit", "records-*.jsonl"))
	if err != nil || len(files) != 1 {
		t.Errorf("files: %v, %v, want one", files, err)
	}
	first, err := s.backend.Log(1, 1)
	if err != nil || len(first) != 1 || first[0].Seq != segmentLength+1 {
		t.Errorf("etcd begins with %+v, %v", first, err)
	}
	if n := wellFormed(t, s, *s.recorder.checkpointed); n != writers*each {
		t.Errorf("%d entries in the export, want %d", n, writers*each)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openRecorded(t, dir)
	create(t, s.Hosts(), host("a"))
	if n := wellFormed(t, s); n != writers*each+1 {
		t.Errorf("after opening again: %d entries, want %d", n, writers*each+1)
	}
}
