// SPDX-License-Identifier: Apache-2.0

package collect

import (
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	listers "k8s.io/apiextensions-apiserver/pkg/client/listers/apiextensions/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Kind is a kind as the door serves it.
type Kind struct {
	Resource   schema.GroupResource
	Version    string // one that is served
	Kind       string
	Namespaced bool
	custom     bool // served from a definition
}

func (k Kind) at() schema.GroupVersionResource { return k.Resource.WithVersion(k.Version) }

// directory finds what is served under a kind or a resource. Definitions are asked each time, since users' kinds come and go.
type directory struct {
	native      []Kind
	definitions listers.CustomResourceDefinitionLister
}

// kind finds the resource that a reference means.
func (d directory) kind(group, kind string) (Kind, bool, error) {
	return d.find(func(k Kind) bool { return k.Resource.Group == group && k.Kind == kind })
}

// resource finds the kind that is stored under a resource's keys.
func (d directory) resource(resource schema.GroupResource) (Kind, bool, error) {
	return d.find(func(k Kind) bool { return k.Resource == resource })
}

func (d directory) find(match func(k Kind) bool) (Kind, bool, error) {
	for _, k := range d.native {
		if match(k) {
			return k, true, nil
		}
	}
	all, err := d.definitions.List(labels.Everything())
	if err != nil {
		return Kind{}, false, err
	}
	for _, definition := range all {
		k := Kind{
			Resource:   schema.GroupResource{Group: definition.Spec.Group, Resource: definition.Spec.Names.Plural},
			Kind:       definition.Spec.Names.Kind,
			Namespaced: definition.Spec.Scope == apiextensionsv1.NamespaceScoped, custom: true,
		}
		for _, version := range definition.Spec.Versions {
			if version.Served && (k.Version == "" || version.Storage) {
				k.Version = version.Name
			}
		}
		if k.Version != "" && match(k) {
			return k, true, nil
		}
	}
	return Kind{}, false, nil
}
