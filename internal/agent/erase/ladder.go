// SPDX-License-Identifier: Apache-2.0

package erase

import (
	"context"
	"errors"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metald.io/metald/api/v1alpha1"
)

// Methods that every drive has.
const (
	overwriteMethod     = "overwrite"
	discardMethod       = "discard"
	secureDiscardMethod = "secure-discard"
	metadataMethod      = "metadata"
)

// open is a drive while it is erased.
type open struct {
	*drive
	device Device
	ladder Ladder
	where  []Extent
	before sample
	// used is the method that has erased it.
	used Method
}

// work erases a group of drives, one after the other. All are sampled first, since the first may take the others with it.
func (r *run) work(ctx context.Context, group []*drive) {
	var drives []*open
	foreign := false
	for _, d := range group {
		if !d.listed {
			foreign = true
			continue
		}
		o, err := r.open(ctx, d)
		if err != nil {
			r.end(d, v1alpha1.DriveErasure{}, err)
			continue
		}
		defer o.device.Close()
		drives = append(drives, o)
	}
	var before []*open // those that are erased
	for _, o := range drives {
		r.turn(o.drive, true)
		how, err := r.one(ctx, o, before, foreign)
		r.turn(o.drive, false)
		r.end(o.drive, how, err)
		if err == nil {
			before = append(before, o)
		}
	}
}

func (r *run) turn(d *drive, busy bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d.busy = busy
	if busy {
		d.record.Started = metav1.Now()
	}
}

// open opens a drive and reads a sample of what it holds.
func (r *run) open(ctx context.Context, d *drive) (*open, error) {
	d.pulse.Begin("opening")
	device, err := r.Open(d.facts)
	if err != nil {
		return nil, fmt.Errorf("opening the drive: %w", err)
	}
	o := &open{drive: d, device: device}
	if r.Plan.Mode == v1alpha1.EraseFull {
		o.ladder = device.Ladder(ctx, d.pulse)
		d.pulse.Begin("sampling")
		o.where = places(d.facts.SizeBytes, device.Partitions(), randomPlaces)
		o.before = take(device, o.where, d.pulse)
	}
	return o, nil
}

// one erases one drive, unless one of those before it has erased it too.
func (r *run) one(ctx context.Context, o *open, before []*open, foreign bool) (how v1alpha1.DriveErasure, err error) {
	if r.Plan.Mode == v1alpha1.EraseMetadata {
		return metadata(ctx, o)
	}
	for _, b := range before {
		if !b.used.Whole && !twin(b.facts, o.facts) {
			continue
		}
		text, err := o.verify(b.used)
		if err == nil {
			o.used = b.used
			how.Method, how.Verified = b.used.Name, fmt.Sprintf("%s; erased together with %s", text, b.facts.Name)
			return how, nil
		}
		how.Tried = append(how.Tried, clip(fmt.Sprintf("erased together with %s: %v", b.facts.Name, err), 200))
	}
	return descend(ctx, o, foreign, how)
}

// descend tries one method after the other, until one has worked and reading the drive back shows it.
func descend(ctx context.Context, o *open, foreign bool, how v1alpha1.DriveErasure) (v1alpha1.DriveErasure, error) {
	for _, line := range o.ladder.Without {
		how.Tried = append(how.Tried, clip(line, 200))
	}
	methods := append(slices.Clone(o.ladder.Methods), Method{Name: overwriteMethod, Do: o.overwrite})
	var last error
	for _, m := range methods {
		if ctx.Err() != nil {
			return how, context.Cause(ctx)
		}
		text, err := "", error(nil)
		if m.Whole && foreign {
			err = errors.New("it would erase a namespace that is not listed, too")
		} else {
			o.pulse.Begin(m.Name)
			err = m.Do(ctx, o.pulse)
		}
		if err == nil {
			if text, err = o.verify(m); err != nil {
				err = fmt.Errorf("it reported success, but %w", err)
			}
		}
		if err == nil {
			o.used = m
			how.Method, how.Verified = m.Name, text
			return how, nil
		}
		last = fmt.Errorf("%s: %w", m.Name, err)
		how.Tried = append(how.Tried, clip(last.Error(), 200))
	}
	return how, last
}

// verify reads the drive back after a method.
func (o *open) verify(m Method) (string, error) {
	o.pulse.Begin("verifying " + m.Name)
	if err := o.device.Flush(); err != nil {
		return "", fmt.Errorf("flushing: %w", err)
	}
	where := o.where
	if m.Name == discardMethod || m.Name == secureDiscardMethod {
		where = places(o.facts.SizeBytes, o.device.Partitions(), discardPlaces)
	}
	return verify(o.device, where, o.before, m.Scrambles, o.pulse)
}
