// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"metald.io/metald/api/v1alpha1"
)

// secret makes a host's Secret hold the row's credentials.
func (e *enrolment) secret(ctx context.Context, r hostRow) (outcome, error) {
	what, err := e.compareSecret(ctx, r)
	if apierrors.IsForbidden(err) {
		what, err = e.writeSecret(ctx, r) // an operator writes passwords and does not read them
	}
	if err != nil {
		return "", fmt.Errorf("writing Secret %s: %w", r.secretName(), err)
	}
	return what, nil
}

// compareSecret writes what differs.
func (e *enrolment) compareSecret(ctx context.Context, r hostRow) (outcome, error) {
	var have corev1.Secret
	err := e.door.core.Get().Namespace(r.namespace).Resource("secrets").Name(r.secretName()).Do(ctx).Into(&have)
	if apierrors.IsNotFound(err) {
		return e.createSecret(ctx, r)
	}
	if err != nil {
		return "", err
	}
	patch := tree{}
	for k, v := range r.credentials() {
		if string(have.Data[k]) != string(v) {
			patch.put(v, "data", k)
		}
	}
	patch.putMissing(have.Labels, credentialsLabels, "metadata", "labels")
	if len(patch) == 0 {
		return unchanged, nil
	}
	_, err = e.patchSecret(ctx, r, patch, e.patchOptions())
	return updated, err
}

// writeSecret writes all of it without having read it. The server stores nothing where nothing differs, and the version it
// answers with tells. A dry run keeps the version, so it cannot tell.
func (e *enrolment) writeSecret(ctx context.Context, r hostRow) (outcome, error) {
	before, err := e.patchSecret(ctx, r, tree{}, &metav1.PatchOptions{DryRun: dryRunValue(true), FieldManager: fieldManager})
	if apierrors.IsNotFound(err) {
		return e.createSecret(ctx, r)
	}
	if err != nil {
		return "", err
	}
	patch := tree{}
	for k, v := range r.credentials() {
		patch.put(v, "data", k)
	}
	patch.putMissing(nil, credentialsLabels, "metadata", "labels")
	after, err := e.patchSecret(ctx, r, patch, e.patchOptions())
	if err != nil {
		return "", err
	}
	e.uncompared = e.uncompared || e.dryRun
	if after == before {
		return unchanged, nil
	}
	return updated, nil
}

var credentialsLabels = map[string]string{v1alpha1.CredentialsLabel: v1alpha1.CredentialsLabelValue}

func (r hostRow) credentials() map[string][]byte {
	return map[string][]byte{"username": []byte(r.username), "password": []byte(r.Password.Reveal())}
}

func (e *enrolment) createSecret(ctx context.Context, r hostRow) (outcome, error) {
	secret := &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: r.secretName(), Labels: credentialsLabels},
		Type:       corev1.SecretTypeOpaque,
		Data:       r.credentials(),
	}
	return created, e.door.core.Post().Namespace(r.namespace).Resource("secrets").VersionedParams(e.createOptions(), metav1.ParameterCodec).Body(secret).Do(ctx).Error()
}

// patchSecret returns the version that the Secret has then.
func (e *enrolment) patchSecret(ctx context.Context, r hostRow, patch tree, options *metav1.PatchOptions) (version string, err error) {
	body, err := json.Marshal(patch)
	if err != nil {
		return "", err
	}
	var is corev1.Secret
	err = e.door.core.Patch(types.MergePatchType).Namespace(r.namespace).Resource("secrets").Name(r.secretName()).
		VersionedParams(options, metav1.ParameterCodec).Body(body).Do(ctx).Into(&is)
	return is.ResourceVersion, err
}
