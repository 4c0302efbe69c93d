// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
)

// work is what a host runs, what is done on it now, and how it leaves.
func (p hostPage) work(out *pageWriter, v hostView, now time.Time) {
	if p.progress == nil {
		return
	}
	s := p.progress.Status
	if d := s.Deployment; d != nil {
		out.field("Runs", "%s", runs(*d))
		out.field("  Root hash", "%s", d.RootHash)
		if i := d.Install; i != nil {
			written := "not written yet"
			if i.Written != nil {
				written = fmt.Sprintf("written %s in epoch %d", moment(*i.Written), i.Epoch)
			}
			size := ""
			if i.Disk.SizeBytes > 0 {
				size = ", " + bytesText(i.Disk.SizeBytes)
			}
			out.field("  Disk", "%s%s, %s%s", diskName(i.Disk), size, written, optional(", runs from slot %s", v.Slot))
		}
	}
	if v.Step != nil {
		out.field("Doing", "%s", v.Step.page(now))
	}
	if b := s.Boot; b != nil {
		out.field("Boot answer", "%s%s, epoch %d", b.Answer, optional(" %.12s", b.Digest), b.Epoch)
	}
	p.leaving(out, now)
}

func runs(d v1alpha1.Deployment) string {
	if d.Method == "" {
		raw := v1alpha1.RawImage{}
		if d.Install != nil {
			raw = deref(d.Install.Raw)
		}
		return fmt.Sprintf("a user's image %s (%s %s)", raw.URL, raw.ChecksumType, raw.Checksum)
	}
	return fmt.Sprintf("image %s of pool %s in cluster %s (%s)", d.Image, d.Pool, d.Cluster, d.Method)
}

// leaving is how far a host is that nobody wants any more.
func (p hostPage) leaving(out *pageWriter, now time.Time) {
	l := p.progress.Status.Leaving
	if l == nil {
		return
	}
	done, drained := []string{"since " + moment(l.Since)}, "drained"
	if len(l.LeftBehind) > 0 {
		drained = "drain given up"
	}
	for _, part := range []struct {
		what string
		at   *metav1.Time
	}{{"Node cordoned", l.Cordoned}, {drained, l.Drained}, {"Node removed", l.Removed}, {"machine off", l.Stopped}} {
		if part.at != nil {
			done = append(done, part.what+" "+clock(*part.at))
		}
	}
	out.field("Leaving", "%s", strings.Join(done, ", "))
	if l.Drained == nil {
		out.field("  Pods have", "until %s (%s)", clock(l.DrainUntil), until(&l.DrainUntil, now))
	}
	for _, pod := range l.LeftBehind {
		out.field("  Left behind", "%s", pod)
	}
	out.field("  Cleaning", "%s", l.Cleaning)
}

// disks are the drives that the last inspection saw; whoever takes a host wants to know what is at stake.
func (p hostPage) disks(out *pageWriter) {
	if p.inventory == nil {
		return
	}
	facts := deref(deref(p.inventory.Status.Agent).Facts)
	var rows [][]any
	for _, d := range facts.Disks {
		kind := d.Transport
		if d.Rotational {
			kind += " rotating"
		}
		rows = append(rows, []any{d.Name, d.Model, cmp.Or(d.SerialNumber, d.WWN), bytesText(d.SizeBytes), strings.TrimSpace(kind), fmt.Sprint(d.Partitions)})
	}
	out.table("Disks at the last inspection", columnsOf("DISK", "MODEL", "SERIAL", "SIZE", "KIND", "PARTITIONS"), rows)
}

// erased is the record of the last erase, one line a drive.
func (p hostPage) erased(out *pageWriter, now time.Time) {
	if p.progress == nil || p.progress.Status.Erase == nil {
		return
	}
	e := p.progress.Status.Erase
	var rows [][]any
	for _, d := range e.Drives {
		result := "erased"
		if !d.OK {
			result = "FAILED: " + cmp.Or(d.Error, "no reason was given")
		}
		rows = append(rows, []any{d.Name, cmp.Or(d.SerialNumber, d.WWN), d.Method, took(d.Started, d.Ended, now), d.Verified,
			oneLine(result), oneLine(strings.Join(d.Tried, "; "))})
	}
	title := fmt.Sprintf("Last erase (%s, begun %s, took %s): %s", e.Mode, moment(e.Begun), took(e.Begun, e.Ended, now), eraseResult(*e))
	out.titled(title, columnsOf("DRIVE", "SERIAL", "METHOD", "TOOK", "VERIFIED", "RESULT", "TRIED BEFORE"), rows)
}

func eraseResult(e v1alpha1.Erase) string {
	switch {
	case e.Ended == nil:
		return "under way"
	case e.Mode == string(metal3.CleaningModeDisabled):
		return "nothing was erased, as was asked for"
	case !e.OK:
		return "NOT all drives are erased"
	case len(e.Drives) == 0:
		return "there were no drives"
	}
	return "all drives are erased"
}

func took(from metav1.Time, to *metav1.Time, now time.Time) string {
	if to == nil {
		return now.Sub(from.Time).Round(time.Second).String() + " so far"
	}
	return to.Sub(from.Time).Round(100 * time.Millisecond).String()
}

func oneLine(s string) string { return strings.ReplaceAll(s, "\n", " ") }

func moment(t metav1.Time) string { return t.UTC().Format(time.DateTime) }
