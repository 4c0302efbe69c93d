// SPDX-License-Identifier: Apache-2.0

// Package erase makes drives give back nothing of what they held, and leaves a record for each that an auditor can read:
// what did it, what was tried before, how it was checked. Each drive goes down a ladder, from what its own controller does
// (sanitize, format, secure erase) over discarding to writing zeros, and each rung counts only when reading the drive back
// shows that it worked. Several drives are erased at once, and one that is dead does not hold up the others.
//
// It must not know the daemon, nor why a host is erased: it is handed a plan and the drives that the machine has now. It
// never writes to a drive that the plan does not list.
//
// Start reading at Run, then ladder.go (one drive) and verify.go; nvme.go, ata.go and scsi.go speak to controllers, block.go
// is a drive of this machine.
package erase

import (
	"context"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
)

const (
	// atOnce is how many drives are erased at the same time.
	atOnce = 8
	// watchEvery is how often drives are looked after and progress is told.
	watchEvery = 2 * time.Second
	// leaveWithin is how long a drive may take to come to an end after it was told to stop.
	leaveWithin = 30 * time.Second
)

// Device is one drive that is open, and held by nobody else.
type Device interface {
	// Offsets, lengths and memory are aligned to 4096 bytes where the drive is; what is read comes from the drive and not
	// from a cache.
	io.ReaderAt
	io.WriterAt
	// Flush makes what was written durable, and forgets what is cached.
	Flush() error
	// Partitions are what the kernel saw on the drive when it was opened.
	Partitions() []Extent
	// Ladder is what the drive can do by itself, best first. It may wait for work that an earlier boot has left running.
	Ladder(ctx context.Context, p *Pulse) Ladder
	io.Closer
}

// Ladder is what a drive can do to be erased.
type Ladder struct {
	Methods []Method
	// Without is a line for each method that the drive has not.
	Without []string
}

// Method is one way to erase a drive.
type Method struct {
	// Name is one of those that v1alpha1.DriveErasure lists.
	Name string
	Do   func(ctx context.Context, p *Pulse) error
	// Whole says that it erases all that the drive's controller has, other namespaces too.
	Whole bool
	// Scrambles says that the drive may hold anything afterwards, but nothing of what it held; others leave zeros.
	Scrambles bool
}

// Options are what Run works with.
type Options struct {
	Plan v1alpha1.ErasePlan
	// Seen are the drives that the machine has now: facts.Read's Disks.
	Seen []v1alpha1.DiskFacts
	// Open opens a drive: Open of this package, on a real machine.
	Open func(v1alpha1.DiskFacts) (Device, error)
	// Progress is called every few seconds.
	Progress func(v1alpha1.StepProgress)
}

// Run erases the drives of a plan. It returns a record for each of them and for each drive that the plan does not list; its
// error names all that are not erased.
func Run(ctx context.Context, o Options) ([]v1alpha1.DriveErasure, error) {
	if o.Plan.Mode != v1alpha1.EraseFull && o.Plan.Mode != v1alpha1.EraseMetadata {
		return nil, fmt.Errorf("erasing drives: there is no mode %q", o.Plan.Mode)
	}
	drives, missing := match(o.Plan.Drives, o.Seen)
	r := &run{Options: o, drives: drives}
	r.all(ctx)
	var records []v1alpha1.DriveErasure
	for _, d := range drives {
		records = append(records, d.record)
	}
	records = append(records, missing...)
	if ctx.Err() != nil {
		return records, fmt.Errorf("erasing drives: %w", context.Cause(ctx))
	}
	return records, verdict(records)
}

// verdict is nil when all drives are erased, and names them where not.
func verdict(records []v1alpha1.DriveErasure) error {
	var bad []string
	for _, r := range records {
		if !r.OK {
			bad = append(bad, fmt.Sprintf("%s: %s", label(r.Name, r.SerialNumber), clip(r.Error, 120)))
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return fmt.Errorf("erasing drives: %d of %d are not erased: %s", len(bad), len(records), strings.Join(bad, "; "))
}

func label(name, serial string) string {
	if serial == "" {
		return name
	}
	return name + " (serial number " + serial + ")"
}

// run is one erase.
type run struct {
	Options
	drives []*drive
	mu     sync.Mutex // guards the drives' records
}

// all erases the drives, group by group, and tells how far they are.
func (r *run) all(ctx context.Context) {
	slots := make(chan struct{}, atOnce)
	var waiting sync.WaitGroup
	for _, group := range groups(r.drives) {
		waiting.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			r.watch(ctx, group)
		})
	}
	ended := make(chan struct{})
	go func() { waiting.Wait(); close(ended) }()
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return
		case <-tick.C:
			if r.Progress != nil {
				r.Progress(r.progress())
			}
		}
	}
}

// watch erases a group, and gives it up when it says nothing for too long: a drive that hangs in the kernel cannot be
// stopped, only left behind.
func (r *run) watch(ctx context.Context, group []*drive) {
	pulse := &Pulse{}
	pulse.Begin("opening")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer func() {
			if p := recover(); p != nil {
				r.abandon(group, fmt.Sprintf("panic: %v at %.512s", p, debug.Stack()))
			}
		}()
		for _, d := range group {
			d.pulse = pulse
		}
		r.work(ctx, group)
	}()
	stop := ctx.Done()
	for {
		select {
		case <-ended:
			return
		case <-stop:
			stop = nil
			pulse.Wait(leaveWithin)
		case <-time.After(watchEvery):
			if silent := pulse.Silent(); silent > 0 {
				doing, _, _ := pulse.Now()
				r.abandon(group, fmt.Sprintf("the drive gives no answer to %s for %s", doing, silent.Round(time.Second)))
				return
			}
		}
	}
}

// abandon closes the records of a group that have not ended. What its worker may say later is not heard.
func (r *run) abandon(group []*drive, why string) {
	for _, d := range group {
		r.end(d, v1alpha1.DriveErasure{}, fmt.Errorf("%s", why))
	}
}

// end writes how the erase of a drive ended, once.
func (r *run) end(d *drive, how v1alpha1.DriveErasure, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if d.record.Ended != nil {
		return
	}
	now := metav1.Now()
	d.record.Method, d.record.Verified, d.record.Tried, d.record.OK = how.Method, how.Verified, how.Tried, err == nil
	d.record.Ended = &now
	if err != nil {
		d.record.Method, d.record.Error = "", clip(err.Error(), 512)
	}
}

// progress is how far all drives are, in bytes of their sizes.
func (r *run) progress() v1alpha1.StepProgress {
	var p v1alpha1.StepProgress
	var doing []string
	over, work := 0, 0
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.drives {
		if !d.listed {
			continue
		}
		work++
		p.Total += d.facts.SizeBytes
		switch {
		case d.record.Ended != nil:
			over++
			p.Done += d.facts.SizeBytes
		case d.busy:
			what, done, total := d.pulse.Now()
			if total > 0 {
				p.Done += int64(float64(d.facts.SizeBytes) * min(1, float64(done)/float64(total)))
			}
			doing = append(doing, what+" of "+d.facts.Name)
		}
	}
	p.Doing = fmt.Sprintf("erasing drives, %d of %d done", over, work)
	if more := len(doing) - 3; more > 0 {
		doing = append(doing[:3], fmt.Sprintf("%d more", more))
	}
	if len(doing) > 0 {
		p.Doing += ": " + strings.Join(doing, ", ")
	}
	return p
}

// clip bounds a text that may come from firmware.
func clip(text string, most int) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return text
}
