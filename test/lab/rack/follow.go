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

// Host is what metald says of one host.
type Host struct {
	Name       string
	Progress   v1alpha1.HostProgressStatus
	Conditions []metav1.Condition
	Power      bool
	Error      string
	// Doing is how far the agent's step at hand is; nil where it has none or says nothing.
	Doing *v1alpha1.StepProgress
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
	host := Host{Name: name, Progress: progress.Status, Conditions: bmh.Status.Conditions, Power: bmh.Status.PoweredOn, Error: bmh.Status.ErrorMessage}
	facts, err := r.Facts(ctx, name)
	if a := facts.Status.Agent; a != nil && err == nil && facts.Status.Agent.Epoch == progress.Status.Epoch {
		host.Doing = a.Progress
	}
	if err != nil && !errors.Is(err, errAbsent) {
		return Host{}, err
	}
	return host, nil
}

// Facts reads what metald has seen of one host.
func (r *Rack) Facts(ctx context.Context, name string) (facts v1alpha1.HostInventory, err error) {
	err = r.Read(ctx, "/apis/metald.io/v1alpha1/namespaces/default/hostinventories/"+name, &facts)
	return facts, err
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

// Follow tells each change of one host until done says so. It gives up when nothing at all changes for a while, not after a
// fixed time: how fast an emulated machine is depends on what else runs beside it.
func (r *Rack) Follow(ctx context.Context, name string, done func(Host) (bool, error)) error {
	return r.FollowAll(ctx, []string{name}, done)
}

// trail is what was last seen of one host.
type trail struct {
	line, told string
	console    int64
	over       bool
}

// FollowAll is Follow for some hosts at once: it ends when done has said so of each. A host that has to wait for the others'
// boots shows no change for long, so it gives up when none of them moves.
func (r *Rack) FollowAll(ctx context.Context, names []string, done func(Host) (bool, error)) error {
	start, moved := time.Now(), time.Now()
	trails := map[string]*trail{}
	for _, name := range names {
		trails[name] = &trail{console: -1}
	}
	var trouble error
	for left := len(names); left > 0; {
		for _, name := range names {
			t := trails[name]
			if t.over {
				continue
			}
			host, err := r.Look(ctx, name)
			if trouble = err; err == nil {
				if line := host.Line(); line != t.line {
					t.line, moved = line, time.Now()
					if shape := withoutNumbers(line); shape != t.told { // bytes that get more are not worth a line
						t.told = shape
						r.say("    %6s  %s  %s", time.Since(start).Round(100*time.Millisecond), name, line)
					}
				}
				r.measurePace(host)
				if t.over, err = done(host); err != nil {
					return fmt.Errorf("following %s: %w", name, err)
				}
				if t.over {
					left--
				}
			}
			// A machine that writes to its console moves, even where metald cannot see it yet.
			if now := r.consoleSize(name); now != t.console {
				t.console, moved = now, time.Now()
			}
		}
		if patience := r.Scale(patience); time.Since(moved) > patience {
			return errors.Join(fmt.Errorf("nothing has changed for %s%s (log %s)", patience, r.whereTheyAre(names, trails), r.Log("metald")), trouble)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(300 * time.Millisecond):
		}
	}
	return nil
}

func (r *Rack) whereTheyAre(names []string, trails map[string]*trail) string {
	var text strings.Builder
	for _, name := range names {
		if t := trails[name]; !t.over {
			fmt.Fprintf(&text, "; %s: %s; its console: %s", name, t.line, r.lastLine(name+".console"))
		}
	}
	return text.String()
}

// withoutNumbers makes lines alike that differ in numbers only.
func withoutNumbers(line string) string {
	return strings.Map(func(c rune) rune {
		if c >= '0' && c <= '9' {
			return -1
		}
		return c
	}, line)
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
	return r.FollowAll(ctx, r.Names(), func(h Host) (bool, error) { return h.Ready(), nil })
}
