// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
)

// at sets the clock of the site's records.
func (s *site) at(now time.Time) { s.record.now = func() time.Time { return now } }

func TestProgressIsWrittenNowAndThen(t *testing.T) {
	s := newSite(t)
	session := s.open(newTPM(t), v1alpha1.RamdiskMode)
	start := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	report := func(after time.Duration, done int64) {
		t.Helper()
		s.at(start.Add(after))
		in := v1alpha1.Report{Message: of(session, v1alpha1.EraseStep), Progress: &v1alpha1.StepProgress{Doing: "overwriting\nsda", Done: done, Total: 9}}
		if _, status, reason := post[struct{}](s, v1alpha1.ReportPath, session.Token, in); status != http.StatusOK {
			t.Fatalf("report: %d %s", status, reason)
		}
	}
	for _, test := range []struct {
		after      time.Duration
		done, want int64
	}{{0, 1, 1}, {3 * time.Second, 2, 1}, {4 * time.Second, 3, 3}, {7 * time.Second, 4, 3}, {9 * time.Second, 5, 5}} {
		report(test.after, test.done)
		if got := s.agent(); got.Progress == nil || got.Progress.Done != test.want || got.Progress.Doing != "overwriting sda" {
			t.Errorf("after %s the inventory holds %+v, want %d", test.after, got.Progress, test.want)
		}
	}
	if got := s.agent(); !got.ProgressAt.Time.Equal(start.Add(9*time.Second)) || !got.LastSeen.Equal(got.ProgressAt) {
		t.Errorf("the progress is of %v, the agent was seen at %v", got.ProgressAt, got.LastSeen)
	}

	// A session that is opened again in the same boot is no reason to forget; the end of the step is.
	session = s.open(newTPM(t), v1alpha1.RamdiskMode)
	if s.agent().Progress == nil {
		t.Error("a new session of the same boot has lost the progress")
	}
	done := v1alpha1.Done{Message: of(session, v1alpha1.EraseStep), OK: true}
	if _, status, reason := post[struct{}](s, v1alpha1.DonePath, session.Token, done); status != http.StatusOK {
		t.Fatalf("done: %d %s", status, reason)
	}
	if got := s.agent(); got.Progress != nil || got.ProgressAt != nil {
		t.Errorf("a step that is done still shows %+v", got.Progress)
	}
	report(time.Minute, 9)
	if got := s.agent(); got.Progress != nil {
		t.Errorf("a report that came late shows %+v", got.Progress)
	}
}

func TestProgressEndsWithItsBoot(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(s *site, in *v1alpha1.Hello)
	}{
		{"another epoch", func(s *site, _ *v1alpha1.Hello) { s.change(func(h *Identified) { h.Epoch++ }) }},
		{"another boot", func(_ *site, in *v1alpha1.Hello) { in.BootID = strings.Replace(in.BootID, "4", "5", 1) }},
	} {
		s := newSite(t)
		s.change(func(h *Identified) { h.NoTPM = "lab machine" })
		session := s.open(nil, v1alpha1.RamdiskMode)
		in := v1alpha1.Report{Message: of(session, v1alpha1.InstallStep), Progress: &v1alpha1.StepProgress{Doing: "writing sda"}}
		if post[struct{}](s, v1alpha1.ReportPath, session.Token, in); s.agent().Progress == nil {
			t.Fatalf("%s: the progress is not in the inventory", test.name)
		}
		again := hello(nil, v1alpha1.RamdiskMode)
		test.change(s, &again)
		challenge, _, _ := post[v1alpha1.Challenge](s, v1alpha1.HelloPath, "", again)
		if _, status, reason := post[v1alpha1.Session](s, v1alpha1.ProvePath, "", v1alpha1.Proof{ChallengeID: challenge.ID}); status != http.StatusOK {
			t.Fatalf("%s: %d %s", test.name, status, reason)
		}
		if got := s.agent(); got.Progress != nil || got.ProgressAt != nil {
			t.Errorf("%s: the inventory still shows %+v", test.name, got.Progress)
		}
	}
}

