// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func newEvent(name string) *corev1.Event {
	return &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Reason: "Seen", LastTimestamp: metav1.NewTime(start)}
}

func TestSecondOpenerIsToldWhoHoldsIt(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	began := time.Now()
	_, err := Open(keptIn(dir, Options{NoSync: true}))
	if !errors.Is(err, ErrHeld) {
		t.Fatalf("second Open: got %v, want ErrHeld", err)
	}
	if want := fmt.Sprintf("process %d", os.Getpid()); !strings.Contains(err.Error(), want) {
		t.Errorf("got %q, want it to name %s", err, want)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("took %v, want less than 2s", took)
	}
	// A daemon that is just closing is waited for.
	go func() {
		time.Sleep(200 * time.Millisecond)
		s.Close()
	}()
	open(t, dir)
}

func TestFileHeldByAStranger(t *testing.T) {
	dir := t.TempDir()
	db, err := bbolt.Open(filepath.Join(dir, "inventory.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := Open(keptIn(dir, Options{NoSync: true})); !errors.Is(err, ErrHeld) {
		t.Errorf("got %v, want ErrHeld", err)
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
	dir := t.TempDir()
	open(t, dir).Close()
	db, err := bbolt.Open(filepath.Join(dir, "inventory.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("meta")).Put([]byte("schema"), []byte{0, 0, 0, 0, 0, 0, 0, 99})
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	_, err = Open(keptIn(dir, Options{NoSync: true}))
	if !errors.Is(err, ErrNewerSchema) || !strings.Contains(err.Error(), "schema 99") {
		t.Errorf("got %v, want ErrNewerSchema that names schema 99", err)
	}
	// The refusal let go of the directory.
	if _, err := Open(keptIn(dir, Options{NoSync: true})); errors.Is(err, ErrHeld) {
		t.Error("a refused Open kept the lock")
	}
}

func TestRecords(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	ctx := context.Background()
	leases, others := s.Records("dhcp"), s.Records("other")
	for key, value := range map[string]string{"a": "1", "b": "2", "c": "3"} {
		if err := leases.Put(ctx, key, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"b", "none"} {
		if err := errors.Join(leases.Delete(ctx, key), others.Delete(ctx, key)); err != nil {
			t.Fatal(err)
		}
	}
	if err := leases.Put(ctx, "", nil); err == nil {
		t.Error("an empty key was taken")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := leases.Put(ctx, "d", nil); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: got %v, want ErrClosed", err)
	}
	s = open(t, dir)
	all, err := s.Records("dhcp").All(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string][]byte{"a": []byte("1"), "c": []byte("3")}, all); diff != "" {
		t.Errorf("after reopen (-want +got):\n%s", diff)
	}
	none, err := s.Records("other").All(ctx)
	if err != nil || len(none) != 0 {
		t.Errorf("another bucket holds %v, %v", slices.Collect(maps.Keys(none)), err)
	}
}
