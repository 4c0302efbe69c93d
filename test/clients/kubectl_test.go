// SPDX-License-Identifier: Apache-2.0

package clients

import (
	"flag"
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "write what the scripts' commands print into the scripts")

// The scripts are what people type, as five of them: who is in which group is said here, what each may do by the roles that
// every inventory has.
func TestKubectl(t *testing.T) {
	m := startMetald(t)
	people := map[string]string{
		"ADMIN":    m.login(t, "ada", "metald:admins"),
		"OPERATOR": m.login(t, "olga", "metald:operators"),
		"VIEWER":   m.login(t, "vera", "metald:viewers"),
		"TENANT_A": m.login(t, "anna"),
		"TENANT_B": m.login(t, "bert"),
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"as": as, "until": until},
		Setup: func(e *testscript.Env) error {
			for name, kubeconfig := range people {
				e.Setenv(name, kubeconfig)
			}
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("KUBECONFIG", people["ADMIN"])
			e.Setenv("KUBECTL_EXTERNAL_DIFF", "diff -u")
			return nil
		},
	})
}

// as is "as PERSON": the commands that follow are that person's, by the name of the variable with the kubeconfig.
func as(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 || ts.Getenv(args[0]) == "" {
		ts.Fatalf("usage: as ADMIN|OPERATOR|VIEWER|TENANT_A|TENANT_B")
	}
	ts.Setenv("KUBECONFIG", ts.Getenv(args[0]))
}

// until is "until FILE PATTERN": within half a minute the file must match.
func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: until FILE PATTERN")
	}
	pattern, err := regexp.Compile(args[1])
	ts.Check(err)
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		text, err := os.ReadFile(ts.MkAbs(args[0]))
		if err == nil && pattern.Match(text) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%s does not match %s in 30 s:\n%s", args[0], args[1], text)
		}
	}
}
