// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"fmt"
	"maps"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsopenapi "k8s.io/apiextensions-apiserver/pkg/generated/openapi"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// openAPIDefinitions describes the compiled-in kinds, for server-side apply, `kubectl explain` and clients that check
// before they send. The library ships such descriptions for the meta types only, so those of the kinds
// are read off the Go types: their fields, tags and their own documentation.
func openAPIDefinitions(ref common.ReferenceCallback) map[string]common.OpenAPIDefinition {
	definitions := apiextensionsopenapi.GetOpenAPIDefinitions(ref)
	d := describer{ref: ref, definitions: map[string]common.OpenAPIDefinition{}}
	for _, group := range nativeGroups() {
		for _, kind := range group.types {
			d.describe(reflect.TypeOf(kind).Elem())
		}
	}
	maps.Copy(definitions, d.definitions)
	return definitions
}

// modelNamer is what generated Go types of the API have to tell their name in OpenAPI.
type modelNamer interface{ OpenAPIModelName() string }

// swaggerDoc is what generated Go types of the API have to document their fields, by JSON name; "" is the type itself.
type swaggerDoc interface{ SwaggerDoc() map[string]string }

// atomicTypes are replaced as a whole by an apply; their Go types say so in a comment only.
var atomicTypes = map[reflect.Type]bool{
	reflect.TypeFor[corev1.ObjectReference](): true,
	reflect.TypeFor[rbacv1.RoleRef]():         true,
	reflect.TypeFor[rbacv1.Subject]():         true,
}

// describer collects the definitions of Go types and of the types they use.
type describer struct {
	ref         common.ReferenceCallback
	definitions map[string]common.OpenAPIDefinition
}

// describe adds the definition of a struct type unless it is there.
func (d *describer) describe(t reflect.Type) string {
	name := reflect.New(t).Interface().(modelNamer).OpenAPIModelName()
	if _, ok := d.definitions[name]; ok || !strings.HasPrefix(t.PkgPath(), "k8s.io/api/") {
		return name
	}
	d.definitions[name] = common.OpenAPIDefinition{} // a type may hold itself
	schema := spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"object"}, Properties: map[string]spec.Schema{}}}
	docs := documentation(t)
	schema.Description = docs[""]
	if atomicTypes[t] {
		schema.AddExtension("x-kubernetes-map-type", "atomic")
	}
	uses := map[string]bool{}
	d.fields(t, docs, &schema, uses)
	definition := common.OpenAPIDefinition{Schema: schema}
	for used := range uses {
		definition.Dependencies = append(definition.Dependencies, used)
	}
	d.definitions[name] = definition
	return name
}

// fields adds a property for each field of a struct, and those of structs embedded in it.
func (d *describer) fields(t reflect.Type, docs map[string]string, into *spec.Schema, uses map[string]bool) {
	for i := range t.NumField() {
		field := t.Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "-" {
			continue
		}
		if name == "" && field.Anonymous {
			d.fields(field.Type, documentation(field.Type), into, uses)
			continue
		}
		property := d.property(field.Type, uses)
		if merge := field.Tag.Get("patchMergeKey"); merge != "" {
			property.AddExtension("x-kubernetes-list-type", "map")
			property.AddExtension("x-kubernetes-list-map-keys", []any{merge})
			property.AddExtension("x-kubernetes-patch-merge-key", merge)
			property.AddExtension("x-kubernetes-patch-strategy", "merge")
		} else if len(property.Type) == 1 && property.Type[0] == "array" && name != "items" {
			property.AddExtension("x-kubernetes-list-type", "atomic")
		}
		property.Description = docs[name]
		into.Properties[name] = property
		if !strings.Contains(options, "omitempty") && field.Type.Kind() != reflect.Pointer {
			into.Required = append(into.Required, name)
		}
	}
}

// property is the schema of one field's type.
func (d *describer) property(t reflect.Type, uses map[string]bool) spec.Schema {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.String:
		return *spec.StringProperty()
	case reflect.Bool:
		return *spec.BooleanProperty()
	case reflect.Int32:
		return *spec.Int32Property()
	case reflect.Int64:
		return *spec.Int64Property()
	case reflect.Map:
		value := d.property(t.Elem(), uses)
		return *spec.MapProperty(&value)
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return *spec.StrFmtProperty("byte")
		}
		item := d.property(t.Elem(), uses)
		return *spec.ArrayProperty(&item)
	case reflect.Struct:
		name := d.describe(t)
		uses[name] = true
		return spec.Schema{SchemaProps: spec.SchemaProps{Ref: d.ref(name)}}
	}
	panic(fmt.Sprintf("no OpenAPI type for %s", t)) // only a new compiled-in kind can bring one
}

func documentation(t reflect.Type) map[string]string {
	if documented, ok := reflect.New(t).Interface().(swaggerDoc); ok {
		return documented.SwaggerDoc()
	}
	return metav1.TypeMeta{}.SwaggerDoc()
}