func TestRecordsOfAnErase(t *testing.T) {
	s := newSite(t)
	session := s.open(newTPM(t), v1alpha1.RamdiskMode)
	began, ended := metav1.Unix(1_700_000_000, 0), metav1.Unix(1_700_000_100, 0)
	want := []v1alpha1.DriveErasure{
		{Name: "nvme0n1", SerialNumber: "S1", SizeBytes: 1 << 40, Method: "nvme-format", Tried: []string{"nvme-sanitize-crypto: the drive has it not"},
			Started: began, Ended: &ended, Verified: "read 66 MiB in 66 places, all zero", OK: true},
		{Name: "sda", Started: began, Ended: &ended, Error: "input/output error"},
	}
	done := v1alpha1.Done{Message: of(session, v1alpha1.EraseStep), Text: "sda is not erased", Erased: want}
	for range 2 {
		if _, status, reason := post[struct{}](s, v1alpha1.DonePath, session.Token, done); status != http.StatusOK {
			t.Fatalf("done: %d %s", status, reason)
		}
	}
	got := s.agent()
	if len(got.Steps) != 1 || got.Steps[0].OK || got.Steps[0].Message != "sda is not erased" {
		t.Fatalf("got steps %+v", got.Steps)
	}
	if diff := cmp.Diff(want, got.Steps[0].Erased); diff != "" {
		t.Error(diff)
	}
	// Another run that went well takes its place; the same once more does not move its time.
	done.OK, done.Text, done.Erased[1].OK, done.Erased[1].Error = true, "", true, ""
	var times []time.Time
	for n := range 3 {
		s.at(began.Add(time.Duration(n) * time.Hour))
		if n == 2 {
			done.Erased[1].Method = "overwrite"
		}
		if _, status, reason := post[struct{}](s, v1alpha1.DonePath, session.Token, done); status != http.StatusOK {
			t.Fatalf("done: %d %s", status, reason)
		}
		times = append(times, s.agent().Steps[0].At.Time)
	}
	if !times[0].Equal(times[1]) || times[1].Equal(times[2]) {
		t.Errorf("the same end told twice, and another one, are of %v", times)
	}
}

func TestRecordsAreMadeToFit(t *testing.T) {
	long := strings.Repeat("é\x1b", 4096)
	var records []v1alpha1.DriveErasure
	for range maxDrives {
		records = append(records, v1alpha1.DriveErasure{Name: "sda", SerialNumber: "S1", Verified: "read", Error: long,
			Tried: []string{long, long, long}})
	}
	if err := fit(records); err != nil {
		t.Fatal(err)
	}
	if text, _ := json.Marshal(records); len(text) > maxErased {
		t.Errorf("the records weigh %d bytes", len(text))
	}
	if r := records[0]; len(r.Error) > maxLine || r.Error == "" || strings.Contains(r.Error, "\x1b") || r.Tried != nil {
		t.Errorf("got %+v", r)
	}
	few := []v1alpha1.DriveErasure{{Name: "sda", Tried: make([]string, 100)}}
	few[0].Tried[0] = long
	if err := fit(few); err != nil || len(few[0].Tried) != maxTried || len(few[0].Tried[0]) > maxLine {
		t.Errorf("got %d lines of what was tried, %v", len(few[0].Tried), err)
	}
	for i := range records {
		records[i].Name, records[i].SerialNumber, records[i].WWN, records[i].Model = long, long, long, long
	}
	if err := fit(records); err == nil {
		t.Error("records that weigh too much were taken")
	}
}

func TestOnlyTheRamdiskEndsWorkOnDisks(t *testing.T) {
	s := newSite(t)
	session := s.open(newTPM(t), v1alpha1.OSMode)
	for _, step := range []string{v1alpha1.InstallStep, v1alpha1.EraseStep} {
		if _, status, _ := post[struct{}](s, v1alpha1.DonePath, session.Token, v1alpha1.Done{Message: of(session, step), OK: true}); status != 400 {
			t.Errorf("an agent in the OS could end the step %s: %d", step, status)
		}
	}
}

func TestSlotIsShown(t *testing.T) {
	for _, mode := range []string{v1alpha1.OSMode, v1alpha1.InitrdMode} {
		s := newSite(t)
		s.change(func(h *Identified) { h.NoTPM = "lab machine" })
		in := hello(nil, mode)
		in.Slot = "b"
		challenge, _, _ := post[v1alpha1.Challenge](s, v1alpha1.HelloPath, "", in)
		session, status, reason := post[v1alpha1.Session](s, v1alpha1.ProvePath, "", v1alpha1.Proof{ChallengeID: challenge.ID})
		if status != http.StatusOK {
			t.Fatalf("%s: %d %s", mode, status, reason)
		}
		if mode == v1alpha1.InitrdMode {
			post[struct{}](s, v1alpha1.DonePath, session.Token, v1alpha1.Done{Message: of(session, v1alpha1.RefuseStep), Text: "hash differs"})
		}
		if got := s.agent().Slot; got != "b" {
			t.Errorf("%s: got slot %q, want b", mode, got)
		}
	}
}
