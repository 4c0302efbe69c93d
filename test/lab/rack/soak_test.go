// SPDX-License-Identifier: Apache-2.0

package rack

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSoakVerdicts(t *testing.T) {
	tests, failed := verdicts(strings.NewReader(`=== RUN   TestOne
--- PASS: TestOne (1.20s)
=== RUN   TestTwo
    two_test.go:7: --- FAIL: this is a log line
--- FAIL: TestTwo (0.00s)
    --- FAIL: TestTwo/part (0.00s)
--- SKIP: TestThree (0.00s)
FAIL
`))
	if diff := cmp.Diff([]string{"TestTwo", "TestThree"}, failed); tests != 3 || diff != "" {
		t.Errorf("%d tests, want 3; failed (-want +got):\n%s", tests, diff)
	}
	for _, c := range []struct {
		run  soakRun
		want string
	}{
		{soakRun{took: 90 * time.Second, tests: 12}, "  1m30s  12 tests  green"},
		{soakRun{took: 90 * time.Second, tests: 12, failed: []string{"TestTwo"}, err: errors.New("exit status 1")}, "  1m30s  12 tests  FAILED TestTwo (exit status 1)"},
		{soakRun{}, "     0s   0 tests  FAILED "}, // nothing ran
	} {
		if diff := cmp.Diff(c.want, c.run.line()); diff != "" {
			t.Errorf("line (-want +got):\n%s", diff)
		}
	}
}
