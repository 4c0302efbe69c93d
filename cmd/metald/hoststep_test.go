// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
	"time"

	"metald.io/metald/api/v1alpha1"
)

// A step is shown only while it is this boot's, and a rate only where its beginning is known.
func TestStepOf(t *testing.T) {
	progress := installed(nil).Status
	change := func(f func(a *v1alpha1.AgentFacts)) *v1alpha1.AgentFacts {
		a := agentAt(42)
		f(a)
		return a
	}
	later := installed(nil).Status
	later.Phases = []v1alpha1.Phase{{Name: "write image", Start: *ago(15 * time.Second)}}
	erasing := installed(nil).Status
	erasing.Erase = &v1alpha1.Erase{Begun: *ago(10 * time.Second)}
	tests := []struct {
		name     string
		progress v1alpha1.HostProgressStatus
		agent    *v1alpha1.AgentFacts
		want     string
	}{
		{"no agent", progress, nil, ""},
		{"nothing under way", progress, change(func(a *v1alpha1.AgentFacts) { a.Progress = nil }), ""},
		{"of an earlier boot", progress, change(func(a *v1alpha1.AgentFacts) { a.Epoch = 1 }), ""},
		{"writing", progress, agentAt(42), "writing root-a of nvme0n1, 42 %, 210 MB of 500 MB, 10 MB/s, about 27s to go"},
		{"begun after the agent came", later, agentAt(42), "writing root-a of nvme0n1, 42 %, 210 MB of 500 MB, 21 MB/s, about 13s to go"},
		{"erasing", erasing, agentAt(42), "writing root-a of nvme0n1, 42 %, 210 MB of 500 MB, 42 MB/s, about 6s to go"},
		{"no total", progress, change(func(a *v1alpha1.AgentFacts) { a.Progress.Total = 0 }), "writing root-a of nvme0n1, 10 MB/s"},
		{"more than all", progress, agentAt(140), "writing root-a of nvme0n1, 100 %, 700 MB of 500 MB, 35 MB/s"},
		{"silent", progress, change(func(a *v1alpha1.AgentFacts) { a.FirstSeen, a.ProgressAt = ago(220*time.Second), ago(200*time.Second) }),
			"writing root-a of nvme0n1, 42 %, 210 MB of 500 MB, 10 MB/s, about 27s to go (said 3m20s ago)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if s := stepOf(tt.progress, tt.agent); s != nil {
				got = s.page(noon)
			}
			if got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

func TestBytesText(t *testing.T) {
	tests := []struct {
		n    int64
		want string
	}{
		{0, "0 B"}, {999, "999 B"}, {1000, "1.0 kB"}, {9_949, "9.9 kB"}, {9_950, "10 kB"}, {999_499, "999 kB"}, {999_500, "1.0 MB"},
		{1_920_383_410_176, "1.9 TB"}, {7_681_501_126_656_000, "7.7 PB"},
	}
	for _, tt := range tests {
		if got := bytesText(tt.n); got != tt.want {
			t.Errorf("bytesText(%d): got %q, want %q", tt.n, got, tt.want)
		}
	}
}
