// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
	"metald.io/metald/internal/inventory/audit"
)

func openRecorded(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(keptIn(dir, Options{NoSync: true}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// recorded are the records of a store, as lines that a person reads.
func recorded(t *testing.T, s *Store) (lines []string) {
	t.Helper()
	err := s.ReadRecord(t.Context(), time.Time{}, func(e audit.Entry, r audit.Record) (bool, error) {
		line := r.Actor.User
		if r.Act != nil {
			line += fmt.Sprintf(" %s %s", r.Act.Phase, r.Act.Verb)
		}
		for _, c := range r.Changes {
			line += fmt.Sprintf(" %s %s %v", c.Verb, c.Object, c.Fields)
		}
		if r.Host != "" {
			line += " host " + r.Host
		}
		lines = append(lines, line)
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// exported is the record as an auditor gets it, and the key to it.
func exported(t *testing.T, s *Store) (string, ed25519.PublicKey) {
	t.Helper()
	var b bytes.Buffer
	if err := s.ExportRecord(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	return b.String(), s.recorder.key.Public()
}

// wellFormed fails unless the record verifies, and returns how many entries it has.
func wellFormed(t *testing.T, s *Store, given ...audit.Checkpoint) uint64 {
	t.Helper()
	text, key := exported(t, s)
	report, err := audit.Verify(strings.NewReader(text), given, key)
	if err != nil || len(report.Findings) > 0 || report.Matched != len(given) {
		t.Fatalf("the record does not verify: %v, %v, %d of %d checkpoints", err, report.Findings, report.Matched, len(given))
	}
	return report.Entries
}

// What is recorded of writes: wishes, secrets, removals and decisions; not what follows from them.
func TestWhatIsRecorded(t *testing.T) {
	s := openRecorded(t, t.TempDir())
	ctx := t.Context()
	person := WithActor(ctx, audit.Actor{User: "ops1", Via: audit.ViaDoor, Address: "192.0.2.7"}, "id-1")
	server := WithActor(ctx, audit.Actor{User: apiServer, Via: audit.ViaDoor}, "")
	host := func(change func(*metal3.BareMetalHost)) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := s.Hosts().Update(ctx, "default", "a", func(h *metal3.BareMetalHost) error { change(h); return nil })
			return err
		}
	}
	progress := func(change func(*v1alpha1.HostProgressStatus)) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := s.Progresses().Update(ctx, "default", "a", func(p *v1alpha1.HostProgress) error { change(&p.Status); return nil })
			return err
		}
	}
	named := metav1.ObjectMeta{Namespace: "default", Name: "a"}
	const hostA, progressA = "baremetalhosts.metal3.io default/a", "hostprogresses.metald.io default/a"
	for _, test := range []struct {
		name string
		ctx  context.Context
		do   func(context.Context) error
		want string
	}{
		{"a host is made", person, func(ctx context.Context) error {
			_, err := s.Hosts().Create(ctx, &metal3.BareMetalHost{ObjectMeta: named})
			return err
		}, "ops1 create " + hostA + " [] host default/a"},
		{"a wish", person, host(func(h *metal3.BareMetalHost) { h.Spec.Online = true }), "ops1 update " + hostA + " [spec] host default/a"},
		{"no change", person, host(func(h *metal3.BareMetalHost) { h.Spec.Online = true }), ""},
		{"a label", ctx, host(func(h *metal3.BareMetalHost) { h.Labels = map[string]string{"a": "\"}{,:\\"} }),
			"metald update " + hostA + " [metadata.labels] host default/a"},
		{"a finalizer", ctx, host(func(h *metal3.BareMetalHost) { h.Finalizers = []string{"metald.io/host"} }),
			"metald update " + hostA + " [metadata.finalizers] host default/a"},
		{"metald's status", ctx, host(func(h *metal3.BareMetalHost) { h.Status.PoweredOn = true }), ""},
		{"the API server's own status", server, host(func(h *metal3.BareMetalHost) { h.Status.PoweredOn = false }), ""},
		{"the API server's own write", server, host(func(h *metal3.BareMetalHost) { h.Spec.Description = "x" }),
			apiServer + " update " + hostA + " [spec] host default/a"},
		{"a person's status", person, host(func(h *metal3.BareMetalHost) { h.Status.ErrorMessage = "x" }),
			"ops1 update " + hostA + " [status.errorMessage] host default/a"},
		{"progress is made", ctx, func(ctx context.Context) error {
			_, err := s.Progresses().Create(ctx, &v1alpha1.HostProgress{ObjectMeta: named})
			return err
		}, "metald create " + progressA + " [] host default/a"},
		{"a wait", ctx, progress(func(p *v1alpha1.HostProgressStatus) { p.Attempts, p.LastError = 2, "no answer" }), ""},
		{"a boot order", ctx, progress(func(p *v1alpha1.HostProgressStatus) {
			p.Epoch, p.Attempts, p.Boot = 1, 0, &v1alpha1.BootOrder{Answer: "ramdisk", Epoch: 1}
		}), "metald update " + progressA + " [status.attempts status.boot status.epoch] host default/a"},
		{"an erase with its intent", WithAct(ctx, "default/a", audit.Act{Verb: "erase drives", Phase: audit.Intent}),
			progress(func(p *v1alpha1.HostProgressStatus) { p.Erase = &v1alpha1.Erase{Mode: "full"} }),
			"metald intent erase drives update " + progressA + " [status.erase] host default/a"},
		{"a Secret is made", person, func(ctx context.Context) error {
			_, err := s.Secrets().Create(ctx, &corev1.Secret{ObjectMeta: named, Data: map[string][]byte{"password": []byte("hunter2")}})
			return err
		}, "ops1 create secrets default/a []"},
		{"an Event", person, func(ctx context.Context) error {
			_, err := s.Events().Create(ctx, &corev1.Event{ObjectMeta: named})
			return err
		}, ""},
		{"a stranger is seen", ctx, func(ctx context.Context) error {
			_, err := s.Sightings().Create(ctx, &v1alpha1.Sighting{ObjectMeta: metav1.ObjectMeta{Name: "s"}})
			return err
		}, ""},
		{"a stranger is dismissed", person, func(ctx context.Context) error { return s.Sightings().Delete(ctx, "", "s") },
			"ops1 delete sightings.metald.io s []"},
		{"a namespace", person, func(ctx context.Context) error {
			_, err := s.Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "n"}})
			return err
		}, "ops1 create namespaces n []"},
		{"a host is deleted", person, func(ctx context.Context) error { return s.Hosts().Delete(ctx, "default", "a") },
			"ops1 update " + hostA + " [metadata.deletionGracePeriodSeconds metadata.deletionTimestamp] host default/a"},
		{"a host is let go", ctx, host(func(h *metal3.BareMetalHost) { h.Finalizers = nil }), "metald delete " + hostA + " [] host default/a"},
		{"a key of another form", person, func(ctx context.Context) error {
			_, err := s.Etcd().Put(ctx, "/else/x", "not JSON")
			return err
		}, "ops1 create key /else/x []"},
	} {
		before := len(recorded(t, s))
		if err := test.do(test.ctx); err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		got := strings.Join(recorded(t, s)[before:], "\n")
		if got != test.want {
			t.Errorf("%s:\ngot  %q\nwant %q", test.name, got, test.want)
		}
	}
	wellFormed(t, s)
	text, _ := exported(t, s)
	if strings.Contains(text, "hunter2") || !strings.Contains(text, `"after":"hmac-sha256:`) || !strings.Contains(text, `"address":"192.0.2.7"},"request":"id-1"`) {
		t.Errorf("the export tells a secret, or not who: %s", text)
	}
}

