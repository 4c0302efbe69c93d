// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// sayAgain is after how long a line that is said over and over is printed again.
const sayAgain = time.Minute

// Console tells a person in front of the machine what is going on.
type Console struct {
	mu    sync.Mutex
	out   io.Writer
	start time.Time
	last  string
	at    time.Time
}

// NewConsole writes to out, usually /dev/console.
func NewConsole(out io.Writer) *Console { return &Console{out: out, start: time.Now()} }

// Say prints one line with the seconds since the start. The line that was just said is not said again within a minute:
// who waits for a daemon should see that it waits, and not have the reason scroll away.
func (c *Console) Say(format string, args ...any) {
	line := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", " ")
	c.mu.Lock()
	defer c.mu.Unlock()
	if line == c.last && time.Since(c.at) < sayAgain {
		return
	}
	c.last, c.at = line, time.Now()
	fmt.Fprintf(c.out, "metald %6.1fs  %s\n", time.Since(c.start).Seconds(), line)
}

// Shout prints a trouble that a person has to mend, so that it stands out from kernel messages: what is wrong, and what
// to do, a line each.
func (c *Console) Shout(wrong string, todo ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if wrong == c.last && time.Since(c.at) < sayAgain {
		return
	}
	c.last, c.at = wrong, time.Now()
	var b strings.Builder
	rule := strings.Repeat("=", 78)
	fmt.Fprintf(&b, "\n%s\n  metald: %s\n", rule, wrong)
	for _, line := range todo {
		fmt.Fprintf(&b, "  %s\n", line)
	}
	fmt.Fprintf(&b, "%s\n\n", rule)
	_, _ = io.WriteString(c.out, b.String()) // nobody to tell when the console itself fails
}
