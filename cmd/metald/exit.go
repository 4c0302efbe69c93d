// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// What the exit codes mean. Scripts depend on them: they do not change.
const (
	exitOK       = 0
	exitError    = 1
	exitUsage    = 2
	exitNotReady = 3
	exitRefused  = 4
	exitPartial  = 5
)

const exitHelp = `Exit codes: 0 done, 1 error, 2 wrong usage, 3 not ready in time, 4 refused by policy, 5 done in part.`

// codedError carries the exit code that it ends the program with.
type codedError struct {
	code int
	err  error
}

func (e codedError) Error() string { return e.err.Error() }
func (e codedError) Unwrap() error { return e.err }

func usageErrorf(format string, args ...any) error {
	return codedError{exitUsage, fmt.Errorf(format, args...)}
}

// errTold ends the program with a code after everything was said already.
var errTold = errors.New("")

// finish prints an error and turns it into the exit code.
func finish(root *cobra.Command, err error) int {
	if err == nil {
		return exitOK
	}
	if text := err.Error(); text != "" {
		fmt.Fprintln(root.ErrOrStderr(), "metald:", text)
	}
	return exitCode(err)
}

// exitCode is what an error ends the program with.
func exitCode(err error) int {
	var coded codedError
	switch {
	case errors.As(err, &coded):
		return coded.code
	case apierrors.IsForbidden(err):
		return exitRefused
	}
	return exitError
}

func refusedErrorf(format string, args ...any) error {
	return codedError{exitRefused, fmt.Errorf(format, args...)}
}

// sort out wrong usage from failures: what goes wrong before a command's own function runs is usage.
func markUsage(c *cobra.Command) {
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageErrorf("%w\nSee '%s --help'", err, c.CommandPath())
	})
	if args := c.Args; args != nil {
		c.Args = func(c *cobra.Command, given []string) error {
			if err := args(c, given); err != nil {
				return usageErrorf("%w\nUsage: %s", err, c.UseLine())
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		markUsage(sub)
	}
}

// group is a command that only holds others. Cobra would take a misspelt subcommand for a request for help, and exit with 0.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				c.SetOut(c.ErrOrStderr())
				c.Help()
				return codedError{exitUsage, errTold}
			}
			hint := ""
			if near := c.SuggestionsFor(args[0]); len(near) > 0 {
				hint = fmt.Sprintf(": did you mean %q?", near[0])
			}
			return usageErrorf("unknown command %q for %q%s\nSee '%s --help'", args[0], c.CommandPath(), hint, c.CommandPath())
		},
	}
	c.SuggestionsMinimumDistance = 2
	c.AddCommand(commands...)
	return c
}
