// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"fmt"
	"maps"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
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

	"metald.io/metald/internal/apiserver/collect"
	"metald.io/metald/internal/apiserver/rbac"
)

var (
	// nativeScheme has each compiled-in kind twice, under its version and as the library's internal version. Both are
	// the same Go type, so nothing is converted between them; but see nativeGroup.inner.
	nativeScheme = runtime.NewScheme()
	// servedScheme has the versions that a client may see, for documents that list them.
	servedScheme = runtime.NewScheme()
	nativeCodecs = serializer.NewCodecFactory(nativeScheme)
)

// nativeGroup is one version of an API group whose kinds are compiled in, with the Go types of its objects and lists.
type nativeGroup struct {
	version schema.GroupVersion
	types   []runtime.Object
	// inner are what stands for types inside of the server, where that is another group's: as which they are stored, too.
	inner []runtime.Object
}

// nativeGroups are in the order in which they are installed.
func nativeGroups() []nativeGroup {
	return []nativeGroup{
		{version: corev1.SchemeGroupVersion, types: []runtime.Object{
			&corev1.Namespace{}, &corev1.NamespaceList{},
			&corev1.Secret{}, &corev1.SecretList{},
			&corev1.ConfigMap{}, &corev1.ConfigMapList{},
			&corev1.Event{}, &corev1.EventList{},
		}},
		{
			version: eventsv1.SchemeGroupVersion, types: []runtime.Object{&eventsv1.Event{}, &eventsv1.EventList{}},
			inner: []runtime.Object{&corev1.Event{}, &corev1.EventList{}},
		},
		{version: coordinationv1.SchemeGroupVersion, types: []runtime.Object{&coordinationv1.Lease{}, &coordinationv1.LeaseList{}}},
		{version: rbacv1.SchemeGroupVersion, types: []runtime.Object{
			&rbacv1.Role{}, &rbacv1.RoleList{},
			&rbacv1.RoleBinding{}, &rbacv1.RoleBindingList{},
			&rbacv1.ClusterRole{}, &rbacv1.ClusterRoleList{},
			&rbacv1.ClusterRoleBinding{}, &rbacv1.ClusterRoleBindingList{},
		}},
		{version: authorizationv1.SchemeGroupVersion, types: []runtime.Object{
			&authorizationv1.SelfSubjectAccessReview{}, &authorizationv1.SubjectAccessReview{},
			&authorizationv1.LocalSubjectAccessReview{}, &authorizationv1.SelfSubjectRulesReview{},
		}},
		{version: authenticationv1.SchemeGroupVersion, types: []runtime.Object{&authenticationv1.SelfSubjectReview{}}},
		{version: flowcontrolv1.SchemeGroupVersion, types: []runtime.Object{
			&flowcontrolv1.FlowSchema{}, &flowcontrolv1.FlowSchemaList{},
			&flowcontrolv1.PriorityLevelConfiguration{}, &flowcontrolv1.PriorityLevelConfigurationList{},
		}},
	}
}

