// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os/user"

	"github.com/spf13/cobra"
)

// eachHost does one thing for each host, prints one line for each, and lets none stop the others.
func eachHost(c *cobra.Command, hosts []string, do func(arg string) (string, error)) error {
	t := tally{c: c, of: len(hosts)}
	for _, arg := range hosts {
		done, err := do(arg)
		if err == nil {
			fmt.Fprintln(c.OutOrStdout(), arg, done)
		}
		t.count(arg, err)
	}
	return t.end()
}

// tally sums up a command over several things into one exit code: that of the failures where all fail alike, "in part" where
// some were done, plain error where they fail for different reasons.
type tally struct {
	c          *cobra.Command
	of, failed int
	last       error
	code       int
}

// count notes how one of them ended, and tells an error at once where there are others to come.
func (t *tally) count(arg string, err error) {
	if err == nil {
		return
	}
	t.failed++
	t.last = fmt.Errorf("%s: %w", arg, err)
	if t.of > 1 {
		fmt.Fprintln(t.c.ErrOrStderr(), "metald:", t.last)
	}
	switch code := exitCode(err); {
	case t.failed == 1:
		t.code = code
	case t.code != code:
		t.code = exitError
	}
}

func (t *tally) end() error {
	switch {
	case t.failed == 0:
		return nil
	case t.of == 1:
		return t.last
	case t.failed == t.of:
		return codedError{t.code, errTold}
	}
	return codedError{exitPartial, errTold}
}

// byWhom is "who: why". Who is only what this machine calls the person; the API's own record says with which key.
func byWhom(reason string) string {
	if u, err := user.Current(); err == nil {
		return u.Username + ": " + reason
	}
	return reason
}
