// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	listers "k8s.io/apiextensions-apiserver/pkg/client/listers/apiextensions/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// servedKind is a kind as the door serves it.
type servedKind struct {
	resource   schema.GroupResource
	version    string // one that is served
	namespaced bool
	custom     bool // served from a definition
}

func (k servedKind) at() schema.GroupVersionResource { return k.resource.WithVersion(k.version) }

// directory finds what is served under a kind or a resource. Definitions are asked each time, since users' kinds come and go.
type directory struct {
	definitions listers.CustomResourceDefinitionLister
}

// kind finds the resource that a reference means.
func (d directory) kind(group, kind string) (servedKind, bool, error) {
	return d.find(func(k servedKind, name string) bool { return k.resource.Group == group && name == kind })
}

// resource finds the kind that is stored under a resource's keys.
func (d directory) resource(resource schema.GroupResource) (servedKind, bool, error) {
	return d.find(func(k servedKind, _ string) bool { return k.resource == resource })
}

func (d directory) find(match func(k servedKind, name string) bool) (servedKind, bool, error) {
	definition := servedKind{
		resource: apiextensionsv1.Resource("customresourcedefinitions"), version: apiextensionsv1.SchemeGroupVersion.Version,
	}
	if match(definition, "CustomResourceDefinition") {
		return definition, true, nil
	}
	for _, n := range nativeKinds() {
		k := servedKind{
			resource: schema.GroupResource{Group: n.version.Group, Resource: n.plural}, version: n.version.Version, namespaced: !n.global,
		}
		if match(k, n.kind) {
			return k, true, nil
		}
	}
	all, err := d.definitions.List(labels.Everything())
	if err != nil {
		return servedKind{}, false, err
	}
	for _, definition := range all {
		k := servedKind{
			resource:   schema.GroupResource{Group: definition.Spec.Group, Resource: definition.Spec.Names.Plural},
			namespaced: definition.Spec.Scope == apiextensionsv1.NamespaceScoped, custom: true,
		}
		for _, version := range definition.Spec.Versions {
			if version.Served && (k.version == "" || version.Storage) {
				k.version = version.Name
			}
		}
		if k.version != "" && match(k, definition.Spec.Names.Kind) {
			return k, true, nil
		}
	}
	return servedKind{}, false, nil
}
