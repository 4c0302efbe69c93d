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
	name := r.Spec(0).Name
	for _, line := range [][2]string{
		{short + "/metald status", "the hosts, and what each waits for"},
		{short + "/metald status " + name, "one host: conditions, events, time of each phase"},
		{short + "/bmh get bmh -o wide", "the same through metald's Kubernetes API"},
		{short + "/kubectl get nodes", "the Kubernetes cluster that it joined"},
		{short + "/console " + name, "its serial console"},
		{"make lab-down", "end it all"},
	} {
		r.say("  %-*s  %s", len(short)+16, line[0], line[1])
	}
	return nil
}

func (r *Rack) relative(path string) string {
	if short, err := filepath.Rel(r.Repo, path); err == nil {
		return short
	}
	return path
}
