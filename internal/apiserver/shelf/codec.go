// SPDX-License-Identifier: Apache-2.0

package shelf

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/storage"
)

// mark stands for the resource version while an object is encoded. Nobody can have put it into an object: it is made up anew
// for each process and never leaves it.
var mark = rand.Text()

// codec reads what the stock codec of a resource has written, converts, prunes and defaults as that does, and keeps the JSON.
type codec struct {
	stock      runtime.Codec
	newObject  func() runtime.Object
	attributes storage.AttrFunc
}

// Identifier implements runtime.Encoder.
func (c codec) Identifier() runtime.Identifier { return "metald/shelf" }

// Encode is there for the stock cache, which tries it on an empty object. Nothing is ever stored through this codec.
func (c codec) Encode(obj runtime.Object, w io.Writer) error {
	o, ok := obj.(*Object)
	if !ok {
		return fmt.Errorf("encoding a %T", obj)
	}
	if o.packed == nil {
		_, err := io.WriteString(w, "{}")
		return err
	}
	return o.write(w)
}

// Decode implements runtime.Decoder.
func (c codec) Decode(data []byte, _ *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	decoded, gvk, err := c.stock.Decode(data, nil, c.newObject())
	if err != nil {
		return nil, nil, err
	}
	o, ok := into.(*Object)
	if into == nil {
		o, ok = &Object{}, true
	}
	u, is := decoded.(*unstructured.Unstructured)
	if !ok || !is {
		return nil, nil, fmt.Errorf("decoding a %T into a %T", decoded, into)
	}
	return o, gvk, c.pack(u, o)
}

// pack makes o of u, which it changes.
func (c codec) pack(u *unstructured.Unstructured, o *Object) error {
	labels, fields, err := c.attributes(u)
	if err != nil {
		return err
	}
	u.SetResourceVersion(mark)
	var b bytes.Buffer
	if err := unstructured.UnstructuredJSONScheme.Encode(u, &b); err != nil {
		return err
	}
	place := bytes.Index(b.Bytes(), []byte(mark))
	if place < 0 {
		return fmt.Errorf("packing %s/%s: its JSON lacks the resource version", u.GetNamespace(), u.GetName())
	}
	p := &packed{version: place, labels: labels, fields: fields, group: u.GroupVersionKind().GroupVersion()}
	p.json = append(make([]byte, 0, b.Len()-len(mark)), b.Bytes()[:place]...)
	p.json = append(p.json, bytes.TrimSuffix(b.Bytes()[place+len(mark):], []byte{'\n'})...)
	*o = Object{packed: p, ObjectMeta: metav1.ObjectMeta{Name: u.GetName(), Namespace: u.GetNamespace(), UID: u.GetUID(), Labels: labels}}
	o.SetGroupVersionKind(u.GroupVersionKind())
	return nil
}

// encoder says what an encoder makes of an object.
type encoder int

const (
	other     encoder = iota
	plainJSON         // the JSON of this very version
	wrapping          // an event, which asks for the object's own encoding again
)

type encoderKey struct {
	id    runtime.Identifier
	group schema.GroupVersion
}

var encoders sync.Map // encoderKey -> encoder; there are as many as there are ways to ask

// encoderOf reads the identifiers that the API library gives its encoders, which are JSON. One that it does not know makes
// the object be decoded and encoded: slow, not wrong.
func encoderOf(id runtime.Identifier, group schema.GroupVersion) encoder {
	key := encoderKey{id, group}
	if known, ok := encoders.Load(key); ok {
		return known.(encoder)
	}
	e := readIdentifier(id, group)
	encoders.Store(key, e)
	return e
}

func readIdentifier(id runtime.Identifier, group schema.GroupVersion) encoder {
	var words struct{ Name, EncodeGV, Encoder string }
	if json.Unmarshal([]byte(id), &words) != nil {
		return other
	}
	if words.Name == "watch" {
		return wrapping
	}
	var inner struct{ Name, Pretty, Yaml string }
	if !strings.HasPrefix(words.Encoder, "{") || json.Unmarshal([]byte(words.Encoder), &inner) != nil {
		return other
	}
	if words.EncodeGV == group.String() && inner.Name == "json" && inner.Pretty == "false" && inner.Yaml == "false" {
		return plainJSON
	}
	return other
}
