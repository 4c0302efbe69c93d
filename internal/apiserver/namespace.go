// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"errors"
	"fmt"
	"slices"

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
	"k8s.io/apiserver/pkg/storage"
	storeerrors "k8s.io/apiserver/pkg/storage/errors"
	"k8s.io/apiserver/pkg/util/dryrun"
)

// keptNamespaces exist from the first start on and cannot be deleted.
var keptNamespaces = []string{"default", "kube-system", "metald"}

// namespaces serves Namespace. Deleting one marks it; the collector then empties it, and the last finalizer to go takes it away.
type namespaces struct {
	store *genericregistry.Store
}

var (
	_ rest.StandardStorage      = (*namespaces)(nil)
	_ rest.ShortNamesProvider   = (*namespaces)(nil)
	_ rest.StorageWithReadiness = (*namespaces)(nil)
)

// Delete implements rest.GracefulDeleter. The first time it only begins the end of the namespace; repeating it changes nothing.
func (n *namespaces) Delete(ctx context.Context, name string, validate rest.ValidateObjectFunc, options *metav1.DeleteOptions) (runtime.Object, bool, error) {
	resource := corev1.Resource("namespaces")
	if slices.Contains(keptNamespaces, name) {
		return nil, false, apierrors.NewForbidden(resource, name, fmt.Errorf("metald needs this namespace"))
	}
	if options == nil {
		options = metav1.NewDeleteOptions(0)
	}
	var preconditions storage.Preconditions
	if p := options.Preconditions; p != nil {
		preconditions = storage.Preconditions{UID: p.UID, ResourceVersion: p.ResourceVersion}
	}
	key, err := n.store.KeyFunc(ctx, name)
	if err != nil {
		return nil, false, err
	}
	out := n.store.New()
	err = n.store.Storage.GuaranteedUpdate(ctx, key, out, false, &preconditions, storage.SimpleUpdate(func(existing runtime.Object) (runtime.Object, error) {
		namespace := existing.(*corev1.Namespace)
		if err := validate(ctx, existing.DeepCopyObject()); err != nil {
			return nil, err
		}
		if namespace.DeletionTimestamp == nil {
			now := metav1.Now()
			namespace.DeletionTimestamp = &now
			if len(namespace.Spec.Finalizers) == 0 { // one that an earlier version made
				namespace.Spec.Finalizers = []corev1.FinalizerName{corev1.FinalizerKubernetes}
			}
		}
		namespace.Status.Phase = corev1.NamespaceTerminating
		return namespace, nil
	}), dryrun.IsDryRun(options.DryRun), nil)
	if err != nil {
		err = storeerrors.InterpretDeleteError(storeerrors.InterpretGetError(err, resource, name), resource, name)
		return nil, false, err
	}
	return out, false, nil
}

// part is a subresource of namespaces that keeps what prepare keeps.
func (n *namespaces) part(prepare func(object, old runtime.Object)) objectPart {
	return part(n.store, rules{prepare: prepare, validate: validateNamespace})
}

// subresources are /status, whose writer says what the end of a namespace waits for, and /finalize, which lets go of it.
func (n *namespaces) subresources() map[string]rest.Storage {
	return map[string]rest.Storage{
		"namespaces/status": n.part(func(object, old runtime.Object) {
			is, was := object.(*corev1.Namespace), old.(*corev1.Namespace)
			conditions := is.Status.Conditions
			keepNamespace(is, was)
			is.Status.Conditions = conditions
		}),
		"namespaces/finalize": n.part(func(object, old runtime.Object) {
			is, was := object.(*corev1.Namespace), old.(*corev1.Namespace)
			finalizers := is.Spec.Finalizers
			keepNamespace(is, was)
			is.Spec.Finalizers = finalizers
		}),
	}
}

// keepNamespace takes all from the namespace as it was but the version that its writer has seen.
func keepNamespace(is, was *corev1.Namespace) {
	version, managed := is.ResourceVersion, is.ManagedFields
	was.DeepCopyInto(is)
	is.ResourceVersion, is.ManagedFields = version, managed
}

// namespaceEmptied holds a namespace that is being deleted until nobody's finalizer is left in its spec.
func namespaceEmptied(_ context.Context, _ string, object, _ runtime.Object) bool {
	return len(object.(*corev1.Namespace).Spec.Finalizers) == 0
}

// DeleteCollection implements rest.CollectionDeleter by a refusal, as Kubernetes does: one word is not to end everything.
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
		refusal := admission.NewForbidden(attributes, fmt.Errorf("namespace %s is being deleted", name))
		var status *apierrors.StatusError
		if errors.As(refusal, &status) { // controllers look for this cause, and stop trying
			status.ErrStatus.Details.Causes = append(status.ErrStatus.Details.Causes, metav1.StatusCause{
				Type: corev1.NamespaceTerminatingCause, Message: "namespace " + name + " is being deleted", Field: "metadata.namespace",
			})
		}
		return refusal
	}
	return nil
}
