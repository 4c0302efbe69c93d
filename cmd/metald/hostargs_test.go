// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestExpandHosts(t *testing.T) {
	tests := []struct {
		args string
		want string // the hosts, or the error
	}{
		{"r1n01", "r1n01"},
		{"r1n[01-03]", "r1n01 r1n02 r1n03"},
		{"r1n[8-11]", "r1n8 r1n9 r1n10 r1n11"},
		{"r1n[08-11]", "r1n08 r1n09 r1n10 r1n11"},
		{"r1n[0-2]", "r1n0 r1n1 r1n2"},
		{"r1n[098-101]", "r1n098 r1n099 r1n100 r1n101"},
		{"r1n[1,3,5-6]", "r1n1 r1n3 r1n5 r1n6"},
		{"r[1-2]n[01-02]", "r1n01 r1n02 r2n01 r2n02"},
		{"[1-2]", "1 2"},
		{"racks/r1n[1-2].example", "racks/r1n1.example racks/r1n2.example"},
		{"r1n[1-3] r1n2 other", "r1n1 r1n2 r1n3 other"},
		{"", `"": no host has an empty name`},
		{"r1n[1-", `"r1n[1-": '[' without ']'`},
		{"r1n1]", `"r1n1]": ']' without '['`},
		{"r]1[1]", `"r]1[1]": ']' without '['`},
		{"r[1[2]]", `"r[1[2]]": [1[2]: want numbers and ranges, as [01-18] or [1-3,7]`},
		{"r1n[]", `"r1n[]": []: want numbers and ranges, as [01-18] or [1-3,7]`},
		{"r1n[a-c]", `"r1n[a-c]": [a-c]: want numbers and ranges, as [01-18] or [1-3,7]`},
		{"r1n[1-2-3]", `"r1n[1-2-3]": [1-2-3]: want numbers and ranges, as [01-18] or [1-3,7]`},
		{"r1n[+1-2]", `"r1n[+1-2]": [+1-2]: want numbers and ranges, as [01-18] or [1-3,7]`},
		{"r1n[3-1]", `"r1n[3-1]": [3-1]: 3 comes after 1`},
		{"r1n[01-100]", `"r1n[01-100]": [01-100]: 01 and 100 have not the same number of digits`},
		{"r1n[1-010]", `"r1n[1-010]": [1-010]: 1 and 010 have not the same number of digits`},
		{"r1n[0-999999999]", `"r1n[0-999999999]": more than 10000 hosts`},
		{"r[0-999]n[0-999]", `"r[0-999]n[0-999]": more than 10000 hosts`},
		{"a[1-6000] b[1-6000]", "more than 10000 hosts"},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			hosts, err := expandHosts(strings.Split(tt.args, " "))
			got := strings.Join(hosts, " ")
			if err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// What comes out of a range is names: no brackets, none twice, not too many; and a name without brackets is itself.
func FuzzExpandHosts(f *testing.F) {
	for _, seed := range []string{"r1n01", "r1n[01-18]", "r[1-2]n[01,03-05].x", "a/[0-9][0-9][0-9]", "[[", "]-[", "[00-0]", "[-]", "[,]", "[999999999]"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, arg string) {
		hosts, err := expandHosts([]string{arg})
		switch {
		case err != nil && hosts != nil:
			t.Errorf("an error and %d hosts", len(hosts))
		case err == nil && (len(hosts) == 0 || len(hosts) > maxHosts):
			t.Errorf("%d hosts", len(hosts))
		case err == nil && !strings.ContainsAny(arg, "[]") && !slices.Equal(hosts, []string{arg}):
			t.Errorf("a plain name became %q", hosts)
		}
		seen := map[string]bool{}
		for _, h := range hosts {
			if h == "" || seen[h] || strings.ContainsAny(h, "[]") {
				t.Fatalf("%q among the hosts", h)
			}
			seen[h] = true
		}
		// A name that came out of a range stands for itself.
		if again, err2 := expandHosts(hosts); err == nil && (err2 != nil || !slices.Equal(again, hosts)) {
			t.Errorf("expanded again: %v, %v", again, err2)
		}
	})
}

// One exit code sums up several hosts.
func TestTally(t *testing.T) {
	ok, plain, refused := error(nil), fmt.Errorf("broken"), refusedErrorf("not taken")
	tests := []struct {
		ends []error
		want int
	}{
		{[]error{ok}, exitOK}, {[]error{ok, ok}, exitOK},
		{[]error{plain}, exitError}, {[]error{refused}, exitRefused},
		{[]error{refused, refused}, exitRefused}, {[]error{plain, refused}, exitError}, {[]error{refused, plain, refused}, exitError},
		{[]error{ok, refused}, exitPartial}, {[]error{plain, ok}, exitPartial},
	}
	for _, tt := range tests {
		root := newRootCommand()
		root.SetErr(&strings.Builder{})
		tally := tally{c: root, of: len(tt.ends)}
		for i, err := range tt.ends {
			tally.count(fmt.Sprint("host", i), err)
		}
		got := exitOK
		if err := tally.end(); err != nil {
			got = exitCode(err)
		}
		if got != tt.want {
			t.Errorf("%v: exit code %d, want %d", tt.ends, got, tt.want)
		}
	}
}
