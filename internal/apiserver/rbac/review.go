// SPDX-License-Identifier: Apache-2.0

package rbac

import (
	"context"
	"errors"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
)

// Reviews are the kinds that are asked and never stored: `kubectl auth can-i` and `kubectl auth whoami`. They are answered by
// what also decides on requests, so an answer is as true as the next request.
func (a *Access) Reviews() map[schema.GroupVersion]map[string]rest.Storage {
	return map[schema.GroupVersion]map[string]rest.Storage{
		authorizationv1.SchemeGroupVersion: {
			"selfsubjectaccessreviews": review[*authorizationv1.SelfSubjectAccessReview]{
				singular: "selfsubjectaccessreview", answer: a.reviewSelf,
				new: func() *authorizationv1.SelfSubjectAccessReview { return &authorizationv1.SelfSubjectAccessReview{} }},
			"subjectaccessreviews": review[*authorizationv1.SubjectAccessReview]{
				singular: "subjectaccessreview", answer: a.reviewSubject,
				new: func() *authorizationv1.SubjectAccessReview { return &authorizationv1.SubjectAccessReview{} }},
			"localsubjectaccessreviews": review[*authorizationv1.LocalSubjectAccessReview]{
				singular: "localsubjectaccessreview", answer: a.reviewLocal, namespaced: true,
				new: func() *authorizationv1.LocalSubjectAccessReview { return &authorizationv1.LocalSubjectAccessReview{} }},
			"selfsubjectrulesreviews": review[*authorizationv1.SelfSubjectRulesReview]{
				singular: "selfsubjectrulesreview", answer: a.reviewRules,
				new: func() *authorizationv1.SelfSubjectRulesReview { return &authorizationv1.SelfSubjectRulesReview{} }},
		},
		authenticationv1.SchemeGroupVersion: {
			"selfsubjectreviews": review[*authenticationv1.SelfSubjectReview]{
				singular: "selfsubjectreview", answer: whoAmI,
				new: func() *authenticationv1.SelfSubjectReview { return &authenticationv1.SelfSubjectReview{} }},
		},
	}
}

// review is the storage of a kind that is only ever asked: answer fills in its status.
type review[T runtime.Object] struct {
	singular   string
	namespaced bool
	new        func() T
	answer     func(ctx context.Context, who user.Info, asked T) error
}

// New implements rest.Storage.
func (r review[T]) New() runtime.Object { return r.new() }

// Destroy implements rest.Storage.
func (review[T]) Destroy() {}

// NamespaceScoped implements rest.Scoper.
func (r review[T]) NamespaceScoped() bool { return r.namespaced }

// GetSingularName implements rest.SingularNameProvider.
func (r review[T]) GetSingularName() string { return r.singular }

// Create implements rest.Creater.
func (r review[T]) Create(ctx context.Context, object runtime.Object, validate rest.ValidateObjectFunc, _ *metav1.CreateOptions) (runtime.Object, error) {
	asked, ok := object.(T)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("a %s was expected", r.singular))
	}
	who, ok := request.UserFrom(ctx)
	if !ok {
		return nil, apierrors.NewInternalError(errors.New("nobody asks"))
	}
	if validate != nil {
		if err := validate(ctx, object.DeepCopyObject()); err != nil {
			return nil, err
		}
	}
	if err := r.answer(ctx, who, asked); err != nil {
		return nil, err
	}
	return asked, nil
}

func (a *Access) reviewSelf(ctx context.Context, who user.Info, asked *authorizationv1.SelfSubjectAccessReview) (err error) {
	asked.Status, err = a.decide(ctx, who, asked.Spec.ResourceAttributes, asked.Spec.NonResourceAttributes)
	return err
}

func (a *Access) reviewSubject(ctx context.Context, _ user.Info, asked *authorizationv1.SubjectAccessReview) error {
	about, err := subject(asked.Spec)
	if err != nil {
		return err
	}
	asked.Status, err = a.decide(ctx, about, asked.Spec.ResourceAttributes, asked.Spec.NonResourceAttributes)
	return err
}

