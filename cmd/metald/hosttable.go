// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/printers"

	"metald.io/metald/api/v1alpha1"
)

// output is how things are printed, with kubectl's words.
type output struct {
	format    string
	noHeaders bool
}

const outputHelp = "output: wide, json, yaml, name or jsonpath=TEMPLATE (default: a table)"

// printer is nil for the table formats.
func (o output) printer() (printers.ResourcePrinter, error) {
	switch name, template, _ := strings.Cut(o.format, "="); name {
	case "", "wide":
		return nil, nil
	case "json":
		return &printers.JSONPrinter{}, nil
	case "yaml":
		return &printers.YAMLPrinter{}, nil
	case "name":
		return &printers.NamePrinter{ShortOutput: true}, nil
	case "jsonpath":
		if template == "" {
			return nil, usageErrorf("-o jsonpath: want a template, as -o jsonpath='{.items[*].state}'")
		}
		p, err := printers.NewJSONPathPrinter(template)
		if err != nil {
			return nil, usageErrorf("-o jsonpath: %w", err)
		}
		p.AllowMissingKeys(true)
		return p, nil
	}
	return nil, usageErrorf("-o %s: want wide, json, yaml, name or jsonpath=TEMPLATE", o.format)
}

// table prints with kubectl's own table printer; columns of a priority above 0 are shown with -o wide only.
func (o output) table(w io.Writer, columns []metav1.TableColumnDefinition, rows [][]any) error {
	t := &metav1.Table{ColumnDefinitions: columns}
	for _, cells := range rows {
		for i, c := range cells {
			if c == "" {
				cells[i] = "-"
			}
		}
		t.Rows = append(t.Rows, metav1.TableRow{Cells: cells})
	}
	tabs := printers.GetNewTabWriter(w)
	p := printers.NewTablePrinter(printers.PrintOptions{NoHeaders: o.noHeaders, Wide: o.format == "wide"})
	if err := p.PrintObj(t, tabs); err != nil {
		return err
	}
	return tabs.Flush()
}

// columnsOf names columns; those after "|" are wide.
func columnsOf(names ...string) []metav1.TableColumnDefinition {
	var columns []metav1.TableColumnDefinition
	var priority int32
	for _, n := range names {
		if n == "|" {
			priority = 1
			continue
		}
		columns = append(columns, metav1.TableColumnDefinition{Name: n, Type: "string", Priority: priority})
	}
	return columns
}

func printViews(w io.Writer, o output, views []hostView, withNamespace bool, now time.Time) error {
	names := []string{"NAME", "BMC", "POWER", "STATE", "SINCE", "WAITING-FOR", "UNTIL", "NODE", "|", "BOOT-MAC", "IMAGE", "DISK", "POOL", "EPOCH", "ERROR"}
	if withNamespace {
		names = append([]string{"NAMESPACE"}, names...)
	}
	var rows [][]any
	for _, v := range views {
		waiting := cmp.Or(v.Step.text(), v.waitingText())
		if o.format != "wide" {
			waiting = shorten(waiting, maxWaiting)
		}
		cells := []any{v.Metadata.Name, bmcHost(v.BMC), v.Power, v.stateText(), since(v.Since, now), waiting,
			until(v.deadline(), now), v.nodeText(), v.BootMAC, v.Image, v.diskText(), v.Pool, fmt.Sprint(v.Epoch), v.Error}
		if withNamespace {
			cells = append([]any{v.Metadata.Namespace}, cells...)
		}
		rows = append(rows, cells)
	}
	return o.table(w, columnsOf(names...), rows)
}

// maxWaiting keeps the table in a terminal's width; -o wide and the host's own page tell all.
const maxWaiting = 56

func shorten(text string, most int) string {
	if letters := []rune(text); len(letters) > most {
		return string(letters[:most-3]) + "..."
	}
	return text
}

func (v hostView) stateText() string {
	text := cmp.Or(v.State, "new")
	if v.Paused {
		text += " (paused)"
	}
	return text
}

func (v hostView) waitingText() string {
	switch {
	case v.Waiting == nil && v.Stalled:
		return "(stalled)"
	case v.Waiting == nil:
		return ""
	case v.Stalled:
		return v.Waiting.For + " (stalled)"
	}
	return v.Waiting.For
}

func (v hostView) deadline() *metav1.Time {
	if v.Waiting == nil {
		return nil
	}
	return v.Waiting.Until
}

func (v hostView) nodeText() string {
	if v.Node != "" && !v.NodeReady {
		return v.Node + " (not ready)"
	}
	return v.Node
}

// bmcHost is the part of a BMC's address that a person looks for.
func bmcHost(address string) string {
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		return u.Host
	}
	return address
}

func short(d time.Duration) string { return duration.HumanDuration(d) }

// viewObjects turns views into what kubectl's printers take.
func viewObjects(views []hostView, single bool, format string) (runtime.Object, error) {
	if format == "name" {
		// A name is for feeding to kubectl, which knows BareMetalHosts.
		for i := range views {
			views[i].APIVersion, views[i].Kind = "metal3.io/v1alpha1", "BareMetalHost"
		}
	}
	return objects("HostStatusList", views, single)
}

// objects turns what a command shows into what kubectl's printers take: one object, or a list.
func objects[T any](kind string, items []T, single bool) (runtime.Object, error) {
	list := &unstructured.UnstructuredList{Object: map[string]any{"apiVersion": v1alpha1.GroupVersion.String(), "kind": kind}}
	for i := range items {
		object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&items[i])
		if err != nil {
			return nil, fmt.Errorf("printing item %d of a %s: %w", i+1, kind, err)
		}
		list.Items = append(list.Items, unstructured.Unstructured{Object: object})
	}
	if single && len(list.Items) == 1 {
		return &list.Items[0], nil
	}
	return list, nil
}
