// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"fmt"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
)

// columns is how `kubectl get` shows a compiled-in kind; what a column lists beyond the standard ones has priority 1.
type columns struct {
	heads []metav1.TableColumnDefinition
	cells func(runtime.Object) []any
}

func column(name, kind string, priority int32) metav1.TableColumnDefinition {
	format := ""
	if name == "Name" {
		format = "name"
	}
	return metav1.TableColumnDefinition{Name: name, Type: kind, Format: format, Priority: priority, Description: name + " of the object."}
}

var (
	namespaceColumns = columns{
		[]metav1.TableColumnDefinition{column("Name", "string", 0), column("Status", "string", 0), column("Age", "string", 0)},
		func(object runtime.Object) []any {
			namespace := object.(*corev1.Namespace)
			return []any{namespace.Name, string(namespace.Status.Phase), age(namespace.CreationTimestamp.Time)}
		},
	}
	secretColumns = columns{
		[]metav1.TableColumnDefinition{column("Name", "string", 0), column("Type", "string", 0), column("Data", "integer", 0), column("Age", "string", 0)},
		func(object runtime.Object) []any {
			secret := object.(*corev1.Secret)
			return []any{secret.Name, string(secret.Type), int64(len(secret.Data)), age(secret.CreationTimestamp.Time)}
		},
	}
	configMapColumns = columns{
		[]metav1.TableColumnDefinition{column("Name", "string", 0), column("Data", "integer", 0), column("Age", "string", 0)},
		func(object runtime.Object) []any {
			config := object.(*corev1.ConfigMap)
			return []any{config.Name, int64(len(config.Data) + len(config.BinaryData)), age(config.CreationTimestamp.Time)}
		},
	}
	eventColumns = columns{
		[]metav1.TableColumnDefinition{
			column("Last Seen", "string", 0), column("Type", "string", 0), column("Reason", "string", 0), column("Object", "string", 0),
			column("Source", "string", 1), column("Message", "string", 0), column("First Seen", "string", 1), column("Count", "integer", 1),
			column("Name", "string", 1),
		},
		eventCells,
	}
	leaseColumns = columns{
		[]metav1.TableColumnDefinition{column("Name", "string", 0), column("Holder", "string", 0), column("Age", "string", 0)},
		func(object runtime.Object) []any {
			lease := object.(*coordinationv1.Lease)
			holder := ""
			if lease.Spec.HolderIdentity != nil {
				holder = *lease.Spec.HolderIdentity
			}
			return []any{lease.Name, holder, age(lease.CreationTimestamp.Time)}
		},
	}
)

// eventCells knows both ways in which writers fill in an Event: the old one with a count and two times, the new one with
// a series.
func eventCells(object runtime.Object) []any {
	event := object.(*corev1.Event)
	first, last, count := event.FirstTimestamp.Time, event.LastTimestamp.Time, int64(event.Count)
	if first.IsZero() {
		first = event.EventTime.Time
	}
	if last.IsZero() {
		last = event.EventTime.Time
	}
	if event.Series != nil {
		last, count = event.Series.LastObservedTime.Time, int64(event.Series.Count)
	}
	source := event.Source.Component
	if source == "" {
		source = event.ReportingController
	}
	about := strings.ToLower(event.InvolvedObject.Kind) + "/" + event.InvolvedObject.Name
	return []any{age(last), event.Type, event.Reason, about, source, strings.TrimSpace(event.Message), age(first), max(count, 1), event.Name}
}

func age(t time.Time) string {
	if t.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(time.Since(t))
}

// ConvertToTable implements rest.TableConvertor.
func (c columns) ConvertToTable(_ context.Context, object, tableOptions runtime.Object) (*metav1.Table, error) {
	table := &metav1.Table{}
	row := func(object runtime.Object) error {
		table.Rows = append(table.Rows, metav1.TableRow{Cells: c.cells(object), Object: runtime.RawExtension{Object: object}})
		return nil
	}
	if meta.IsListType(object) {
		if err := meta.EachListItem(object, row); err != nil {
			return nil, fmt.Errorf("reading a list for its table: %w", err)
		}
		if list, err := meta.ListAccessor(object); err == nil {
			table.ResourceVersion, table.Continue, table.RemainingItemCount = list.GetResourceVersion(), list.GetContinue(), list.GetRemainingItemCount()
		}
	} else {
		if err := row(object); err != nil {
			return nil, err
		}
		if one, err := meta.CommonAccessor(object); err == nil {
			table.ResourceVersion = one.GetResourceVersion()
		}
	}
	if options, ok := tableOptions.(*metav1.TableOptions); !ok || !options.NoHeaders {
		table.ColumnDefinitions = c.heads
	}
	return table, nil
}
