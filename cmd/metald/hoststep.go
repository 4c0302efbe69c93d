// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"golang.org/x/sync/errgroup"

	"metald.io/metald/api/v1alpha1"
)

// viewDisk is the disk that a host runs from or is to run from.
type viewDisk struct {
	Name         string `json:"name"`
	Model        string `json:"model,omitempty"`
	SerialNumber string `json:"serialNumber,omitempty"`
	WWN          string `json:"wwn,omitempty"`
	SizeBytes    int64  `json:"sizeBytes,omitempty"`
	// Written is when all of it was written and verified; nil before.
	Written *metav1.Time `json:"written,omitempty"`
}

func diskOf(i *v1alpha1.Installation) *viewDisk {
	if i == nil {
		return nil
	}
	d := i.Disk
	return &viewDisk{Name: d.Name, Model: d.Model, SerialNumber: d.SerialNumber, WWN: d.WWN, SizeBytes: d.SizeBytes, Written: i.Written}
}

// viewStep is how far a long step on a host is, by the agent's last word.
type viewStep struct {
	Doing string `json:"doing"`
	Done  int64  `json:"done"`
	// Total is 0 where nobody can tell; then there is no percent either.
	Total   int64 `json:"total,omitempty"`
	Percent *int  `json:"percent,omitempty"`
	// BytesPerSecond is the average since the step began, 0 where it is too early to tell.
	BytesPerSecond int64        `json:"bytesPerSecond,omitempty"`
	At             *metav1.Time `json:"at,omitempty"`
}

// stepOf reads a step out of what agent and mind say; nil where none of the present boot is under way.
func stepOf(p v1alpha1.HostProgressStatus, a *v1alpha1.AgentFacts) *viewStep {
	if a == nil || a.Progress == nil || a.Progress.Doing == "" || a.Epoch != p.Epoch {
		return nil
	}
	s := &viewStep{Doing: a.Progress.Doing, Done: a.Progress.Done, Total: a.Progress.Total, At: a.ProgressAt}
	if s.Total > 0 {
		percent := int(min(max(s.Done, 0), s.Total) * 100 / s.Total)
		s.Percent = &percent
	}
	if begun := begunAt(p, a); begun != nil && s.At != nil && s.Done > 0 {
		if took := s.At.Sub(begun.Time); took >= time.Second {
			s.BytesPerSecond = int64(float64(s.Done) / took.Seconds())
		}
	}
	return s
}

// begunAt is the latest that a step can have begun: when its agent came, or when the mind began to wait for the step.
func begunAt(p v1alpha1.HostProgressStatus, a *v1alpha1.AgentFacts) *metav1.Time {
	begun := a.FirstSeen
	later := func(t *metav1.Time) {
		if begun == nil || t.After(begun.Time) {
			begun = t
		}
	}
	for i := range p.Phases {
		if p.Phases[i].End == nil {
			later(&p.Phases[i].Start)
		}
	}
	if p.Erase != nil && p.Erase.Ended == nil {
		later(&p.Erase.Begun)
	}
	return begun
}

// text is a step in few words; a table has no room for more.
func (s *viewStep) text() string {
	switch {
	case s == nil:
		return ""
	case s.Percent == nil:
		return s.Doing
	}
	return fmt.Sprintf("%s, %d %%", s.Doing, *s.Percent)
}

// page is a step in all words.
func (s *viewStep) page(now time.Time) string {
	text := s.text()
	if s.Total > 0 {
		text += fmt.Sprintf(", %s of %s", bytesText(s.Done), bytesText(s.Total))
	}
	if s.BytesPerSecond > 0 {
		text += fmt.Sprintf(", %s/s", bytesText(s.BytesPerSecond))
		if left := s.Total - s.Done; left > 0 {
			text += fmt.Sprintf(", about %s to go", short(time.Duration(float64(left)/float64(s.BytesPerSecond)*float64(time.Second))))
		}
	}
	if s.At != nil && now.Sub(s.At.Time) > staleStep {
		text += fmt.Sprintf(" (said %s ago)", short(now.Sub(s.At.Time)))
	}
	return text
}

// staleStep is how old an agent's word may be before its age is worth telling: it speaks at least once a minute.
const staleStep = 75 * time.Second

// bytesText counts as disks are sold, in powers of ten.
func bytesText(n int64) string {
	value, units := float64(n), []string{"B", "kB", "MB", "GB", "TB", "PB"}
	i := 0
	for value >= 999.5 && i < len(units)-1 {
		value /= 1000
		i++
	}
	if i > 0 && value < 9.95 {
		return fmt.Sprintf("%.1f %s", value, units[i])
	}
	return fmt.Sprintf("%.0f %s", value, units[i])
}

// diskText is a disk and the slot that runs, for a table's cell.
func (v hostView) diskText() string {
	if v.Disk == nil {
		return ""
	}
	text := v.Disk.Name
	if id := cmp.Or(v.Disk.SerialNumber, v.Disk.WWN); id != "" {
		text += " (" + id + ")"
	}
	if v.Slot != "" {
		text += " slot " + v.Slot
	}
	return text
}

// longSteps are the reasons of waits whose percent only the HostInventory has.
var longSteps = []string{"Installing", "Erasing"}

// inventoriesAtOnce bounds how many are read side by side.
const inventoriesAtOnce = 8

// addAgents adds what the agents say, for those hosts of which it is asked: an inventory can be large, so a table of a
// thousand hosts reads none but those of the few that a long step is under way on.
func (d *door) addAgents(ctx context.Context, views []hostView, progress []v1alpha1.HostProgressStatus, everything bool) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(inventoriesAtOnce)
	for i := range views {
		v := &views[i]
		if long := v.Waiting != nil && slices.Contains(longSteps, v.Waiting.Reason); !long && !(everything && v.Disk != nil) {
			continue
		}
		g.Go(func() error {
			var inventory v1alpha1.HostInventory
			if err := d.beside(ctx, "hostinventories", v.Metadata.Namespace, v.Metadata.Name, &inventory); err != nil {
				return err
			}
			v.agent(progress[i], inventory.Status.Agent)
			return nil
		})
	}
	return g.Wait()
}

func (v *hostView) agent(p v1alpha1.HostProgressStatus, a *v1alpha1.AgentFacts) {
	v.Step = stepOf(p, a)
	if a != nil && a.Epoch == p.Epoch {
		v.Slot = a.Slot
	}
}