// An effect on the world is announced on disk before, and its end told after, also when its time is up.
func TestActs(t *testing.T) {
	s := openRecorded(t, t.TempDir())
	ctx, cancel := context.WithCancel(WithReason(t.Context(), "to boot the ramdisk"))
	err := s.Act(ctx, "default/a", audit.Act{Verb: "switch on", Epoch: 3}, func(context.Context) error {
		if got, want := recorded(t, s), []string{"metald intent switch on host default/a"}; !slices.Equal(got, want) {
			t.Errorf("while it is done: got %q, want %q", got, want)
		}
		cancel()
		return errors.New("the BMC hung")
	})
	if err == nil || err.Error() != "the BMC hung" {
		t.Errorf("Act answers %v", err)
	}
	var last audit.Record
	if err := s.ReadRecord(t.Context(), time.Time{}, func(_ audit.Entry, r audit.Record) (bool, error) { last = r; return true, nil }); err != nil {
		t.Fatal(err)
	}
	want := audit.Act{Verb: "switch on", Phase: audit.Failed, Intent: 1, Epoch: 3, Error: "the BMC hung"}
	if *last.Act != want || last.Reason != "to boot the ramdisk" {
		t.Errorf("the outcome: %+v for %q", *last.Act, last.Reason)
	}
	// What cannot be recorded is not done.
	s.Close()
	err = s.Act(t.Context(), "default/a", audit.Act{Verb: "switch off"}, func(context.Context) error { t.Error("it was done"); return nil })
	if !errors.Is(err, ErrClosed) {
		t.Errorf("without a record: %v", err)
	}
}

