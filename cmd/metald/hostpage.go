// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
)

// hostPage is all that `metald status HOST` tells.
type hostPage struct {
	host      *metal3.BareMetalHost
	progress  *v1alpha1.HostProgress
	inventory *v1alpha1.HostInventory
	pauses    pauses
	events    []corev1.Event
}

const maxEvents = 15

func (p hostPage) print(w io.Writer, now time.Time) error {
	out := &pageWriter{w: w}
	v := view(p.host, p.progress)
	v.hold(p.pauses.of(p.host))
	if p.inventory != nil && p.progress != nil {
		v.agent(p.progress.Status, p.inventory.Status.Agent)
	}
	p.head(out, v, now)
	p.identity(out)
	p.work(out, v, now)
	p.disks(out)
	p.erased(out, now)
	p.conditions(out, now)
	p.phases(out, now)
	p.eventLines(out, now)
	return out.err
}

func (p hostPage) head(out *pageWriter, v hostView, now time.Time) {
	out.field("Host", "%s/%s", v.Metadata.Namespace, v.Metadata.Name)
	out.field("State", "%s%s", v.stateText(), optional(" for %s", since(v.Since, now)))
	if v.Waiting != nil {
		text := v.waitingText()
		if v.Waiting.Until != nil {
			text += fmt.Sprintf(", until %s (%s)", clock(*v.Waiting.Until), until(v.Waiting.Until, now))
		}
		out.field("Waits for", "%s", text)
		out.field("What to do", "%s", v.Waiting.Action)
	}
	out.field("Paused", "%s", v.PausedBy)
	out.field("Error", "%s", v.Error)
	if s := p.progress; s != nil && s.Status.Attempts > 0 {
		next := ""
		if s.Status.NextTry != nil {
			next = fmt.Sprintf(", next try at %s", clock(*s.Status.NextTry))
		}
		out.field("Attempts", "%d%s", s.Status.Attempts, next)
	}
	out.field("Taken", "%s", p.host.Annotations[v1alpha1.TakenAnnotation])
	out.field("To reinstall", "%s", p.host.Annotations[v1alpha1.ReinstallAnnotation])
	out.field("Node", "%s", v.nodeText())
	lease := ""
	if s := p.progress; s != nil && s.Status.Power != nil {
		lease = fmt.Sprintf(" (held by %s: %s)", s.Status.Power.Owner, s.Status.Power.Reason)
	}
	out.field("Power", "%s%s", v.Power, lease)
}

func (p hostPage) identity(out *pageWriter) {
	out.field("BMC", "%s", p.host.Spec.BMC.Address)
	i := v1alpha1.Identity{}
	b := v1alpha1.BMCFacts{}
	a := v1alpha1.AgentFacts{}
	if p.inventory != nil {
		s := p.inventory.Status
		i, b, a = deref(s.Identity), deref(s.BMC), deref(s.Agent)
	}
	if i.BMCCertificateSHA256 != "" {
		pinned := ""
		if i.BMCCertificatePinned != nil {
			pinned = ", pinned " + i.BMCCertificatePinned.UTC().Format(time.DateTime)
		}
		out.field("  Certificate", "sha256 %s%s", i.BMCCertificateSHA256, pinned)
		if b.CertificateSHA256 != "" && b.CertificateSHA256 != i.BMCCertificateSHA256 {
			out.field("  Shows now", "sha256 %s, which is not the pinned one", b.CertificateSHA256)
		}
	}
	out.field("  Last error", "%s", b.Error)
	out.field("  Firmware", "%s", b.BMCVersion)
	out.field("Machine", "%s", strings.TrimSpace(b.Manufacturer+" "+b.Model))
	out.field("  Serial", "%s", i.SerialNumber)
	out.field("  UUID", "%s", i.SystemUUID)
	out.field("  Boot MAC", "%s", cmp.Or(i.BootMAC, p.host.Spec.BootMACAddress))
	out.field("  TPM key", "%s", optional("sha256 %s", i.EKSHA256))
	out.field("  BIOS", "%s", b.BIOSVersion)
	if a.LastSeen != nil {
		out.field("Agent", "%s %s, proved by %s, last seen %s", a.Mode, a.Version, cmp.Or(a.Proof, "nothing"), a.LastSeen.UTC().Format(time.DateTime))
	}
	if r := a.Refusal; r != nil {
		out.field("  Refused", "%s from %s: %s: %s", r.At.UTC().Format(time.DateTime), cmp.Or(r.RemoteIP, "somewhere"), r.Reason, r.Message)
	}
}

