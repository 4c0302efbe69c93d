// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"bytes"
	"context"
	"fmt"
	"reflect"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// manager is the field manager of a write whose context names no other.
const manager = "metald"

type managerKey struct{}

// As returns a context whose writes are recorded under another field manager than "metald", for instance
// v1alpha1.PoolFieldManager. Users see it in managedFields and in the conflicts of a server-side apply.
func As(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, managerKey{}, name)
}

func managerOf(ctx context.Context) string {
	if name, ok := ctx.Value(managerKey{}).(string); ok {
		return name
	}
	return manager
}

// own records in managedFields that the writer set what differs between before and after, as apiserver does for an update.
// Status is left out: nobody but metald writes it. Lists count as one field.
func own(ctx context.Context, object metav1.Object, apiVersion string, before, after map[string]any, now time.Time) error {
	set, gone := fieldpath.NewSet(), fieldpath.NewSet()
	compareFields(nil, owned(before), owned(after), set, gone)
	if set.Empty() && gone.Empty() {
		return nil
	}
	entries := slices.Clone(object.GetManagedFields())
	mine := -1
	for i := range entries {
		e := &entries[i]
		if e.Manager == managerOf(ctx) && e.Operation == metav1.ManagedFieldsOperationUpdate && e.Subresource == "" && e.APIVersion == apiVersion {
			mine = i
			continue
		}
		if e.Subresource != "" || e.FieldsV1 == nil {
			continue
		}
		fields, err := fieldsOf(e)
		if err != nil {
			return err
		}
		if err := putFields(e, fields.Difference(set).Difference(gone)); err != nil {
			return err
		}
	}
	if mine < 0 {
		entries = append(entries, metav1.ManagedFieldsEntry{
			Manager: managerOf(ctx), Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: apiVersion, FieldsType: "FieldsV1",
		})
		mine = len(entries) - 1
	}
	fields, err := fieldsOf(&entries[mine])
	if err != nil {
		return err
	}
	if err := putFields(&entries[mine], fields.Union(set).Difference(gone)); err != nil {
		return err
	}
	at := metav1.NewTime(now)
	entries[mine].Time = &at
	entries = slices.DeleteFunc(entries, func(e metav1.ManagedFieldsEntry) bool {
		return e.FieldsV1 != nil && bytes.Equal(e.FieldsV1.GetRawBytes(), []byte("{}"))
	})
	object.SetManagedFields(entries)
	return nil
}

func fieldsOf(e *metav1.ManagedFieldsEntry) (*fieldpath.Set, error) {
	set := fieldpath.NewSet()
	if e.FieldsV1 == nil {
		return set, nil
	}
	if err := set.FromJSON(bytes.NewReader(e.FieldsV1.GetRawBytes())); err != nil {
		return nil, fmt.Errorf("reading the fields of %s: %w", e.Manager, err)
	}
	return set, nil
}

func putFields(e *metav1.ManagedFieldsEntry, set *fieldpath.Set) error {
	data, err := set.ToJSON()
	if err != nil {
		return fmt.Errorf("writing the fields of %s: %w", e.Manager, err)
	}
	e.FieldsV1 = &metav1.FieldsV1{}
	e.FieldsV1.SetRawBytes(data)
	return nil
}

// owned leaves the fields that a manager can own: not the type, not what only the store sets, not the status.
func owned(object map[string]any) map[string]any {
	fields := map[string]any{}
	for key, value := range object {
		switch key {
		case "apiVersion", "kind", "status":
		case "metadata":
			meta := map[string]any{}
			all, _ := value.(map[string]any)
			for _, name := range []string{"labels", "annotations", "finalizers", "ownerReferences"} {
				if v, ok := all[name]; ok {
					meta[name] = v
				}
			}
			fields[key] = meta
		default:
			fields[key] = value
		}
	}
	return fields
}

// compareFields puts the leaves of after that are new or other than before into set, and those that are no more into gone.
func compareFields(at fieldpath.Path, before, after map[string]any, set, gone *fieldpath.Set) {
	path := func(name string) fieldpath.Path {
		return append(slices.Clone(at), fieldpath.PathElement{FieldName: &name})
	}
	for name, value := range after {
		was, there := before[name]
		valueMap, isMap := value.(map[string]any)
		wasMap, _ := was.(map[string]any)
		switch {
		case isMap && len(valueMap) > 0:
			compareFields(path(name), wasMap, valueMap, set, gone)
		case !there || !reflect.DeepEqual(was, value):
			set.Insert(path(name))
		}
	}
	for name, was := range before {
		if _, still := after[name]; still {
			continue
		}
		if wasMap, isMap := was.(map[string]any); isMap && len(wasMap) > 0 {
			compareFields(path(name), wasMap, nil, set, gone)
			continue
		}
		gone.Insert(path(name))
	}
}
