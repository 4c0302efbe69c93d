// SPDX-License-Identifier: Apache-2.0

package rack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
)

// patience is how long a host may show no change at all before following it is given up.
const patience = 6 * time.Minute

// Host is what metald says of one host.
type Host struct {
	Progress   v1alpha1.HostProgressStatus
	Conditions []metav1.Condition
	Power      bool
	Error      string
}

// Ready says whether metald calls the host Ready.
func (h Host) Ready() bool {
	c := h.Condition("Ready")
	return c != nil && c.Status == metav1.ConditionTrue
}

// Condition finds a condition of the BareMetalHost; nil where it has none of that type.
func (h Host) Condition(kind string) *metav1.Condition {
	for n := range h.Conditions {
		if h.Conditions[n].Type == kind {
			return &h.Conditions[n]
		}
	}
	return nil
}

// Line says where the host is in one line.
func (h Host) Line() string {
	p := h.Progress
	line := p.State
	if p.Waiting != nil {
		line += ": waiting for " + p.Waiting.For
		if p.Waiting.Action != "" {
			line += " (" + p.Waiting.Action + ")"
		}
	}
	if p.LastError != "" {
		line += "; last error: " + p.LastError
	}
	if h.Error != "" && !strings.Contains(line, h.Error) {
		line += "; " + h.Error
	}
	if h.Ready() {
		line += "; Ready"
	}
	return line
}

// Look reads one host from metald's API.
func (r *Rack) Look(ctx context.Context, name string) (Host, error) {
	var progress v1alpha1.HostProgress
	if err := r.Read(ctx, "/apis/metald.io/v1alpha1/namespaces/default/hostprogresses/"+name, &progress); err != nil && !errors.Is(err, errAbsent) {
		return Host{}, err
	}
	var bmh struct {
		Status struct {
			PoweredOn    bool               `json:"poweredOn"`
			ErrorMessage string             `json:"errorMessage"`
			Conditions   []metav1.Condition `json:"conditions"`
		} `json:"status"`
	}
	if err := r.Read(ctx, "/apis/metal3.io/v1alpha1/namespaces/default/baremetalhosts/"+name, &bmh); err != nil {
		return Host{}, err
	}
	return Host{Progress: progress.Status, Conditions: bmh.Status.Conditions, Power: bmh.Status.PoweredOn, Error: bmh.Status.ErrorMessage}, nil
}

var errAbsent = errors.New("not found")

// Read gets one object from metald's local door, the unix socket that root may use. A socket's path is found through
// /proc, since a data directory may lie too deep for a socket's name.
func (r *Rack) Read(ctx context.Context, path string, into any) error {
	dir, err := os.Open(r.Data())
	if err != nil {
		return fmt.Errorf("finding metald's socket: %w", err)
	}
	defer dir.Close()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()), "metald.sock"))
	}}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://metald"+path, nil)
	if err != nil {
		return fmt.Errorf("asking metald: %w", err)
	}
	answer, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("asking metald: %w", err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return fmt.Errorf("asking metald: %w", err)
	}
	switch {
	case answer.StatusCode == http.StatusNotFound:
		return fmt.Errorf("asking metald for %s: %w", path, errAbsent)
	case answer.StatusCode != http.StatusOK:
		return fmt.Errorf("asking metald for %s: %s: %.300s", path, answer.Status, body)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("reading metald's answer for %s: %w", path, err)
	}
	return nil
}

// Follow tells each change of a host until done says so. It gives up when nothing at all changes for a while, not after a
// fixed time: how fast an emulated machine is depends on what else runs beside it.
func (r *Rack) Follow(ctx context.Context, name string, done func(Host) (bool, error)) error {
	start, changed, said := time.Now(), time.Now(), ""
	mark := int64(-1)
	var trouble error
	for {
		host, err := r.Look(ctx, name)
		if err == nil {
			trouble = nil
			if line := host.Line(); line != said {
				said, changed = line, time.Now()
				r.say("    %6s  %s  %s", time.Since(start).Round(100*time.Millisecond), name, line)
			}
			over, err := done(host)
			if err != nil {
				return fmt.Errorf("following %s: %w", name, err)
			}
			if over {
				return nil
			}
		} else {
			trouble = err
		}
		// A machine that writes to its console moves, even where metald cannot see it yet.
		if now := r.consoleSize(name); now != mark {
			mark, changed = now, time.Now()
		}
		if time.Since(changed) > patience {
			return errors.Join(fmt.Errorf("following %s: nothing has changed for %s; last: %s; console: %s (log %s)",
				name, patience, said, r.lastLine(name+".console"), r.Log("metald")), trouble)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(300 * time.Millisecond):
		}
	}
}

func (r *Rack) consoleSize(name string) int64 {
	info, err := os.Stat(r.Log(name + ".console"))
	if err != nil {
		return 0
	}
	return info.Size()
}

// enrolAndFollow imports the hosts and shows the way of each to Ready.
func (r *Rack) enrolAndFollow(ctx context.Context) error {
	if err := r.Import(ctx); err != nil {
		return err
	}
	for n := range r.Hosts {
		err := r.Follow(ctx, r.Spec(n).Name, func(h Host) (bool, error) { return h.Ready(), nil })
		if err != nil {
			return err
		}
	}
	return nil
}

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
	for n := range r.Hosts {
		host, err := r.Look(ctx, r.Spec(n).Name)
		if err != nil {
			return err
		}
		r.say("\nthe way of %s, as metald timed it", r.Spec(n).Name)
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
