// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"strings"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

func TestRules(t *testing.T) {
	yes, zero, minus, empty := true, int32(0), int32(-1), ""
	meta := metav1.ObjectMeta{Namespace: "a", Name: "b"}
	secret := func(change func(*corev1.Secret)) *corev1.Secret {
		s := &corev1.Secret{ObjectMeta: meta, Type: corev1.SecretTypeOpaque, Data: map[string][]byte{"key": []byte("value")}}
		change(s)
		return s
	}
	config := func(change func(*corev1.ConfigMap)) *corev1.ConfigMap {
		c := &corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{"key": "value"}}
		change(c)
		return c
	}
	asIs := func(*corev1.Secret) {}
	for name, test := range map[string]struct {
		object, old runtime.Object
		want        string // in the refusal; "" accepts
	}{
		"a namespace":                      {&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, nil, ""},
		"a namespace with a dot":           {&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a.b"}}, nil, "metadata.name"},
		"a Secret":                         {secret(asIs), nil, ""},
		"a Secret with a bad name":         {secret(func(s *corev1.Secret) { s.Name = "A_B" }), nil, "metadata.name"},
		"a Secret with a bad key":          {secret(func(s *corev1.Secret) { s.Data["a b"] = nil }), nil, "data[a b]"},
		"a Secret that is too large":       {secret(func(s *corev1.Secret) { s.Data["key"] = make([]byte, maxPayload+1) }), nil, "data: Too long"},
		"a Secret of another type":         {secret(func(s *corev1.Secret) { s.Type = "other" }), secret(asIs), "type: Invalid"},
		"a frozen Secret as it was":        {secret(func(s *corev1.Secret) { s.Immutable = &yes }), secret(func(s *corev1.Secret) { s.Immutable = &yes }), ""},
		"a frozen Secret with other data":  {secret(func(s *corev1.Secret) { s.Immutable, s.Data = &yes, nil }), secret(func(s *corev1.Secret) { s.Immutable = &yes }), "data: Forbidden"},
		"a frozen Secret set free":         {secret(asIs), secret(func(s *corev1.Secret) { s.Immutable = &yes }), "immutable: Forbidden"},
		"a ConfigMap":                      {config(func(*corev1.ConfigMap) {}), nil, ""},
		"a ConfigMap with a key twice":     {config(func(c *corev1.ConfigMap) { c.BinaryData = map[string][]byte{"key": nil} }), nil, "is in binaryData too"},
		"a ConfigMap that is too large":    {config(func(c *corev1.ConfigMap) { c.Data["key"] = strings.Repeat("x", maxPayload+1) }), nil, "data: Too long"},
		"an Event":                         {&corev1.Event{ObjectMeta: meta, InvolvedObject: corev1.ObjectReference{Namespace: "a"}}, nil, ""},
		"an Event about a global object":   {&corev1.Event{ObjectMeta: meta}, nil, ""},
		"an Event about another namespace": {&corev1.Event{ObjectMeta: meta, InvolvedObject: corev1.ObjectReference{Namespace: "z"}}, nil, "involvedObject.namespace"},
		"a Lease":                          {&coordinationv1.Lease{ObjectMeta: meta}, nil, ""},
		"a Lease of no time":               {&coordinationv1.Lease{ObjectMeta: meta, Spec: coordinationv1.LeaseSpec{LeaseDurationSeconds: &zero}}, nil, "leaseDurationSeconds"},
		"a Lease of nobody":                {&coordinationv1.Lease{ObjectMeta: meta, Spec: coordinationv1.LeaseSpec{HolderIdentity: &empty}}, nil, "holderIdentity"},
		"a Lease that went backwards":      {&coordinationv1.Lease{ObjectMeta: meta, Spec: coordinationv1.LeaseSpec{LeaseTransitions: &minus}}, nil, "leaseTransitions"},
	} {
		t.Run(name, func(t *testing.T) {
			kind := kindOf(t, test.object)
			got := ""
			if errs := kind.rules.validate(test.object, test.old); len(errs) > 0 {
				got = errs.ToAggregate().Error()
			}
			if (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func kindOf(t *testing.T, object runtime.Object) nativeKind {
	t.Helper()
	kinds, _, err := servedScheme.ObjectKinds(object)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range nativeKinds() {
		if kind.version.WithKind(kind.kind) == kinds[0] {
			return kind
		}
	}
	t.Fatalf("%T is not compiled in", object)
	return nativeKind{}
}

func TestPreparedNamespace(t *testing.T) {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Status: corev1.NamespaceStatus{Phase: "Chosen"}}
	prepareNamespace(namespace, nil)
	if namespace.Status.Phase != corev1.NamespaceActive || namespace.Labels[corev1.LabelMetadataName] != "a" {
		t.Errorf("got phase %s, labels %v; want Active and its name as a label", namespace.Status.Phase, namespace.Labels)
	}
	now := metav1.Now()
	prepareNamespace(namespace, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &now}})
	if namespace.Status.Phase != corev1.NamespaceTerminating {
		t.Errorf("phase while it is being deleted: got %s, want Terminating", namespace.Status.Phase)
	}
}

// TestOpenAPIOfCompiledInKinds looks at what server-side apply and `kubectl explain` depend on.
func TestOpenAPIOfCompiledInKinds(t *testing.T) {
	definitions := openAPIDefinitions(func(name string) spec.Ref { return spec.MustCreateRef("#/" + name) })
	for name, definition := range definitions {
		for _, used := range definition.Dependencies {
			if _, ok := definitions[used]; !ok {
				t.Errorf("%s uses %s, which is not defined", name, used)
			}
		}
	}
	schema := func(name string) spec.Schema {
		t.Helper()
		definition, ok := definitions["io.k8s.api."+name]
		if !ok {
			t.Fatalf("%s is not defined", name)
		}
		return definition.Schema
	}
	secret := schema("core.v1.Secret")
	if got := secret.Properties["data"].AdditionalProperties.Schema.Format; got != "byte" {
		t.Errorf("a value of Secret.data has format %q, want byte", got)
	}
	metadata := secret.Properties["metadata"]
	if got := metadata.Ref.String(); !strings.HasSuffix(got, "meta.v1.ObjectMeta") {
		t.Errorf("Secret.metadata refers to %q, want ObjectMeta", got)
	}
	if secret.Description == "" || secret.Properties["data"].Description == "" {
		t.Error("Secret has no documentation")
	}
	if got := schema("core.v1.ObjectReference").Extensions["x-kubernetes-map-type"]; got != "atomic" {
		t.Errorf("ObjectReference is a map of type %v, want atomic", got)
	}
	conditions := schema("core.v1.NamespaceStatus").Properties["conditions"]
	if got := conditions.Extensions["x-kubernetes-list-type"]; got != "map" {
		t.Errorf("Namespace.status.conditions is a list of type %v, want map", got)
	}
	renewTime := schema("coordination.v1.LeaseSpec").Properties["renewTime"]
	if got := renewTime.Ref.String(); !strings.HasSuffix(got, "meta.v1.MicroTime") {
		t.Errorf("Lease.spec.renewTime refers to %q, want MicroTime", got)
	}
}
