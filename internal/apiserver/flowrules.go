// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"fmt"
	"slices"
	"strings"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"
	"k8s.io/apiserver/pkg/util/shufflesharding"
)

// maxPrecedence is the precedence that is looked at last.
const maxPrecedence = 10_000

func validateFlowSchema(object, _ runtime.Object) field.ErrorList {
	schema := object.(*flowcontrolv1.FlowSchema)
	errs := apivalidation.ValidateObjectMeta(&schema.ObjectMeta, false, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	at := field.NewPath("spec")
	for _, kept := range bootstrap.MandatoryFlowSchemas {
		if kept.Name == schema.Name && !equality.Semantic.DeepEqual(kept.Spec, schema.Spec) {
			errs = append(errs, field.Forbidden(at, "cannot be changed: the server relies on it"))
		}
	}
	switch p := schema.Spec.MatchingPrecedence; {
	case p < 1 || p > maxPrecedence:
		errs = append(errs, field.Invalid(at.Child("matchingPrecedence"), p, fmt.Sprintf("must be from 1 to %d", maxPrecedence)))
	case p == 1 && schema.Name != flowcontrolv1.FlowSchemaNameExempt:
		errs = append(errs, field.Invalid(at.Child("matchingPrecedence"), p, "is that of the flow schema exempt"))
	}
	if schema.Spec.PriorityLevelConfiguration.Name == "" {
		errs = append(errs, field.Required(at.Child("priorityLevelConfiguration", "name"), "name a priority level"))
	}
	if method := schema.Spec.DistinguisherMethod; method != nil {
		errs = append(errs, oneOf(at.Child("distinguisherMethod", "type"), string(method.Type),
			string(flowcontrolv1.FlowDistinguisherMethodByUserType), string(flowcontrolv1.FlowDistinguisherMethodByNamespaceType))...)
	}
	for i, rule := range schema.Spec.Rules {
		errs = append(errs, validateFlowRule(at.Child("rules").Index(i), rule)...)
	}
	return errs
}

func validateFlowRule(at *field.Path, rule flowcontrolv1.PolicyRulesWithSubjects) field.ErrorList {
	var errs field.ErrorList
	if len(rule.Subjects) == 0 {
		errs = append(errs, field.Required(at.Child("subjects"), "a rule without subjects is about nobody"))
	}
	for i, subject := range rule.Subjects {
		errs = append(errs, validateFlowSubject(at.Child("subjects").Index(i), subject)...)
	}
	if len(rule.ResourceRules)+len(rule.NonResourceRules) == 0 {
		errs = append(errs, field.Required(at, "a rule is about resources or about paths"))
	}
	for i, r := range rule.ResourceRules {
		at := at.Child("resourceRules").Index(i)
		errs = append(errs, wordsOrStar(at.Child("verbs"), r.Verbs)...)
		errs = append(errs, wordsOrStar(at.Child("apiGroups"), r.APIGroups)...)
		errs = append(errs, wordsOrStar(at.Child("resources"), r.Resources)...)
		if len(r.Namespaces) > 0 || !r.ClusterScope {
			errs = append(errs, wordsOrStar(at.Child("namespaces"), r.Namespaces)...)
		}
	}
	for i, r := range rule.NonResourceRules {
		at := at.Child("nonResourceRules").Index(i)
		errs = append(errs, wordsOrStar(at.Child("verbs"), r.Verbs)...)
		errs = append(errs, wordsOrStar(at.Child("nonResourceURLs"), r.NonResourceURLs)...)
		for j, url := range r.NonResourceURLs {
			if url != flowcontrolv1.NonResourceAll && (!strings.HasPrefix(url, "/") || strings.Contains(strings.TrimSuffix(url, "/*"), "*")) {
				errs = append(errs, field.Invalid(at.Child("nonResourceURLs").Index(j), url, "must be *, a path, or a path that ends in /*"))
			}
		}
	}
	return errs
}

func validateFlowSubject(at *field.Path, subject flowcontrolv1.Subject) field.ErrorList {
	named := map[flowcontrolv1.SubjectKind]bool{
		flowcontrolv1.SubjectKindUser:           subject.User != nil && subject.User.Name != "",
		flowcontrolv1.SubjectKindGroup:          subject.Group != nil && subject.Group.Name != "",
		flowcontrolv1.SubjectKindServiceAccount: subject.ServiceAccount != nil && subject.ServiceAccount.Name != "" && subject.ServiceAccount.Namespace != "",
	}
	ok, known := named[subject.Kind]
	if !known {
		return oneOf(at.Child("kind"), string(subject.Kind), "User", "Group", "ServiceAccount")
	}
	count := 0
	for _, given := range []bool{subject.User != nil, subject.Group != nil, subject.ServiceAccount != nil} {
		if given {
			count++
		}
	}
	if !ok || count != 1 {
		return field.ErrorList{field.Invalid(at, subject, "must name what its kind says, and nothing else")}
	}
	return nil
}

// wordsOrStar holds a list to one * or to words without one.
func wordsOrStar(at *field.Path, words []string) field.ErrorList {
	if len(words) == 0 {
		return field.ErrorList{field.Required(at, "name at least one, or *")}
	}
	if len(words) > 1 && slices.Contains(words, "*") {
		return field.ErrorList{field.Invalid(at, words, "a * stands alone")}
	}
	return nil
}

func oneOf(at *field.Path, value string, words ...string) field.ErrorList {
	if slices.Contains(words, value) {
		return nil
	}
	return field.ErrorList{field.NotSupported(at, value, words)}
}

func validatePriorityLevel(object, _ runtime.Object) field.ErrorList {
	level := object.(*flowcontrolv1.PriorityLevelConfiguration)
	errs := apivalidation.ValidateObjectMeta(&level.ObjectMeta, false, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	at, spec := field.NewPath("spec"), level.Spec
	exempt := level.Name == flowcontrolv1.PriorityLevelConfigurationNameExempt
	for _, kept := range bootstrap.MandatoryPriorityLevelConfigurations {
		if kept.Name == level.Name && !exempt && !equality.Semantic.DeepEqual(kept.Spec, spec) {
			errs = append(errs, field.Forbidden(at, "cannot be changed: the server relies on it"))
		}
	}
	switch spec.Type {
	case flowcontrolv1.PriorityLevelEnablementExempt:
		if !exempt {
			errs = append(errs, field.Invalid(at.Child("type"), spec.Type, "is that of the priority level exempt"))
		}
		if spec.Limited != nil {
			errs = append(errs, field.Forbidden(at.Child("limited"), "an exempt level has no limit"))
		}
		if spec.Exempt != nil {
			errs = append(errs, shares(at.Child("exempt"), spec.Exempt.NominalConcurrencyShares, spec.Exempt.LendablePercent, nil, 0)...)
		}
	case flowcontrolv1.PriorityLevelEnablementLimited:
		if exempt {
			errs = append(errs, field.Invalid(at.Child("type"), spec.Type, "the priority level exempt has no limit"))
		}
		if spec.Exempt != nil {
			errs = append(errs, field.Forbidden(at.Child("exempt"), "a limited level is not exempt"))
		}
		errs = append(errs, validateLimited(at.Child("limited"), spec.Limited)...)
	default:
		errs = append(errs, oneOf(at.Child("type"), string(spec.Type), "Exempt", "Limited")...)
	}
	return errs
}

func shares(at *field.Path, nominal, lendable, borrowing *int32, least int32) field.ErrorList {
	var errs field.ErrorList
	if nominal != nil && *nominal < least {
		errs = append(errs, field.Invalid(at.Child("nominalConcurrencyShares"), *nominal, fmt.Sprintf("must be at least %d", least)))
	}
	if lendable != nil && (*lendable < 0 || *lendable > 100) {
		errs = append(errs, field.Invalid(at.Child("lendablePercent"), *lendable, "must be from 0 to 100"))
	}
	if borrowing != nil && *borrowing < 0 {
		errs = append(errs, field.Invalid(at.Child("borrowingLimitPercent"), *borrowing, "must not be negative"))
	}
	return errs
}

func validateLimited(at *field.Path, limited *flowcontrolv1.LimitedPriorityLevelConfiguration) field.ErrorList {
	if limited == nil {
		return field.ErrorList{field.Required(at, "a limited level has its limits here")}
	}
	errs := shares(at, limited.NominalConcurrencyShares, limited.LendablePercent, limited.BorrowingLimitPercent, 0)
	at = at.Child("limitResponse")
	q := limited.LimitResponse.Queuing
	switch limited.LimitResponse.Type {
	case flowcontrolv1.LimitResponseTypeReject:
		if q != nil {
			errs = append(errs, field.Forbidden(at.Child("queuing"), "who is rejected does not wait in a queue"))
		}
		return errs
	case flowcontrolv1.LimitResponseTypeQueue:
	default:
		return append(errs, oneOf(at.Child("type"), string(limited.LimitResponse.Type), "Queue", "Reject")...)
	}
	at = at.Child("queuing")
	if q == nil {
		return append(errs, field.Required(at, "say how many queues there are and how long they may be"))
	}
	for name, value := range map[string]int32{"queues": q.Queues, "handSize": q.HandSize, "queueLengthLimit": q.QueueLengthLimit} {
		if value <= 0 {
			errs = append(errs, field.Invalid(at.Child(name), value, "must be greater than 0"))
		}
	}
	if q.HandSize > q.Queues {
		errs = append(errs, field.Invalid(at.Child("handSize"), q.HandSize, "must not be greater than queues"))
	} else if bits := shufflesharding.RequiredEntropyBits(int(q.Queues), int(q.HandSize)); q.Queues > 0 && q.HandSize > 0 && bits > shufflesharding.MaxHashBits {
		errs = append(errs, field.Invalid(at.Child("handSize"), q.HandSize, fmt.Sprintf("with so many queues it takes %d bits of a hash: at most %d", bits, shufflesharding.MaxHashBits)))
	}
	return errs
}
