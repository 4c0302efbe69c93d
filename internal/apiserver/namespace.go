// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/admission"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
)

// keptNamespaces exist from the first start on and cannot be deleted.
var keptNamespaces = []string{"default", "kube-system", "metald"}

// expendable resources do not keep a namespace: what they say is about objects that are gone.
var expendable = []string{resourcePrefix(corev1.Resource("events"))}

// namespaces serves Namespace. A namespace that still holds anything is not deleted: emptying it for the caller, as a
// cluster does, would let go of every machine in it by one word.
type namespaces struct {
	store  *genericregistry.Store
	client *kubernetes.Client
}

var (
	_ rest.StandardStorage      = (*namespaces)(nil)
	_ rest.ShortNamesProvider   = (*namespaces)(nil)
	_ rest.StorageWithReadiness = (*namespaces)(nil)
)

// Delete implements rest.GracefulDeleter.
func (n *namespaces) Delete(ctx context.Context, name string, validate rest.ValidateObjectFunc, options *metav1.DeleteOptions) (runtime.Object, bool, error) {
	resource := corev1.Resource("namespaces")
	if slices.Contains(keptNamespaces, name) {
		return nil, false, apierrors.NewForbidden(resource, name, fmt.Errorf("metald needs this namespace"))
	}
	if _, err := n.store.Get(ctx, name, &metav1.GetOptions{}); err != nil {
		return nil, false, err
	}
	held, err := n.contents(ctx, name)
	if err != nil {
		return nil, false, apierrors.NewInternalError(err)
	}
	if len(held) > 0 {
		return nil, false, apierrors.NewConflict(resource, name, fmt.Errorf("it still holds %s: delete them first", strings.Join(held, ", ")))
	}
	return n.store.Delete(ctx, name, validate, options)
}

// contents counts what lies in a namespace, as "3 baremetalhosts.metal3.io". It reads keys and no values: a key with a
// namespace has one segment more than a key without.
func (n *namespaces) contents(ctx context.Context, namespace string) ([]string, error) {
	found, err := n.client.KV.Get(ctx, storagePrefix+"/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return nil, fmt.Errorf("listing the keys of namespace %s: %w", namespace, err)
	}
	counts := map[string]int{}
	for _, pair := range found.Kvs {
		parts := strings.Split(strings.TrimPrefix(string(pair.Key), storagePrefix+"/"), "/")
		if len(parts) != 4 || parts[2] != namespace || slices.Contains(expendable, parts[0]+"/"+parts[1]) {
			continue
		}
		kind := parts[1]
		if parts[0] != coreGroup {
			kind += "." + parts[0]
		}
		counts[kind]++
	}
	var held []string
	for _, kind := range slices.Sorted(maps.Keys(counts)) {
		held = append(held, fmt.Sprintf("%d %s", counts[kind], kind))
	}
	return held, nil
}

// DeleteCollection implements rest.CollectionDeleter by a refusal: see namespaces.
func (n *namespaces) DeleteCollection(context.Context, rest.ValidateObjectFunc, *metav1.DeleteOptions, *metainternalversion.ListOptions) (runtime.Object, error) {
	return nil, apierrors.NewMethodNotSupported(corev1.Resource("namespaces"), "deletecollection")
}

// The rest is the stock registry's.

func (n *namespaces) New() runtime.Object                    { return n.store.New() }
func (n *namespaces) NewList() runtime.Object                { return n.store.NewList() }
func (n *namespaces) Destroy()                               { n.store.Destroy() }
func (n *namespaces) NamespaceScoped() bool                  { return n.store.NamespaceScoped() }
func (n *namespaces) GetSingularName() string                { return n.store.GetSingularName() }
func (n *namespaces) ShortNames() []string                   { return []string{"ns"} }
func (n *namespaces) ReadinessCheck() error                  { return n.store.ReadinessCheck() }
func (n *namespaces) StorageVersion() runtime.GroupVersioner { return n.store.StorageVersion() }

func (n *namespaces) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	return n.store.Get(ctx, name, options)
}

func (n *namespaces) List(ctx context.Context, options *metainternalversion.ListOptions) (runtime.Object, error) {
	return n.store.List(ctx, options)
}

func (n *namespaces) Watch(ctx context.Context, options *metainternalversion.ListOptions) (watch.Interface, error) {
	return n.store.Watch(ctx, options)
}

func (n *namespaces) Create(ctx context.Context, object runtime.Object, validate rest.ValidateObjectFunc, options *metav1.CreateOptions) (runtime.Object, error) {
	return n.store.Create(ctx, object, validate, options)
}

func (n *namespaces) Update(ctx context.Context, name string, object rest.UpdatedObjectInfo, create rest.ValidateObjectFunc, update rest.ValidateObjectUpdateFunc, force bool, options *metav1.UpdateOptions) (runtime.Object, bool, error) {
	return n.store.Update(ctx, name, object, create, update, force, options)
}

func (n *namespaces) ConvertToTable(ctx context.Context, object, options runtime.Object) (*metav1.Table, error) {
	return n.store.ConvertToTable(ctx, object, options)
}

// lifecycle refuses to create an object in a namespace that does not exist or is being deleted.
type lifecycle struct {
	// namespaces is set once the registry of namespaces is built, before anything is served.
	namespaces rest.Getter
}

var _ admission.ValidationInterface = (*lifecycle)(nil)

// Handles implements admission.Interface.
func (*lifecycle) Handles(operation admission.Operation) bool { return operation == admission.Create }

// Validate implements admission.ValidationInterface.
func (l *lifecycle) Validate(ctx context.Context, attributes admission.Attributes, _ admission.ObjectInterfaces) error {
	name := attributes.GetNamespace()
	if name == "" || attributes.GetKind().GroupKind() == (schema.GroupKind{Kind: "Namespace"}) {
		return nil
	}
	object, err := l.namespaces.Get(ctx, name, &metav1.GetOptions{})
	if apierrors.IsNotFound(err) { // the registry's error names the resource of the request instead
		return apierrors.NewNotFound(corev1.Resource("namespaces"), name)
	}
	if err != nil {
		return err
	}
	if namespace := object.(*corev1.Namespace); namespace.DeletionTimestamp != nil {
		return admission.NewForbidden(attributes, fmt.Errorf("namespace %s is being deleted", name))
	}
	return nil
}
