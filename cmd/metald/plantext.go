// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"time"
)

// text is a plan for a person: where the host is, what holds it back, the acts in order, what will hold it back after them.
func (p hostPlan) text(out *pageWriter, again bool, now time.Time) {
	if again {
		out.line("")
	}
	subject := ""
	switch {
	case p.Release:
		subject = ", if nobody wants it any more"
	case p.Pool != "":
		subject = ", for pool " + p.Pool
	}
	out.line("%s/%s is %s, power %s%s:", p.Metadata.Namespace, p.Metadata.Name, cmp.Or(p.State, "new"), p.Power, subject)
	if p.Waiting != nil {
		text := "now: waits for " + p.Waiting.For
		if p.Waiting.Until != nil {
			text += ", until " + clock(*p.Waiting.Until) + " (" + until(p.Waiting.Until, now) + ")"
		}
		out.line("%s", text)
	}
	for _, why := range p.HeldBack {
		out.line("HELD BACK: %s", why)
	}
	var rows [][]any
	for i, a := range p.Acts {
		mark := ""
		if a.Destructive {
			mark = "DESTRUCTIVE"
		}
		rows = append(rows, []any{fmt.Sprint(i + 1), a.Kind, mark, a.What, a.Target})
	}
	if len(rows) > 0 {
		out.rows(columnsOf("#", "KIND", "MARK", "WHAT", "WHERE"), rows)
	}
	if p.Then != "" {
		out.line("THEN HELD BACK: %s", p.Then)
	}
	switch {
	case len(p.Acts) == 0 && len(p.HeldBack) == 0:
		out.line("nothing is to be done")
	case p.Destructive > 0:
		out.line("%d acts, %d destructive", len(p.Acts), p.Destructive)
	}
}
