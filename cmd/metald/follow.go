// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"golang.org/x/term"
)

const (
	// settle gathers changes that come together into one look; the mind writes a host and its progress one after the other.
	settle = 200 * time.Millisecond
	// rewatch is the pause before a watch that broke is opened again.
	rewatch = time.Second
)

// changes tells, until ctx ends, that some host may look different now. It never blocks the watches behind it.
func (d *door) changes(ctx context.Context, namespace string) <-chan struct{} {
	nudge := make(chan struct{}, 1)
	poke := func() {
		select {
		case nudge <- struct{}{}:
		default:
		}
	}
	watch := func(c *rest.RESTClient, resource string) {
		for ctx.Err() == nil {
			w, err := c.Get().Namespace(namespace).Resource(resource).
				VersionedParams(&metav1.ListOptions{Watch: true, AllowWatchBookmarks: true}, metav1.ParameterCodec).Watch(ctx)
			if err == nil {
				for range w.ResultChan() {
					poke()
				}
				w.Stop()
			}
			select {
			case <-ctx.Done():
			case <-time.After(rewatch):
				// What changed while nobody watched must be seen, and a daemon that is away must be told.
				poke()
			}
		}
	}
	go watch(d.metal3, "baremetalhosts")
	go watch(d.metald, "hostprogresses")
	go watch(d.metald, "nodepools") // which may be paused
	return nudge
}

// scope is the namespace to watch: hosts that were named may be in several.
func (o statusOptions) scope(d *door) string {
	if o.all || len(o.hosts) > 0 {
		return ""
	}
	return d.namespace
}

// await looks until all hosts are Ready or the time is over.
func (o statusOptions) await(ctx context.Context, d *door, out, errOut io.Writer) error {
	waiting, cancel := context.WithTimeout(ctx, o.wait)
	defer cancel()
	nudge := d.changes(waiting, o.scope(d))
	var last []hostView
	for {
		views, err := o.views(ctx, d)
		switch {
		case err != nil && (last == nil || ctx.Err() != nil):
			return err
		case err != nil:
			// A daemon that restarts in the middle is what waiting is for.
		case len(views) == 0:
			return errors.New("no hosts to wait for")
		case allReady(views):
			return o.print(out, views, time.Now())
		default:
			last = views
		}
		select {
		case <-nudge:
			pause(waiting, settle)
		case <-waiting.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err := o.print(out, last, time.Now()); err != nil {
				return err
			}
			fmt.Fprintf(errOut, "metald: not all are Ready after %s\n", o.wait)
			return codedError{exitNotReady, errTold}
		}
	}
}

func allReady(views []hostView) bool {
	for _, v := range views {
		if !v.Ready {
			return false
		}
	}
	return true
}

// follow shows until ctx ends: a person gets one table that is redrawn, a program one line a change. Once it has seen the hosts,
// it outlives a daemon that is away for a while.
func (o statusOptions) follow(ctx context.Context, d *door, out, errOut io.Writer) error {
	nudge := d.changes(ctx, o.scope(d))
	file, isFile := out.(*os.File)
	screen := isFile && term.IsTerminal(int(file.Fd())) && (o.output.format == "" || o.output.format == "wide")
	show, tick := func(views []hostView) error { return o.redraw(out, views) }, time.Second // durations go on
	if !screen {
		shown := map[string]string{}
		show, tick = func(views []hostView) error { return o.lines(out, views, shown) }, time.Minute
	}
	var away string // the last error, told once
	for first := true; ; first = false {
		views, err := o.views(ctx, d)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && first:
			return err
		case err != nil:
			if away != err.Error() {
				away = err.Error()
				fmt.Fprintln(errOut, "metald:", away)
			}
		default:
			away = ""
			if err := show(views); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-nudge:
			pause(ctx, settle)
		case <-time.After(tick):
		}
	}
}

func (o statusOptions) redraw(out io.Writer, views []hostView) error {
	var page bytes.Buffer
	if err := o.print(&page, views, time.Now()); err != nil {
		return err
	}
	// Home, then each line with its rest cleared, then all below: clearing first would flicker.
	text := bytes.ReplaceAll(page.Bytes(), []byte("\n"), []byte("\x1b[K\n"))
	_, err := fmt.Fprintf(out, "\x1b[H%s\x1b[J", text)
	return err
}

// lines prints each host whose line differs from the one before; times that only pass by are no difference.
func (o statusOptions) lines(out io.Writer, views []hostView, shown map[string]string) error {
	for _, v := range views {
		key := v.Metadata.Namespace + "/" + v.Metadata.Name
		line, err := o.line(v, key)
		if err != nil {
			return err
		}
		if shown[key] == line {
			continue
		}
		shown[key] = line
		if o.output.format != "json" {
			line = time.Now().UTC().Format(time.TimeOnly) + " " + line
		}
		if _, err := fmt.Fprintln(out, line); err != nil {
			return err
		}
	}
	return nil
}

func (o statusOptions) line(v hostView, key string) (string, error) {
	if o.output.format == "json" {
		data, err := json.Marshal(v)
		return string(data), err
	}
	line := fmt.Sprintf("%s power=%s state=%q", key, v.Power, v.stateText())
	if text := v.waitingText(); text != "" {
		line += fmt.Sprintf(" waits-for=%q", text)
	}
	if v.Error != "" {
		line += fmt.Sprintf(" error=%q", v.Error)
	}
	if v.Node != "" {
		line += fmt.Sprintf(" node=%q", v.nodeText())
	}
	return line, nil
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
