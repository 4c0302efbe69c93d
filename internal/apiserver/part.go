// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
)

// objectPart serves a subresource of a compiled-in kind: a PUT of it changes one part of the object and nothing else.
type objectPart struct {
	store *genericregistry.Store
}

var (
	_ rest.Updater = objectPart{}
	_ rest.Getter  = objectPart{}
)

// part is a subresource of the objects of store, which are not in namespaces; rules say what a writer of it may not change.
func part(store *genericregistry.Store, rules rules) objectPart {
	of := *store
	of.UpdateStrategy = newStrategy(false, rules)
	return objectPart{&of}
}

func (p objectPart) New() runtime.Object { return p.store.New() }
func (objectPart) Destroy()              {} // the registry itself does it

// Get implements rest.Getter.
func (p objectPart) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	return p.store.Get(ctx, name, options)
}

// Update implements rest.Updater.
func (p objectPart) Update(ctx context.Context, name string, object rest.UpdatedObjectInfo, create rest.ValidateObjectFunc, update rest.ValidateObjectUpdateFunc, _ bool, options *metav1.UpdateOptions) (runtime.Object, bool, error) {
	return p.store.Update(ctx, name, object, create, update, false, options)
}