// Checkpoints are written while the record grows and when it stops, and each stands.
func TestCheckpointsAreKept(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(keptIn(dir, Options{NoSync: true}))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.KeepRecord(ctx) }()
		for i := range 3 {
			if _, err := s.Record(t.Context(), "", audit.Act{Verb: fmt.Sprint("act ", i), Phase: audit.Done}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(checkpointEvery)
			synctest.Wait()
			newest, err := s.recorder.archive.Newest()
			if err != nil || newest == nil || newest.Seq != uint64(i+1) || time.Since(newest.Time) > checkpointEvery {
				t.Fatalf("after act %d: %+v, %v", i, newest, err)
			}
		}
		time.Sleep(5 * checkpointEvery)
		if _, err := s.Record(t.Context(), "", audit.Act{Verb: "the last", Phase: audit.Done}); err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(dir, "audit", audit.AllFile))
		if err != nil {
			t.Fatal(err)
		}
		all, err := audit.ReadCheckpoints(bytes.NewReader(text))
		var got []uint64
		for _, c := range all {
			got = append(got, c.Seq)
		}
		// The first stands for the empty record; a quiet time has none.
		if want := []uint64{0, 1, 2, 3, 4}; err != nil || !slices.Equal(got, want) && !slices.Equal(got, want[1:]) {
			t.Errorf("checkpoints for %v, %v, want %v", got, err, want)
		}
		if n := wellFormed(t, s, all...); n != 4 {
			t.Errorf("%d entries, want 4", n)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// Old records move into files, all of them stay readable, and an export has each once. A restored backup goes on, says so,
// and does not hide from a checkpoint that it forgot something.
func TestOldRecordsMoveOut(t *testing.T) {
	dir := t.TempDir()
	s := openRecorded(t, dir)
	fill := func(n int) {
		t.Helper()
		// Many in one transaction each would be one entry; so these go in by the engine.
		payload, err := audit.Record{Time: s.now(), Actor: audit.Actor{User: manager, Via: audit.ViaMind}, Act: &audit.Act{Verb: "x", Phase: audit.Done}}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		const writers = 64
		errs := make(chan error, writers)
		for range writers {
			go func() {
				var err error
				for range n / writers {
					if _, e := s.backend.Append(context.Background(), payload); e != nil {
						err = e
					}
				}
				errs <- err
			}()
		}
		for range writers {
			if err := <-errs; err != nil {
				t.Fatal(err)
			}
		}
	}
	fill(recordsKept + segmentLength + 64)
	backup := snapshot(t, s)
	s.keepRecord(t.Context())
	early := *s.recorder.checkpointed
	fill(segmentLength)
	s.keepRecord(t.Context())
	files, err := filepath.Glob(filepath.Join(dir, "audit", "records-*.jsonl"))
	if err != nil || len(files) != 2 {
		t.Fatalf("files: %v, %v", files, err)
	}
	first, err := s.backend.Log(1, 1)
	if err != nil || first[0].Seq != 2*segmentLength+1 {
		t.Errorf("the database begins with %+v, %v", first, err)
	}
	all := uint64(recordsKept + 2*segmentLength + 64)
	if n := wellFormed(t, s, early, *s.recorder.checkpointed); n != all {
		t.Errorf("%d entries in the export, want %d", n, all)
	}
	if n := len(recorded(t, s)); n != int(all) {
		t.Errorf("%d records read, want %d", n, all)
	}
	forgotten := *s.recorder.checkpointed
	s.Close()

	if err := os.WriteFile(filepath.Join(dir, "inventory.db"), backup, 0o600); err != nil {
		t.Fatal(err)
	}
	s = openRecorded(t, dir)
	if err := s.compareRecord(t.Context()); err != nil {
		t.Fatal(err)
	}
	lines := recorded(t, s)
	if got, want := lines[len(lines)-1], "metald done go on after a rollback"; got != want {
		t.Errorf("after a rollback the record ends with %q, want %q", got, want)
	}
	fill(2 * segmentLength)
	s.keepRecord(t.Context())
	wellFormed(t, s, early)
	text, key := exported(t, s)
	report, err := audit.Verify(strings.NewReader(text), []audit.Checkpoint{forgotten}, key)
	if err != nil || len(report.Findings) == 0 {
		t.Errorf("the rollback was not found: %v, %+v", err, report)
	}
	if err := s.compareRecord(t.Context()); err != nil {
		t.Fatal(err)
	}
	if again := recorded(t, s); again[len(again)-1] == "metald done go on after a rollback" {
		t.Error("a record that goes on from its newest checkpoint is called rolled back")
	}
}

// snapshot is the database as it is now.
func snapshot(t *testing.T, s *Store) []byte {
	t.Helper()
	r, err := s.Etcd().Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(r); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestReadingFromATimeOn(t *testing.T) {
	now := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	s, err := Open(keptIn(t.TempDir(), Options{NoSync: true, Now: func() time.Time { return now }}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	for range 10 {
		if _, err := s.Record(t.Context(), "", audit.Act{Verb: "x", Phase: audit.Done}); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Minute)
	}
	for minutes, want := range map[int]int{0: 10, 3: 7, 9: 1, 10: 0} {
		got := 0
		err := s.ReadRecord(t.Context(), now.Add(time.Duration(minutes-10)*time.Minute), func(audit.Entry, audit.Record) (bool, error) { got++; return true, nil })
		if err != nil || got != want {
			t.Errorf("from minute %d on: %d, %v, want %d", minutes, got, err, want)
		}
	}
}

func TestChangedFields(t *testing.T) {
	for _, test := range []struct {
		before, after string
		want          []string
	}{
		{`{"spec":{"a":1},"status":{"b":2}}`, `{"spec":{"a":2},"status":{"b":2}}`, []string{"spec"}},
		{`{"spec":{"a":1}}`, `{"spec":{"a":1},"status":{"b":[{"c":"}]"}],"d":-1.5e3,"e":null}}`, []string{"status.b", "status.d", "status.e"}},
		{`{"metadata":{"generation":1,"labels":{"a":"\\\""}}}` + "\n", `{"metadata":{"generation":2,"labels":{"a":"\\"}}}`, []string{"metadata.labels"}},
		{`{"metadata":{"managedFields":[1]},"x":true}`, `{"metadata":{"managedFields":[2]},"x":true}`, []string{}},
		{`{"a":1,"b":2}`, `{ "b" : 2 , "c" : "" }`, []string{"a", "c"}},
		{`{}`, `{}`, []string{}},
		{"k8s:enc:aesgcm:v1:key:\x00{}", "k8s:enc:aesgcm:v1:key:\x01{}", nil},
		{`{"status":1}`, `{"status":{}}`, nil},
		{`{"a":1`, `{"a":1}`, nil}, {`{"a"}`, `{}`, nil}, {`{"a":"}`, `{}`, nil}, {`{a:1}`, `{}`, nil}, {`{"a":]}`, `{}`, nil}, {``, `{}`, nil}, {`{"a":}`, `{}`, nil},
	} {
		if got := changedFields([]byte(test.before), []byte(test.after)); !slices.Equal(got, test.want) || (got == nil) != (test.want == nil) {
			t.Errorf("%s > %s: got %q, want %q", test.before, test.after, got, test.want)
		}
	}
}

// Whatever is stored, making its record ends.
func FuzzChangedFields(f *testing.F) {
	f.Add([]byte(`{"a":{"b":[1,"\\"]}}`), []byte(`{"a":{"b":[1,"\""]}}`))
	f.Fuzz(func(t *testing.T, before, after []byte) {
		changedFields(before, after)
		uidIn(after)
	})
}

// What the record costs: the part that runs in the committer, where all other writes wait, and a durable write with it.
func BenchmarkRecord(b *testing.B) {
	s, err := Open(b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	key, payload := "/registry/metal3.io/baremetalhosts/default/a", func(spec string) string {
		return `{"apiVersion":"metal3.io/v1alpha1","kind":"BareMetalHost","metadata":{"name":"a","uid":"4c4c4544-0000-1000-8000-000000000001","managedFields":[{"fieldsV1":"` +
			strings.Repeat("x", 900) + `"}]},"spec":{"description":"` + spec + `"},"status":{"hardware":"` + strings.Repeat("y", 900) + `"}}`
	}
	ctx := WithActor(context.Background(), audit.Actor{User: "ops1", Groups: []string{"operators", "system:authenticated"}, Via: audit.ViaDoor}, "id")
	if _, err := s.Etcd().Put(ctx, key, payload("0")); err != nil {
		b.Fatal(err)
	}
	events := eventsOf(b, s, key, payload)
	b.Run("note", func(b *testing.B) {
		for b.Loop() {
			if s.recorder.note(ctx, events) == nil {
				b.Fatal("nothing was recorded")
			}
		}
	})
	n := 0
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			n++
			if _, err := s.Etcd().Put(ctx, key, payload(fmt.Sprint(n))); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("write without", func(b *testing.B) {
		for b.Loop() {
			n++
			if _, err := s.Etcd().Put(ctx, "/registry/core/events/default/a", payload(fmt.Sprint(n))); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func eventsOf(b *testing.B, s *Store, key string, payload func(string) string) []*mvccpb.Event {
	b.Helper()
	watch := s.Etcd().Watch(b.Context(), key, clientv3.WithPrevKV())
	if _, err := s.Etcd().Put(b.Context(), key, payload("1")); err != nil {
		b.Fatal(err)
	}
	var events []*mvccpb.Event
	for _, e := range (<-watch).Events {
		events = append(events, (*mvccpb.Event)(e))
	}
	return events
}