func init() {
	for _, group := range nativeGroups() {
		for _, scheme := range []*runtime.Scheme{nativeScheme, servedScheme} {
			scheme.AddKnownTypes(group.version, group.types...)
			metav1.AddToGroupVersion(scheme, group.version)
		}
		inner := group.types
		if group.inner != nil {
			inner = group.inner
		}
		nativeScheme.AddKnownTypes(internal(group.version), inner...)
		utilruntime.Must(nativeScheme.SetVersionPriority(group.version))
	}
	utilruntime.Must(addEventConversions(nativeScheme))
	nativeScheme.AddUnversionedTypes(corev1.SchemeGroupVersion,
		&metav1.Status{}, &metav1.APIVersions{}, &metav1.APIGroupList{}, &metav1.APIGroup{}, &metav1.APIResourceList{})
	nativeScheme.AddTypeDefaultingFunc(&corev1.Secret{}, func(object any) { defaultSecret(object.(*corev1.Secret)) })
	nativeScheme.AddTypeDefaultingFunc(&rbacv1.RoleBinding{}, func(object any) { rbac.DefaultRoleBinding(object.(*rbacv1.RoleBinding)) })
	nativeScheme.AddTypeDefaultingFunc(&rbacv1.ClusterRoleBinding{}, func(object any) { rbac.DefaultClusterRoleBinding(object.(*rbacv1.ClusterRoleBinding)) })
	nativeScheme.AddTypeDefaultingFunc(&flowcontrolv1.FlowSchema{}, func(object any) { defaultFlowSchema(object.(*flowcontrolv1.FlowSchema)) })
	nativeScheme.AddTypeDefaultingFunc(&flowcontrolv1.PriorityLevelConfiguration{}, func(object any) { defaultPriorityLevel(object.(*flowcontrolv1.PriorityLevelConfiguration)) })
	for _, kind := range nativeKinds() {
		if kind.selectable != nil {
			utilruntime.Must(nativeScheme.AddFieldLabelConversionFunc(kind.version.WithKind(kind.kind), kind.allowSelector))
		}
	}
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
	// status gives the kind a subresource /status: it takes all but the status from the object as it was.
	status func(object, old runtime.Object)
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

// installNative serves the compiled-in kinds, reviews what access may do, and returns the registry of namespaces.
func installNative(server *genericapiserver.GenericAPIServer, options *backend, access *rbac.Access) (*genericregistry.Store, error) {
	resources := access.Reviews()
	var namespaceStore *genericregistry.Store
	for _, kind := range nativeKinds() {
		store, err := kind.store(options)
		if err != nil {
			return nil, err
		}
		if resources[kind.version] == nil {
			resources[kind.version] = map[string]rest.Storage{}
		}
		switch {
		case kind.kind == "Namespace":
			namespaceStore = store
			store.ShouldDeleteDuringUpdate = namespaceEmptied
			registry := &namespaces{store: store}
			resources[kind.version][kind.plural] = registry
			maps.Copy(resources[kind.version], registry.subresources())
		case kind.version == rbacv1.SchemeGroupVersion:
			resources[kind.version][kind.plural] = access.Guard(store)
		case kind.kind == "Secret":
			resources[kind.version][kind.plural] = access.Secrets(store)
		default:
			resources[kind.version][kind.plural] = named{Store: store, short: kind.short}
		}
		if kind.kind == "Event" {
			resources[eventsv1.SchemeGroupVersion] = map[string]rest.Storage{kind.plural: named{Store: store, short: kind.short}}
		}
		if kind.status != nil {
			resources[kind.version][kind.plural+"/status"] = part(store, rules{prepare: kind.status, validate: kind.rules.validate})
		}
	}
	for _, group := range nativeGroups() {
		info := groupInfo(group.version, resources)
		install := server.InstallAPIGroup
		if group.version.Group == "" {
			install = func(info *genericapiserver.APIGroupInfo) error {
				return server.InstallLegacyAPIGroup(genericapiserver.DefaultLegacyAPIPrefix, info)
			}
		}
		if err := install(&info); err != nil {
			return nil, fmt.Errorf("installing %s: %w", group.version, err)
		}
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
	var versions []schema.GroupVersion
	for _, group := range nativeGroups() {
		if group.inner == nil {
			versions = append(versions, group.version)
		}
	}
	return nativeCodecs.LegacyCodec(versions...)
}

// collectedKinds are the kinds that the collector finds without a definition: those that are compiled in, and definitions.
func collectedKinds() []collect.Kind {
	kinds := []collect.Kind{{Resource: apiextensionsv1.Resource("customresourcedefinitions"),
		Version: apiextensionsv1.SchemeGroupVersion.Version, Kind: "CustomResourceDefinition"}}
	for _, k := range nativeKinds() {
		kinds = append(kinds, collect.Kind{Resource: schema.GroupResource{Group: k.version.Group, Resource: k.plural},
			Version: k.version.Version, Kind: k.kind, Namespaced: !k.global})
	}
	return kinds
}
