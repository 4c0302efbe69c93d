// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"fmt"
	"maps"
	"reflect"
	"slices"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	// maxPayload bounds the data of a Secret or a ConfigMap, in bytes.
	maxPayload = 1 << 20
	// eventSeconds is how long an Event is kept. A stock cluster keeps them for an hour; a host's way to Ready and its
	// night of failed retries should still be readable the next morning.
	eventSeconds = 24 * 3600
)

// nativeKinds are the kinds that cannot be served from a CustomResourceDefinition.
func nativeKinds() []nativeKind {
	core, coordination := corev1.SchemeGroupVersion, coordinationv1.SchemeGroupVersion
	return slices.Concat([]nativeKind{
		{
			version: core, kind: "Namespace", plural: "namespaces", singular: "namespace", short: []string{"ns"}, global: true,
			new:        func() runtime.Object { return &corev1.Namespace{} },
			newList:    func() runtime.Object { return &corev1.NamespaceList{} },
			rules:      rules{prepare: prepareNamespace, validate: validateNamespace},
			columns:    namespaceColumns,
			selectable: namespaceFields,
		},
		{
			version: core, kind: "Secret", plural: "secrets", singular: "secret",
			new:        func() runtime.Object { return &corev1.Secret{} },
			newList:    func() runtime.Object { return &corev1.SecretList{} },
			rules:      rules{prepare: prepareSecret, validate: validateSecret},
			columns:    secretColumns,
			selectable: secretFields,
		},
		{
			version: core, kind: "ConfigMap", plural: "configmaps", singular: "configmap", short: []string{"cm"},
			new:     func() runtime.Object { return &corev1.ConfigMap{} },
			newList: func() runtime.Object { return &corev1.ConfigMapList{} },
			rules:   rules{validate: validateConfigMap},
			columns: configMapColumns,
		},
		{
			version: core, kind: "Event", plural: "events", singular: "event", short: []string{"ev"},
			new:        func() runtime.Object { return &corev1.Event{} },
			newList:    func() runtime.Object { return &corev1.EventList{} },
			rules:      rules{validate: validateEvent, upsert: true},
			columns:    eventColumns,
			selectable: eventFields,
			ttlSeconds: eventSeconds,
		},
		{
			version: coordination, kind: "Lease", plural: "leases", singular: "lease",
			new:     func() runtime.Object { return &coordinationv1.Lease{} },
			newList: func() runtime.Object { return &coordinationv1.LeaseList{} },
			rules:   rules{validate: validateLease, upsert: true},
			columns: leaseColumns,
		},
	}, accessKinds(), flowKinds())
}

// prepareNamespace sets the phase, which no writer chooses, and the label by which selectors find a namespace by name.
func prepareNamespace(object, old runtime.Object) {
	namespace := object.(*corev1.Namespace)
	if namespace.Labels == nil {
		namespace.Labels = map[string]string{}
	}
	namespace.Labels[corev1.LabelMetadataName] = namespace.Name
	namespace.Status = corev1.NamespaceStatus{Phase: corev1.NamespaceActive}
	if old == nil {
		namespace.Spec = corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{corev1.FinalizerKubernetes}}
		return
	}
	was := old.(*corev1.Namespace)
	namespace.Spec = was.Spec
	namespace.Status.Conditions = was.Status.Conditions
	if was.DeletionTimestamp != nil {
		namespace.Status.Phase = corev1.NamespaceTerminating
	}
}

func validateNamespace(object, _ runtime.Object) field.ErrorList {
	return apivalidation.ValidateObjectMeta(&object.(*corev1.Namespace).ObjectMeta, false, apivalidation.ValidateNamespaceName, field.NewPath("metadata"))
}

func namespaceFields(object runtime.Object) fields.Set {
	return fields.Set{"status.phase": string(object.(*corev1.Namespace).Status.Phase)}
}

// prepareSecret does what decoding did already, for an object that an apply or a patch has put together since.
func prepareSecret(object, _ runtime.Object) { defaultSecret(object.(*corev1.Secret)) }

// defaultSecret names the type that is meant where none is given, and folds stringData, which is for writing only, into
// data. It runs when a Secret is decoded, so that the fields a writer is held to own are those that are stored.
func defaultSecret(secret *corev1.Secret) {
	if secret.Type == "" {
		secret.Type = corev1.SecretTypeOpaque
	}
	if len(secret.StringData) > 0 && secret.Data == nil {
		secret.Data = map[string][]byte{}
	}
	for key, value := range secret.StringData {
		secret.Data[key] = []byte(value)
	}
	secret.StringData = nil
}

