// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apiserver/pkg/admission"

	"metald.io/metald/internal/apiserver/metal3"
)

// metal3Rules refuses what Metal3's webhooks would. It runs after the schema has been checked, and leaves alone a status and
// an object that is on its way out, which must be able to lose its finalizers whatever it says.
type metal3Rules struct{}

var _ admission.ValidationInterface = metal3Rules{}

// Handles implements admission.Interface.
func (metal3Rules) Handles(operation admission.Operation) bool {
	return operation == admission.Create || operation == admission.Update
}

// Validate implements admission.ValidationInterface.
func (metal3Rules) Validate(_ context.Context, attributes admission.Attributes, _ admission.ObjectInterfaces) error {
	kind := attributes.GetKind().GroupKind()
	if kind.Group != metal3.Group || attributes.GetSubresource() != "" {
		return nil
	}
	object, ok := attributes.GetObject().(*unstructured.Unstructured)
	if !ok || object.GetDeletionTimestamp() != nil {
		return nil
	}
	var was map[string]any
	if old, ok := attributes.GetOldObject().(*unstructured.Unstructured); ok && attributes.GetOperation() == admission.Update {
		was = old.Object
	}
	errs, err := metal3.Check(kind.Kind, object.Object, was)
	if err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	if len(errs) > 0 {
		return apierrors.NewInvalid(kind, object.GetName(), errs)
	}
	return nil
}
