// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utiljson "k8s.io/apimachinery/pkg/util/json"
)

// record is an object beside the bytes it was read from, so that what its Go type does not know outlives a write.
type record[T Object] struct {
	object T
	raw    []byte
	// same says that nothing was changed since.
	same bool
}

func (r *record[T]) GetObjectKind() schema.ObjectKind { return r.object.GetObjectKind() }

// GetObjectMeta makes the record an object to apimachinery's accessors.
func (r *record[T]) GetObjectMeta() metav1.Object { return r.object }

func (r *record[T]) DeepCopyObject() runtime.Object {
	return &record[T]{object: r.object.DeepCopyObject().(T), raw: r.raw, same: r.same}
}

// recordList is the stock store's list of records.
type recordList[T Object] struct {
	metav1.TypeMeta
	metav1.ListMeta
	Items []record[T]
}

func (l *recordList[T]) DeepCopyObject() runtime.Object {
	c := &recordList[T]{TypeMeta: l.TypeMeta, ListMeta: *l.ListMeta.DeepCopy()}
	for i := range l.Items {
		c.Items = append(c.Items, *l.Items[i].DeepCopyObject().(*record[T]))
	}
	return c
}

// codec writes the JSON that the users' door writes: a no-op apply of what the mind wrote must not be a change, nor the
// other way round.
type codec[T Object] struct {
	kind kind
	make func() T
}

// Identifier tells codecs apart to the stock store.
func (c codec[T]) Identifier() runtime.Identifier { return runtime.Identifier("metald/" + c.kind.kind) }

// Decode reads into a record, a new one where into is nil.
func (c codec[T]) Decode(data []byte, _ *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	object, err := c.read(data)
	if err != nil {
		return nil, nil, err
	}
	gvk := c.kind.group.WithKind(c.kind.kind)
	r, ok := into.(*record[T])
	if into == nil {
		r, ok = &record[T]{}, true
	}
	if !ok {
		return nil, nil, fmt.Errorf("decoding %s: into %T", c.kind.kind, into)
	}
	*r = record[T]{object: object, raw: data}
	return r, &gvk, nil
}

func (c codec[T]) read(data []byte) (T, error) {
	object := c.make()
	if err := json.Unmarshal(data, object); err != nil {
		return object, fmt.Errorf("decoding %s: %w", c.kind.kind, err)
	}
	if got := object.GetObjectKind().GroupVersionKind().Kind; got != c.kind.kind {
		return object, fmt.Errorf("decoding %s: stored kind is %q", c.kind.kind, got)
	}
	object.GetObjectKind().SetGroupVersionKind(c.kind.group.WithKind(c.kind.kind))
	return object, nil
}

// Encode writes a record. One that was read and not changed gives the very bytes it was read from.
func (c codec[T]) Encode(obj runtime.Object, w io.Writer) error {
	r, ok := obj.(*record[T])
	if !ok {
		return fmt.Errorf("encoding %s: got %T", c.kind.kind, obj)
	}
	data, err := c.encode(r)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", c.kind.kind, err)
	}
	_, err = w.Write(data)
	return err
}

func (c codec[T]) encode(r *record[T]) ([]byte, error) {
	if r.same && r.raw != nil {
		return r.raw, nil
	}
	r.object.GetObjectKind().SetGroupVersionKind(c.kind.group.WithKind(c.kind.kind))
	if !c.kind.custom {
		return line(r.object)
	}
	now, err := tree(r.object)
	if err != nil {
		return nil, err
	}
	if r.raw == nil {
		return line(now)
	}
	before, err := c.read(r.raw)
	if err != nil {
		return nil, err
	}
	was, err := tree(before)
	if err != nil {
		return nil, err
	}
	var stored map[string]any
	if err := utiljson.Unmarshal(r.raw, &stored); err != nil {
		return nil, err
	}
	return line(merge(stored, was, now))
}

// line is how apiserver's JSON serializer ends and escapes.
func line(v any) ([]byte, error) {
	var b bytes.Buffer
	err := json.NewEncoder(&b).Encode(v)
	return b.Bytes(), err
}

// tree is the JSON of an object as maps, without nulls: the door drops those as well.
func tree(v any) (map[string]any, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var m map[string]any
	if err := utiljson.Unmarshal(data, &m); err != nil {
		return nil, err
	}
	dropNulls(m)
	return m, nil
}

func dropNulls(v any) {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if value == nil {
				delete(v, key)
				continue
			}
			dropNulls(value)
		}
	case []any:
		for _, value := range v {
			dropNulls(value)
		}
	}
}

// merge returns now with what stored held and the Go type does not know: the keys that are neither in was nor in now. A
// list that was not changed stays as it was stored; one that was is taken from now as a whole.
func merge(stored, was, now map[string]any) map[string]any {
	merged := map[string]any{}
	for key, value := range stored {
		_, known := was[key]
		if _, kept := now[key]; !known && !kept && value != nil {
			merged[key] = value
		}
	}
	for key, value := range now {
		old, isStored := stored[key]
		before, isKnown := was[key]
		oldMap, a := old.(map[string]any)
		newMap, b := value.(map[string]any)
		beforeMap, _ := before.(map[string]any)
		switch {
		case a && b:
			merged[key] = merge(oldMap, beforeMap, newMap)
		case isStored && isKnown && old != nil && reflect.DeepEqual(before, value):
			merged[key] = old
		default:
			merged[key] = value
		}
	}
	return merged
}
