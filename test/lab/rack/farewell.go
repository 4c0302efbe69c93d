// SPDX-License-Identifier: Apache-2.0

package rack

import (
	"context"
	"fmt"
	"path/filepath"
	"time"
)

// farewell shows what there is now, what it cost, and what to type next.
func (r *Rack) farewell(ctx context.Context, phases []phase) error {
	r.say("\n$ kubectl get nodes -o wide")
	nodes := r.Kubectl(ctx, "get", "nodes", "-o", "wide")
	nodes.Stdout, nodes.Stderr = r.Out, r.Out
	if err := nodes.Run(); err != nil {
		return fmt.Errorf("showing the nodes: %w", err)
	}
	r.say("\nwhat took how long")
	var all time.Duration
	for _, p := range phases {
		all += p.took
		r.say("  %8s  %s", p.took.Round(100*time.Millisecond), p.name)
	}
	r.say("  %8s  in all", all.Round(100*time.Millisecond))
	for _, name := range r.Names() {
		host, err := r.Look(ctx, name)
		if err != nil {
			return err
		}
		r.say("\nthe way of %s, as metald timed it", name)
		for _, p := range host.Progress.Phases {
			if p.End != nil {
				r.say("  %8s  %s", p.End.Sub(p.Start.Time).Round(100*time.Millisecond), p.Name)
			}
		}
	}
	short := r.relative(r.Cache)
	if r.Name != "metald-lab" {
		short = r.relative(r.Dir)
	}
	r.say("\nwhat to type next")
	names := r.Names()
	first, last := names[0], names[len(names)-1]
	next := [][2]string{
		{short + "/metald status", "the hosts, and what each waits for"},
		{short + "/metald status " + first, "one host: conditions, events, time of each phase"},
		{short + "/metald plan " + last, "what metald would do to a host, and why"},
		{short + "/bmh get bmh -o wide", "the same through metald's Kubernetes API"},
		{short + "/kubectl get nodes", "the Kubernetes cluster that they joined"},
		{short + "/console " + first, "a serial console"},
		{short + "/disk " + last, "what lies on a host's disk"},
		{"make lab-down", "end it all"},
	}
	width := 0
	for _, line := range next {
		width = max(width, len(line[0]))
	}
	for _, line := range next {
		r.say("  %-*s  %s", width, line[0], line[1])
	}
	return nil
}

func (r *Rack) relative(path string) string {
	if short, err := filepath.Rel(r.Repo, path); err == nil {
		return short
	}
	return path
}
