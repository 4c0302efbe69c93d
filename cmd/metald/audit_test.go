// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"time"

	"metald.io/metald/internal/inventory/audit"
)

// What an auditor is told, and with which exit code: a rollback that the record itself tells of is a note, and excuses nothing.
func TestVerdict(t *testing.T) {
	at := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	restored := audit.Turn{Seq: 7, Record: audit.Record{Time: at, Actor: audit.Actor{User: "ops1"}, Reason: "the disk died",
		Act: &audit.Act{Verb: audit.Restore, Detail: "of 2026-02-28T08:00:00Z"}}}
	const note = "note: entry 7 says that ops1 did at 2026-03-01T08:00:00Z: restore backup, of 2026-02-28T08:00:00Z, the disk died\n"
	for _, test := range []struct {
		name     string
		report   audit.Report
		findings []string
		given    int
		want     string
		code     int
	}{
		{"empty", audit.Report{Origin: "metald/0"}, nil, 0, "metald/0: the record is empty\n" +
			"it is as the daemon signed it; no earlier checkpoint was given, so a rollback before that would not be seen\n", 0},
		{"restored", audit.Report{Origin: "metald/0", Entries: 9, From: at, To: at, Matched: 2, Turns: []audit.Turn{restored}}, nil, 2, note +
			"metald/0: 9 entries from 2026-03-01T08:00:00Z to 2026-03-01T08:00:00Z, the last has hash " + strings.Repeat("0", 64) + "\n" +
			"it is as the daemon signed it, and agrees with 2 earlier checkpoints\n", 0},
		{"restored, and a checkpoint of what was forgotten", audit.Report{Origin: "metald/0", Entries: 9, Omitted: 3, Turns: []audit.Turn{restored}},
			[]string{"a", "b"}, 2, "a\nb\nand 3 more\n" + note, exitError},
	} {
		var out strings.Builder
		err := tellVerdict(&out, test.report, test.findings, test.given)
		got := exitOK
		if err != nil {
			got = exitCode(err)
		}
		if out.String() != test.want || got != test.code {
			t.Errorf("%s: got code %d and\n%swant code %d and\n%s", test.name, got, out.String(), test.code, test.want)
		}
	}
}
