// SPDX-License-Identifier: Apache-2.0

package crds

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"

	"metald.io/metald/api/v1alpha1"
)

// TestDefinitionsFollowTheTypes compares each field of each Go type with the definition that is served: one that a
// definition does not know would be pruned without a word. Where it fails, `go generate` mends it.
func TestDefinitionsFollowTheTypes(t *testing.T) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{metal3.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	files, err := All()
	if err != nil {
		t.Fatal(err)
	}
	described := map[schema.GroupVersionKind]bool{}
	for _, file := range files {
		definition, err := file.Parse()
		if err != nil {
			t.Fatal(err)
		}
		for _, version := range definition.Spec.Versions {
			kind := schema.GroupVersionKind{Group: definition.Spec.Group, Version: version.Name, Kind: definition.Spec.Names.Kind}
			described[kind] = true
			t.Run(kind.Kind, func(t *testing.T) {
				object, err := scheme.New(kind)
				if err != nil {
					t.Fatal(err)
				}
				want, got := map[string]string{}, map[string]string{}
				typeFields(reflect.TypeOf(object).Elem(), "", want)
				schemaFields(*version.Schema.OpenAPIV3Schema, "", got)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("fields (-Go type +%s):\n%s", file.Name, diff)
				}
			})
		}
	}
	for kind := range scheme.AllKnownTypes() {
		served := kind.Group == "metal3.io" || kind.Group == v1alpha1.GroupVersion.Group
		object, err := scheme.New(kind)
		if err != nil {
			t.Fatal(err)
		}
		if _, single := object.(metav1.Object); served && single && kind.Version != runtime.APIVersionInternal && !described[kind] {
			t.Errorf("%s has a Go type and no definition", kind)
		}
	}
}

// typeFields collects the JSON paths of a Go type, each with its JSON type.
func typeFields(t reflect.Type, path string, into map[string]string) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == reflect.TypeFor[metav1.ObjectMeta]():
		into[path] = "object"
		return
	case t == reflect.TypeFor[intstr.IntOrString]():
		into[path] = "int or string"
		return
	case t == reflect.TypeFor[runtime.RawExtension]():
		into[path] = "object"
		return
	case reflect.PointerTo(t).Implements(reflect.TypeFor[json.Marshaler]()):
		into[path] = "string" // times and durations
		return
	}
	switch t.Kind() {
	case reflect.Struct:
		into[path] = "object"
		for i := range t.NumField() {
			field := t.Field(i)
			name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
			switch {
			case name == "-":
			case name == "" && (field.Anonymous || strings.Contains(options, "inline")):
				typeFields(field.Type, path, into)
			default:
				typeFields(field.Type, path+"."+name, into)
			}
		}
	case reflect.Map:
		into[path] = "object"
		typeFields(t.Elem(), path+".*", into)
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			into[path] = "string"
			return
		}
		into[path] = "array"
		typeFields(t.Elem(), path+"[]", into)
	case reflect.String:
		into[path] = "string"
	case reflect.Bool:
		into[path] = "boolean"
	case reflect.Float32, reflect.Float64:
		into[path] = "number"
	default:
		into[path] = "integer"
	}
}

// schemaFields collects the same of a schema.
func schemaFields(s apiextensionsv1.JSONSchemaProps, path string, into map[string]string) {
	into[path] = s.Type
	if s.XIntOrString {
		into[path] = "int or string"
	}
	for name, property := range s.Properties {
		schemaFields(property, path+"."+name, into)
	}
	if s.AdditionalProperties != nil && s.AdditionalProperties.Schema != nil {
		schemaFields(*s.AdditionalProperties.Schema, path+".*", into)
	}
	if s.Items != nil && s.Items.Schema != nil {
		schemaFields(*s.Items.Schema, path+"[]", into)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"an unknown field": "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nspec: {groop: a}\n",
		"no YAML":          "\t",
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := (File{Name: "a.yaml", YAML: []byte(text)}).Parse(); err == nil || !strings.Contains(err.Error(), "a.yaml") {
				t.Errorf("got %v, %v; want an error that names the file", got, err)
			}
		})
	}
}
