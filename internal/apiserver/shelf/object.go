// SPDX-License-Identifier: Apache-2.0

package shelf

import (
	"bytes"
	"fmt"
	"io"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Object is one version of a custom resource. Of its metadata it holds what the watch cache asks for; all of it is in the
// JSON.
type Object struct {
	metav1.TypeMeta
	metav1.ObjectMeta
	*packed
}

// packed is what the copies of an Object share; nothing in it is changed.
type packed struct {
	// json is the object as it is served, without a line's end, but for the resource version, whose place is at version: the
	// store tells it after decoding, and an object that goes has another one than it had.
	json    []byte
	version int
	labels  labels.Set
	fields  fields.Set
	group   schema.GroupVersion
}

var (
	_ runtime.CacheableObject = (*Object)(nil)
	_ metav1.Object           = (*Object)(nil)
)

// DeepCopyObject implements runtime.Object.
func (o *Object) DeepCopyObject() runtime.Object {
	c := *o
	return &c
}

// write writes the JSON.
func (o *Object) write(w io.Writer) error {
	for _, part := range [][]byte{o.json[:o.version], []byte(o.ResourceVersion), o.json[o.version:]} {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	return nil
}

// size is the length of the JSON.
func (o *Object) size() int { return len(o.json) + len(o.ResourceVersion) }

// unpack makes the object that the stock store would have given.
func (o *Object) unpack(into *unstructured.Unstructured) error {
	var b bytes.Buffer
	b.Grow(o.size())
	if err := o.write(&b); err != nil {
		return err
	}
	if _, _, err := unstructured.UnstructuredJSONScheme.Decode(b.Bytes(), nil, into); err != nil {
		return fmt.Errorf("decoding %s/%s: %w", o.Namespace, o.Name, err)
	}
	return nil
}

// GetObject implements runtime.CacheableObject: it decodes.
func (o *Object) GetObject() runtime.Object {
	u := &unstructured.Unstructured{}
	if err := o.unpack(u); err != nil {
		panic(err) // it is what this process encoded
	}
	return u
}

// CacheEncode implements runtime.CacheableObject: an encoder of plain JSON is spared its work.
func (o *Object) CacheEncode(id runtime.Identifier, encode func(runtime.Object, io.Writer) error, w io.Writer) error {
	switch encoderOf(id, o.group) {
	case plainJSON:
		kept.WithLabelValues("watch").Inc()
		if err := o.write(w); err != nil {
			return err
		}
		_, err := w.Write([]byte{'\n'})
		return err
	case wrapping:
		return encode(o, w)
	}
	return encode(o.GetObject(), w)
}

// attributes is a storage.AttrFunc.
func attributes(obj runtime.Object) (labels.Set, fields.Set, error) {
	o, ok := obj.(*Object)
	if !ok || o.packed == nil {
		return nil, nil, fmt.Errorf("reading attributes of a %T", obj)
	}
	return o.labels, o.fields, nil
}

// list is a list of Objects as the stock store fills it.
type list struct {
	metav1.TypeMeta
	metav1.ListMeta
	Items []Object
}

// DeepCopyObject implements runtime.Object.
func (l *list) DeepCopyObject() runtime.Object {
	return &list{TypeMeta: l.TypeMeta, ListMeta: *l.ListMeta.DeepCopy(), Items: append([]Object(nil), l.Items...)}
}
