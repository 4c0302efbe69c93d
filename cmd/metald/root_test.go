// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// The list of commands names each command that there is, and each exit code.
func TestCommandsAreListed(t *testing.T) {
	data, err := os.ReadFile("../../docs/commands.md")
	if err != nil {
		t.Fatal(err)
	}
	list := string(data)
	listed := 0
	var look func(c *cobra.Command)
	look = func(c *cobra.Command) {
		if path := c.CommandPath(); !c.HasSubCommands() && c.Name() != "help" && !strings.HasPrefix(path, "metald completion ") {
			listed++
			if !strings.Contains(list, "`"+path+"`") && !strings.Contains(list, "`"+path+" ") {
				t.Errorf("docs/commands.md does not list %q", path)
			}
		}
		for _, sub := range c.Commands() {
			look(sub)
		}
	}
	look(newRootCommand())
	if listed < 15 {
		t.Errorf("only %d commands were looked for", listed)
	}
	for _, code := range []int{exitOK, exitError, exitUsage, exitNotReady, exitRefused, exitPartial} {
		if !strings.Contains(list, fmt.Sprintf("\n| %d | ", code)) {
			t.Errorf("docs/commands.md does not tell exit code %d", code)
		}
	}
}