// reviewLocal answers for one namespace only, so that it can be asked by who may ask in that namespace only.
func (a *Access) reviewLocal(ctx context.Context, _ user.Info, asked *authorizationv1.LocalSubjectAccessReview) error {
	about, err := subject(asked.Spec)
	if err != nil {
		return err
	}
	namespace := request.NamespaceValue(ctx)
	if asked.Spec.ResourceAttributes == nil || asked.Spec.ResourceAttributes.Namespace != namespace || asked.Namespace != namespace {
		return apierrors.NewBadRequest(fmt.Sprintf("spec.resourceAttributes.namespace: want %q, the namespace that is asked in", namespace))
	}
	asked.Status, err = a.decide(ctx, about, asked.Spec.ResourceAttributes, asked.Spec.NonResourceAttributes)
	return err
}

func (a *Access) reviewRules(ctx context.Context, who user.Info, asked *authorizationv1.SelfSubjectRulesReview) error {
	if asked.Spec.Namespace == "" {
		return apierrors.NewBadRequest("spec.namespace: name the namespace that is asked about")
	}
	rules, err := a.rules(ctx, who, asked.Spec.Namespace)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	asked.Status = authorizationv1.SubjectRulesReviewStatus{
		ResourceRules: []authorizationv1.ResourceRule{}, NonResourceRules: []authorizationv1.NonResourceRule{},
	}
	for _, rule := range rules {
		if len(rule.Resources) > 0 {
			asked.Status.ResourceRules = append(asked.Status.ResourceRules, authorizationv1.ResourceRule{
				Verbs: rule.Verbs, APIGroups: rule.APIGroups, Resources: rule.Resources, ResourceNames: rule.ResourceNames})
		}
		if len(rule.NonResourceURLs) > 0 {
			asked.Status.NonResourceRules = append(asked.Status.NonResourceRules, authorizationv1.NonResourceRule{
				Verbs: rule.Verbs, NonResourceURLs: rule.NonResourceURLs})
		}
	}
	return nil
}

func whoAmI(_ context.Context, who user.Info, asked *authenticationv1.SelfSubjectReview) error {
	asked.Status.UserInfo = authenticationv1.UserInfo{Username: who.GetName(), UID: who.GetUID(), Groups: who.GetGroups()}
	for key, values := range who.GetExtra() {
		if asked.Status.UserInfo.Extra == nil {
			asked.Status.UserInfo.Extra = map[string]authenticationv1.ExtraValue{}
		}
		asked.Status.UserInfo.Extra[key] = values
	}
	return nil
}

// subject is whom a review asks about.
func subject(spec authorizationv1.SubjectAccessReviewSpec) (user.Info, error) {
	if spec.User == "" && len(spec.Groups) == 0 {
		return nil, apierrors.NewBadRequest("spec: name a user or groups")
	}
	about := &user.DefaultInfo{Name: spec.User, UID: spec.UID, Groups: spec.Groups, Extra: map[string][]string{}}
	for key, values := range spec.Extra {
		about.Extra[key] = values
	}
	return about, nil
}

// decide answers a review. Selectors of the request are let be: no rule speaks of them, so they never change the answer.
func (a *Access) decide(ctx context.Context, who user.Info, resource *authorizationv1.ResourceAttributes, path *authorizationv1.NonResourceAttributes) (authorizationv1.SubjectAccessReviewStatus, error) {
	if (resource == nil) == (path == nil) {
		return authorizationv1.SubjectAccessReviewStatus{}, apierrors.NewBadRequest("spec: give either resourceAttributes or nonResourceAttributes")
	}
	asked := authorizer.AttributesRecord{User: who}
	if resource != nil {
		asked.ResourceRequest, asked.Verb, asked.Namespace = true, resource.Verb, resource.Namespace
		asked.APIGroup, asked.APIVersion, asked.Resource = resource.Group, resource.Version, resource.Resource
		asked.Subresource, asked.Name = resource.Subresource, resource.Name
	} else {
		asked.Verb, asked.Path = path.Verb, path.Path
	}
	decision, reason, err := a.Authorize(ctx, asked)
	status := authorizationv1.SubjectAccessReviewStatus{Allowed: decision == authorizer.DecisionAllow, Reason: reason}
	if err != nil {
		status.EvaluationError = err.Error()
	}
	return status, nil
}