func (p hostPage) conditions(out *pageWriter, now time.Time) {
	var rows [][]any
	for _, c := range p.host.Status.Conditions {
		rows = append(rows, []any{c.Type, string(c.Status), since(&c.LastTransitionTime, now), c.Reason, c.Message})
	}
	out.table("Conditions", columnsOf("TYPE", "STATUS", "SINCE", "REASON", "MESSAGE"), rows)
}

func (p hostPage) phases(out *pageWriter, now time.Time) {
	if p.progress == nil {
		return
	}
	var rows [][]any
	for _, ph := range p.progress.Status.Phases {
		rows = append(rows, []any{ph.Name, clock(ph.Start), took(ph.Start, ph.End, now)})
	}
	out.table("Phases", columnsOf("PHASE", "START", "TOOK"), rows)
}

func (p hostPage) eventLines(out *pageWriter, now time.Time) {
	events := slices.Clone(p.events)
	slices.SortStableFunc(events, func(a, b corev1.Event) int { return eventTime(a).Compare(eventTime(b).Time) })
	if len(events) > maxEvents {
		events = events[len(events)-maxEvents:]
	}
	var rows [][]any
	for _, e := range events {
		at := eventTime(e)
		rows = append(rows, []any{since(&at, now), e.Type, e.Reason, strings.ReplaceAll(e.Message, "\n", " ")})
	}
	out.table("Events", columnsOf("AGE", "TYPE", "REASON", "MESSAGE"), rows)
}

// eventTime is the last time of an event; which field holds it depends on who wrote it.
func eventTime(e corev1.Event) metav1.Time {
	switch {
	case !e.LastTimestamp.IsZero():
		return e.LastTimestamp
	case e.Series != nil:
		return metav1.Time{Time: e.Series.LastObservedTime.Time}
	case !e.EventTime.IsZero():
		return metav1.Time{Time: e.EventTime.Time}
	}
	return e.CreationTimestamp
}

// pageWriter writes "Name:  value" lines and tables, leaves out what is empty, and keeps the first error.
type pageWriter struct {
	w   io.Writer
	err error
}

func (p *pageWriter) field(name, format string, args ...any) {
	if text := fmt.Sprintf(format, args...); text != "" && p.err == nil {
		_, p.err = fmt.Fprintf(p.w, "%-15s%s\n", name+":", text)
	}
}

func (p *pageWriter) table(title string, columns []metav1.TableColumnDefinition, rows [][]any) {
	if len(rows) > 0 {
		p.titled(title+":", columns, rows)
	}
}

// titled writes its title also where there is no row.
func (p *pageWriter) titled(title string, columns []metav1.TableColumnDefinition, rows [][]any) {
	p.line("\n%s", title)
	if len(rows) > 0 {
		p.rows(columns, rows)
	}
}

func (p *pageWriter) rows(columns []metav1.TableColumnDefinition, rows [][]any) {
	if p.err == nil {
		p.err = output{}.table(p.w, columns, rows)
	}
}

func (p *pageWriter) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", args...)
	}
}

func optional(format, value string) string {
	if value == "" {
		return ""
	}
	return fmt.Sprintf(format, value)
}

func deref[T any](p *T) T {
	if p == nil {
		return *new(T)
	}
	return *p
}

func clock(t metav1.Time) string { return t.UTC().Format(time.TimeOnly) }
