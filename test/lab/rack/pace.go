// SPDX-License-Identifier: Apache-2.0

package rack

import (
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	// patience is how long hosts may show no change at all before following them is given up, on the machine of reference.
	patience = 6 * time.Minute
	// bootOfReference is how long the first machine takes there from the order to boot until its ramdisk's agent has proved itself.
	bootOfReference = 15 * time.Second
	// A factor beyond this is no slow machine but a broken one.
	slowest = 10.0
)

// Factor is how many times slower this machine boots than the one of reference, never below 1: 1 until it is known.
func (r *Rack) Factor() float64 {
	text, err := os.ReadFile(r.Path("boot-factor"))
	if err != nil {
		return 1
	}
	f, err := strconv.ParseFloat(strings.TrimSpace(string(text)), 64)
	if err != nil || !(f >= 1) {
		return 1
	}
	return min(f, slowest)
}

// Scale makes a deadline of this machine out of one of the machine of reference.
func (r *Rack) Scale(d time.Duration) time.Duration { return time.Duration(float64(d) * r.Factor()) }

// measurePace notes, once, how long the first machine took to its first agent. It boots by HTTP: no other program's waits
// are in that time.
func (r *Rack) measurePace(h Host) {
	if h.Name != r.Spec(0).Name {
		return
	}
	if _, err := os.Stat(r.Path("boot-factor")); err == nil {
		return
	}
	for _, p := range h.Progress.Phases {
		if p.Name != "boot ramdisk" || p.End == nil {
			continue
		}
		took := p.End.Sub(p.Start.Time)
		f := max(1, float64(took)/float64(bootOfReference))
		if os.WriteFile(r.Path("boot-factor"), []byte(strconv.FormatFloat(f, 'f', 2, 64)+"\n"), 0o644) == nil {
			r.say("    a boot takes %s here: deadlines are those of the machine of reference times %.1f", took.Round(100*time.Millisecond), r.Factor())
		}
	}
}