func validateSecret(object, old runtime.Object) field.ErrorList {
	secret := object.(*corev1.Secret)
	sizes := map[string]int{}
	for key, value := range secret.Data {
		sizes[key] = len(value)
	}
	errs := validatePayload(&secret.ObjectMeta, sizes)
	if old == nil {
		return errs
	}
	was := old.(*corev1.Secret)
	errs = append(errs, apivalidation.ValidateImmutableField(secret.Type, was.Type, field.NewPath("type"))...)
	return append(errs, validateFrozen(was.Immutable, secret.Immutable, equality.Semantic.DeepEqual(was.Data, secret.Data))...)
}

func secretFields(object runtime.Object) fields.Set {
	return fields.Set{"type": string(object.(*corev1.Secret).Type)}
}

func validateConfigMap(object, old runtime.Object) field.ErrorList {
	config := object.(*corev1.ConfigMap)
	sizes := map[string]int{}
	for key, value := range config.BinaryData {
		sizes[key] = len(value)
	}
	var errs field.ErrorList
	for key, value := range config.Data {
		if _, ok := sizes[key]; ok {
			errs = append(errs, field.Invalid(field.NewPath("data").Key(key), key, "is in binaryData too"))
		}
		sizes[key] += len(value)
	}
	errs = append(errs, validatePayload(&config.ObjectMeta, sizes)...)
	if old == nil {
		return errs
	}
	was := old.(*corev1.ConfigMap)
	same := maps.Equal(was.Data, config.Data) && reflect.DeepEqual(was.BinaryData, config.BinaryData)
	return append(errs, validateFrozen(was.Immutable, config.Immutable, same)...)
}

// validatePayload checks the name, the keys and the size of a Secret or a ConfigMap.
func validatePayload(meta *metav1.ObjectMeta, sizes map[string]int) field.ErrorList {
	errs := apivalidation.ValidateObjectMeta(meta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	data, total := field.NewPath("data"), 0
	for key, size := range sizes {
		for _, msg := range validation.IsConfigMapKey(key) {
			errs = append(errs, field.Invalid(data.Key(key), key, msg))
		}
		total += size
	}
	if total > maxPayload {
		errs = append(errs, field.TooLong(data, "", maxPayload))
	}
	return errs
}

// validateFrozen holds an object to the promise of its immutable field.
func validateFrozen(was, is *bool, same bool) field.ErrorList {
	if was == nil || !*was {
		return nil
	}
	var errs field.ErrorList
	if is == nil || !*is {
		errs = append(errs, field.Forbidden(field.NewPath("immutable"), "cannot be taken back once it is true"))
	}
	if !same {
		errs = append(errs, field.Forbidden(field.NewPath("data"), "cannot change while immutable is true"))
	}
	return errs
}

func validateEvent(object, _ runtime.Object) field.ErrorList {
	event := object.(*corev1.Event)
	errs := apivalidation.ValidateObjectMeta(&event.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	about := event.InvolvedObject.Namespace
	// An object outside of namespaces has its Events in whichever namespace its writer chose.
	if about != "" && about != event.Namespace {
		errs = append(errs, field.Invalid(field.NewPath("involvedObject", "namespace"), about,
			fmt.Sprintf("differs from metadata.namespace %q", event.Namespace)))
	}
	return errs
}

func eventFields(object runtime.Object) fields.Set {
	event := object.(*corev1.Event)
	source := event.Source.Component
	if source == "" {
		source = event.ReportingController
	}
	return fields.Set{
		"involvedObject.kind":            event.InvolvedObject.Kind,
		"involvedObject.namespace":       event.InvolvedObject.Namespace,
		"involvedObject.name":            event.InvolvedObject.Name,
		"involvedObject.uid":             string(event.InvolvedObject.UID),
		"involvedObject.apiVersion":      event.InvolvedObject.APIVersion,
		"involvedObject.resourceVersion": event.InvolvedObject.ResourceVersion,
		"involvedObject.fieldPath":       event.InvolvedObject.FieldPath,
		"reason":                         event.Reason,
		"reportingComponent":             event.ReportingController,
		"source":                         source,
		"type":                           event.Type,
	}
}

func validateLease(object, _ runtime.Object) field.ErrorList {
	lease := object.(*coordinationv1.Lease)
	errs := apivalidation.ValidateObjectMeta(&lease.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	spec := field.NewPath("spec")
	if seconds := lease.Spec.LeaseDurationSeconds; seconds != nil && *seconds <= 0 {
		errs = append(errs, field.Invalid(spec.Child("leaseDurationSeconds"), *seconds, "must be greater than 0"))
	}
	if holder := lease.Spec.HolderIdentity; holder != nil && *holder == "" {
		errs = append(errs, field.Invalid(spec.Child("holderIdentity"), "", "must not be empty"))
	}
	if turns := lease.Spec.LeaseTransitions; turns != nil && *turns < 0 {
		errs = append(errs, field.Invalid(spec.Child("leaseTransitions"), *turns, "must not be negative"))
	}
	return errs
}
