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
	said  map[string]time.Time
}

// NewConsole writes to out, usually /dev/console.
func NewConsole(out io.Writer) *Console {
	return &Console{out: out, start: time.Now(), said: make(map[string]time.Time)}
}

// again says whether a line was said within the last minute, and remembers it.
func (c *Console) again(line string) bool {
	now := time.Now()
	for old, at := range c.said {
		if now.Sub(at) >= sayAgain {
			delete(c.said, old)
		}
	}
	_, again := c.said[line]
	if !again {
		c.said[line] = now
	}
	return again
}

// Say prints one line with the seconds since the start. A line is not said again within a minute:
// who waits for a daemon should see that it waits, and not have the reason scroll away.
func (c *Console) Say(format string, args ...any) {
	line := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", " ")
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.again(line) {
		return
	}
	fmt.Fprintf(c.out, "metald %6.1fs  %s\n", time.Since(c.start).Seconds(), line)
}

// Shout prints a trouble that a person has to mend, so that it stands out from kernel messages: what is wrong, and what
// to do, a line each.
func (c *Console) Shout(wrong string, next ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.again(wrong + strings.Join(next, "")) {
		return
	}
	var b strings.Builder
	rule := strings.Repeat("=", 78)
	fmt.Fprintf(&b, "\n%s\n  metald: %s\n", rule, wrong)
	for _, line := range next {
		fmt.Fprintf(&b, "  %s\n", line)
	}
	fmt.Fprintf(&b, "%s\n\n", rule)
	_, _ = io.WriteString(c.out, b.String()) // nobody to tell when the console itself fails
}
