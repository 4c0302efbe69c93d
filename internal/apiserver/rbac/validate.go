// SPDX-License-Identifier: Apache-2.0

package rbac

import (
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// PrepareRoleBinding fills in what an apply or a patch has put together since it was decoded.
func PrepareRoleBinding(object, _ runtime.Object) { DefaultRoleBinding(object.(*rbacv1.RoleBinding)) }

// PrepareClusterRoleBinding does the same.
func PrepareClusterRoleBinding(object, _ runtime.Object) {
	DefaultClusterRoleBinding(object.(*rbacv1.ClusterRoleBinding))
}

// DefaultRoleBinding fills in the API groups that `kubectl` leaves out.
func DefaultRoleBinding(binding *rbacv1.RoleBinding) {
	defaultReference(&binding.RoleRef, binding.Subjects)
}

// DefaultClusterRoleBinding does the same.
func DefaultClusterRoleBinding(binding *rbacv1.ClusterRoleBinding) {
	defaultReference(&binding.RoleRef, binding.Subjects)
}

func defaultReference(role *rbacv1.RoleRef, subjects []rbacv1.Subject) {
	if role.APIGroup == "" {
		role.APIGroup = rbacv1.GroupName
	}
	for i := range subjects {
		if subject := &subjects[i]; subject.APIGroup == "" && subject.Kind != rbacv1.ServiceAccountKind {
			subject.APIGroup = rbacv1.GroupName
		}
	}
}

// validateName lets names have colons, as in metald:viewer, and whatever else a path segment may hold.
func validateName(meta *metav1.ObjectMeta, namespaced bool) field.ErrorList {
	return apivalidation.ValidateObjectMeta(meta, namespaced, isPathSegment, field.NewPath("metadata"))
}

// isPathSegment says what keeps a name from being one segment of a path, as an apivalidation.ValidateNameFunc.
func isPathSegment(name string, _ bool) (problems []string) {
	if name == "." || name == ".." {
		problems = append(problems, fmt.Sprintf("must not be %q", name))
	}
	if strings.ContainsAny(name, "/%") {
		problems = append(problems, `must not hold "/" or "%"`)
	}
	return problems
}

// ValidateRole checks a Role.
func ValidateRole(object, _ runtime.Object) field.ErrorList {
	role := object.(*rbacv1.Role)
	return append(validateName(&role.ObjectMeta, true), validateRules(role.Rules, true)...)
}

// ValidateClusterRole checks a ClusterRole.
func ValidateClusterRole(object, _ runtime.Object) field.ErrorList {
	role := object.(*rbacv1.ClusterRole)
	errs := append(validateName(&role.ObjectMeta, false), validateRules(role.Rules, false)...)
	if role.AggregationRule == nil {
		return errs
	}
	selectors := field.NewPath("aggregationRule", "clusterRoleSelectors")
	if len(role.AggregationRule.ClusterRoleSelectors) == 0 {
		errs = append(errs, field.Required(selectors, "name the roles that this one is made of"))
	}
	for i := range role.AggregationRule.ClusterRoleSelectors {
		errs = append(errs, metavalidation.ValidateLabelSelector(&role.AggregationRule.ClusterRoleSelectors[i],
			metavalidation.LabelSelectorValidationOptions{}, selectors.Index(i))...)
	}
	return errs
}

func validateRules(list []rbacv1.PolicyRule, namespaced bool) field.ErrorList {
	var errs field.ErrorList
	for i, rule := range list {
		at := field.NewPath("rules").Index(i)
		if len(rule.Verbs) == 0 {
			errs = append(errs, field.Required(at.Child("verbs"), "a rule without verbs grants nothing"))
		}
		if len(rule.NonResourceURLs) > 0 {
			if namespaced {
				errs = append(errs, field.Invalid(at.Child("nonResourceURLs"), rule.NonResourceURLs, "a Role is about its namespace: only a ClusterRole may name paths"))
			}
			if len(rule.APIGroups)+len(rule.Resources)+len(rule.ResourceNames) > 0 {
				errs = append(errs, field.Invalid(at.Child("nonResourceURLs"), rule.NonResourceURLs, "one rule is about paths or about resources, not both"))
			}
			for j, url := range rule.NonResourceURLs {
				if star := strings.Index(url, "*"); star >= 0 && star < len(url)-1 {
					errs = append(errs, field.Invalid(at.Child("nonResourceURLs").Index(j), url, "a * may only be the last letter"))
				}
			}
			continue
		}
		if len(rule.APIGroups) == 0 {
			errs = append(errs, field.Required(at.Child("apiGroups"), `name a group, "" for core/v1`))
		}
		if len(rule.Resources) == 0 {
			errs = append(errs, field.Required(at.Child("resources"), "a rule without resources grants nothing"))
		}
	}
	return errs
}

// ValidateRoleBinding checks a RoleBinding, and that it keeps its role.
func ValidateRoleBinding(object, old runtime.Object) field.ErrorList {
	binding := object.(*rbacv1.RoleBinding)
	errs := validateName(&binding.ObjectMeta, true)
	errs = append(errs, validateReference(binding.RoleRef, "ClusterRole", "Role")...)
	if old != nil {
		errs = append(errs, validateKept(binding.RoleRef, old.(*rbacv1.RoleBinding).RoleRef)...)
	}
	return append(errs, validateSubjects(binding.Subjects, binding.Namespace)...)
}

// ValidateClusterRoleBinding checks a ClusterRoleBinding, and that it keeps its role.
func ValidateClusterRoleBinding(object, old runtime.Object) field.ErrorList {
	binding := object.(*rbacv1.ClusterRoleBinding)
	errs := validateName(&binding.ObjectMeta, false)
	errs = append(errs, validateReference(binding.RoleRef, "ClusterRole")...)
	if old != nil {
		errs = append(errs, validateKept(binding.RoleRef, old.(*rbacv1.ClusterRoleBinding).RoleRef)...)
	}
	return append(errs, validateSubjects(binding.Subjects, "")...)
}

func validateReference(role rbacv1.RoleRef, kinds ...string) field.ErrorList {
	at := field.NewPath("roleRef")
	var errs field.ErrorList
	if role.APIGroup != rbacv1.GroupName {
		errs = append(errs, field.NotSupported(at.Child("apiGroup"), role.APIGroup, []string{rbacv1.GroupName}))
	}
	if !slices.Contains(kinds, role.Kind) {
		errs = append(errs, field.NotSupported(at.Child("kind"), role.Kind, kinds))
	}
	if role.Name == "" {
		errs = append(errs, field.Required(at.Child("name"), "a binding without a role grants nothing"))
	}
	for _, msg := range isPathSegment(role.Name, false) {
		errs = append(errs, field.Invalid(at.Child("name"), role.Name, msg))
	}
	return errs
}

// validateKept holds a binding to its role: who was trusted with changing its subjects was not trusted with other roles.
func validateKept(role, was rbacv1.RoleRef) field.ErrorList {
	if equality.Semantic.DeepEqual(role, was) {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("roleRef"), role, "cannot be changed: delete the binding and make a new one")}
}

func validateSubjects(subjects []rbacv1.Subject, namespace string) field.ErrorList {
	var errs field.ErrorList
	for i, subject := range subjects {
		at := field.NewPath("subjects").Index(i)
		if subject.Name == "" {
			errs = append(errs, field.Required(at.Child("name"), "name a user, a group or a service account"))
		}
		group := rbacv1.GroupName
		switch subject.Kind {
		case rbacv1.UserKind, rbacv1.GroupKind:
			if subject.Namespace != "" {
				errs = append(errs, field.Forbidden(at.Child("namespace"), fmt.Sprintf("a %s is in no namespace", subject.Kind)))
			}
		case rbacv1.ServiceAccountKind:
			group = ""
			if subject.Namespace == "" && namespace == "" {
				errs = append(errs, field.Required(at.Child("namespace"), "a service account is in a namespace"))
			}
		default:
			errs = append(errs, field.NotSupported(at.Child("kind"), subject.Kind,
				[]string{rbacv1.UserKind, rbacv1.GroupKind, rbacv1.ServiceAccountKind}))
			continue
		}
		if subject.APIGroup != group {
			errs = append(errs, field.NotSupported(at.Child("apiGroup"), subject.APIGroup, []string{group}))
		}
	}
	return errs
}
