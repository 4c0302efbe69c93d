// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"fmt"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apiserver/pkg/registry/generic"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/storage"
)

var (
	// nativeScheme has each compiled-in kind twice, under its version and as the library's internal version. Both are
	// the same Go type, so nothing is converted between them.
	nativeScheme = runtime.NewScheme()
	// servedScheme has the versions that a client may see, for documents that list them.
	servedScheme = runtime.NewScheme()
	nativeCodecs = serializer.NewCodecFactory(nativeScheme)
)

func init() {
	for _, scheme := range []*runtime.Scheme{nativeScheme, servedScheme} {
		scheme.AddKnownTypes(corev1.SchemeGroupVersion, coreKinds()...)
		scheme.AddKnownTypes(coordinationv1.SchemeGroupVersion, coordinationKinds()...)
		metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion)
		metav1.AddToGroupVersion(scheme, coordinationv1.SchemeGroupVersion)
	}
	nativeScheme.AddKnownTypes(internal(corev1.SchemeGroupVersion), coreKinds()...)
	nativeScheme.AddKnownTypes(internal(coordinationv1.SchemeGroupVersion), coordinationKinds()...)
	nativeScheme.AddUnversionedTypes(corev1.SchemeGroupVersion,
		&metav1.Status{}, &metav1.APIVersions{}, &metav1.APIGroupList{}, &metav1.APIGroup{}, &metav1.APIResourceList{})
	utilruntime.Must(nativeScheme.SetVersionPriority(corev1.SchemeGroupVersion))
	utilruntime.Must(nativeScheme.SetVersionPriority(coordinationv1.SchemeGroupVersion))
	nativeScheme.AddTypeDefaultingFunc(&corev1.Secret{}, func(object any) { defaultSecret(object.(*corev1.Secret)) })
	for _, kind := range nativeKinds() {
		if kind.selectable != nil {
			utilruntime.Must(nativeScheme.AddFieldLabelConversionFunc(kind.version.WithKind(kind.kind), kind.allowSelector))
		}
	}
}

func coreKinds() []runtime.Object {
	return []runtime.Object{
		&corev1.Namespace{}, &corev1.NamespaceList{},
		&corev1.Secret{}, &corev1.SecretList{},
		&corev1.ConfigMap{}, &corev1.ConfigMapList{},
		&corev1.Event{}, &corev1.EventList{},
	}
}

func coordinationKinds() []runtime.Object {
	return []runtime.Object{&coordinationv1.Lease{}, &coordinationv1.LeaseList{}}
}

func internal(version schema.GroupVersion) schema.GroupVersion {
	return schema.GroupVersion{Group: version.Group, Version: runtime.APIVersionInternal}
}

// nativeKind is all that tells one compiled-in kind from another.
type nativeKind struct {
	version  schema.GroupVersion
	kind     string
	plural   string
	singular string
	short    []string
	global   bool // not in a namespace
	new      func() runtime.Object
	newList  func() runtime.Object
	rules    rules
	columns  columns
	// selectable gives the fields that a field selector may name, beside metadata.name and metadata.namespace.
	selectable func(runtime.Object) fields.Set
	// ttlSeconds is how long an object is kept after its last write; 0 is for ever.
	ttlSeconds uint64
}

// allowSelector says which field selectors this kind has.
func (k nativeKind) allowSelector(label, value string) (string, string, error) {
	if _, ok := k.selectable(k.new())[label]; ok || label == "metadata.name" || (label == "metadata.namespace" && !k.global) {
		return label, value, nil
	}
	return "", "", fmt.Errorf("%q is not a field that %s can be selected by", label, k.plural)
}

// store makes the registry of one compiled-in kind.
func (k nativeKind) store(options generic.RESTOptionsGetter) (*genericregistry.Store, error) {
	resource := schema.GroupResource{Group: k.version.Group, Resource: k.plural}
	strategy := newStrategy(!k.global, k.rules)
	store := &genericregistry.Store{
		NewFunc:                   k.new,
		NewListFunc:               k.newList,
		DefaultQualifiedResource:  resource,
		SingularQualifiedResource: schema.GroupResource{Group: k.version.Group, Resource: k.singular},
		CreateStrategy:            strategy,
		UpdateStrategy:            strategy,
		DeleteStrategy:            strategy,
		TableConvertor:            k.columns,
	}
	if k.ttlSeconds > 0 {
		store.TTLFunc = func(runtime.Object, uint64, bool) (uint64, error) { return k.ttlSeconds, nil }
	}
	storeOptions := &generic.StoreOptions{RESTOptions: options}
	if k.selectable != nil {
		storeOptions.AttrFunc = storage.DefaultClusterScopedAttr
		if !k.global {
			storeOptions.AttrFunc = storage.DefaultNamespaceScopedAttr
		}
		storeOptions.AttrFunc = storeOptions.AttrFunc.WithFieldMutation(func(object runtime.Object, set fields.Set) error {
			for field, value := range k.selectable(object) {
				set[field] = value
			}
			return nil
		})
	}
	if err := store.CompleteWithOptions(storeOptions); err != nil {
		return nil, fmt.Errorf("building the registry of %s: %w", k.plural, err)
	}
	return store, nil
}

// named adds short names to a registry.
type named struct {
	*genericregistry.Store
	short []string
}

var _ rest.ShortNamesProvider = named{}

// ShortNames implements rest.ShortNamesProvider.
func (n named) ShortNames() []string { return n.short }

// installNative serves the compiled-in kinds and returns the registry of namespaces.
func installNative(server *genericapiserver.GenericAPIServer, options *backend) (*genericregistry.Store, error) {
	resources := map[schema.GroupVersion]map[string]rest.Storage{}
	var namespaceStore *genericregistry.Store
	for _, kind := range nativeKinds() {
		store, err := kind.store(options)
		if err != nil {
			return nil, err
		}
		if resources[kind.version] == nil {
			resources[kind.version] = map[string]rest.Storage{}
		}
		if kind.kind == "Namespace" {
			namespaceStore = store
			resources[kind.version][kind.plural] = &namespaces{store: store, client: options.client}
			continue
		}
		resources[kind.version][kind.plural] = named{Store: store, short: kind.short}
	}
	core := groupInfo(corev1.SchemeGroupVersion, resources)
	if err := server.InstallLegacyAPIGroup(genericapiserver.DefaultLegacyAPIPrefix, &core); err != nil {
		return nil, fmt.Errorf("installing core/v1: %w", err)
	}
	coordination := groupInfo(coordinationv1.SchemeGroupVersion, resources)
	if err := server.InstallAPIGroup(&coordination); err != nil {
		return nil, fmt.Errorf("installing %s: %w", coordinationv1.SchemeGroupVersion, err)
	}
	return namespaceStore, nil
}

func groupInfo(version schema.GroupVersion, resources map[schema.GroupVersion]map[string]rest.Storage) genericapiserver.APIGroupInfo {
	info := genericapiserver.NewDefaultAPIGroupInfo(version.Group, nativeScheme, runtime.NewParameterCodec(nativeScheme), nativeCodecs)
	info.VersionedResourcesStorageMap[version.Version] = resources[version]
	return info
}

// nativeCodec stores compiled-in kinds as JSON of their version, as their Go types are encoded. The inventory's direct way
// writes the same bytes, so that an update which changes nothing is not a change either way.
func nativeCodec() runtime.Codec {
	return nativeCodecs.LegacyCodec(corev1.SchemeGroupVersion, coordinationv1.SchemeGroupVersion)
}
