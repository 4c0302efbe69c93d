// SPDX-License-Identifier: Apache-2.0

package rbac

import (
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// What a PolicyRule means is Kubernetes' own, https://kubernetes.io/docs/reference/access-authn-authz/rbac/: rules only ever
// add up, an empty list of resource names is every name, and a subresource is written as resource/subresource.

// allows says whether one rule lets a request through.
func allows(rule rbacv1.PolicyRule, request authorizer.Attributes) bool {
	if !listed(rule.Verbs, request.GetVerb()) {
		return false
	}
	if !request.IsResourceRequest() {
		return slices.ContainsFunc(rule.NonResourceURLs, func(pattern string) bool { return pathCovers(pattern, request.GetPath()) })
	}
	resource := request.GetResource()
	if sub := request.GetSubresource(); sub != "" {
		resource += "/" + sub
	}
	return listed(rule.APIGroups, request.GetAPIGroup()) &&
		slices.ContainsFunc(rule.Resources, func(pattern string) bool { return resourceCovers(pattern, resource) }) &&
		(len(rule.ResourceNames) == 0 || slices.Contains(rule.ResourceNames, request.GetName()))
}

// listed says whether a list holds a word or "*".
func listed(list []string, word string) bool {
	return slices.Contains(list, "*") || slices.Contains(list, word)
}

// resourceCovers compares a rule's resource with another one, which may be a pattern as well: "*" is each resource with
// each subresource, "*/status" the status of each resource.
func resourceCovers(pattern, resource string) bool {
	if pattern == "*" || pattern == resource {
		return true
	}
	sub, ok := strings.CutPrefix(pattern, "*")
	if !ok {
		return false
	}
	_, asked, has := strings.Cut(resource, "/")
	return has && sub == "/"+asked
}

// pathCovers compares a rule's path with another one, which may be a pattern as well: a "*" at the end is any rest.
func pathCovers(pattern, path string) bool {
	if pattern == path {
		return true
	}
	prefix, ok := strings.CutSuffix(pattern, "*")
	return ok && strings.HasPrefix(path, prefix)
}

// lacking is what of the wanted rules is not granted by those that somebody has, one verb and one resource at a time. Two
// rules that only together reach all names or all verbs of a "*" do not add up to it, as in Kubernetes.
func lacking(has, wanted []rbacv1.PolicyRule) []rbacv1.PolicyRule {
	var missing []rbacv1.PolicyRule
	for _, rule := range wanted {
		for _, one := range atoms(rule) {
			if !slices.ContainsFunc(has, func(owned rbacv1.PolicyRule) bool { return covers(owned, one) }) {
				missing = append(missing, one)
			}
		}
	}
	return missing
}

// atoms splits a rule into rules of one verb and one resource or path each, and one name where names are given.
func atoms(rule rbacv1.PolicyRule) []rbacv1.PolicyRule {
	var all []rbacv1.PolicyRule
	for _, verb := range rule.Verbs {
		for _, path := range rule.NonResourceURLs {
			all = append(all, rbacv1.PolicyRule{Verbs: []string{verb}, NonResourceURLs: []string{path}})
		}
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				one := rbacv1.PolicyRule{Verbs: []string{verb}, APIGroups: []string{group}, Resources: []string{resource}}
				if len(rule.ResourceNames) == 0 {
					all = append(all, one)
				}
				for _, name := range rule.ResourceNames {
					named := one
					named.ResourceNames = []string{name}
					all = append(all, named)
				}
			}
		}
	}
	return all
}

// covers says whether a rule grants an atom.
func covers(owned, atom rbacv1.PolicyRule) bool {
	if !listed(owned.Verbs, atom.Verbs[0]) {
		return false
	}
	if len(atom.NonResourceURLs) > 0 {
		return slices.ContainsFunc(owned.NonResourceURLs, func(pattern string) bool { return pathCovers(pattern, atom.NonResourceURLs[0]) })
	}
	if len(owned.ResourceNames) > 0 && (len(atom.ResourceNames) == 0 || !slices.Contains(owned.ResourceNames, atom.ResourceNames[0])) {
		return false
	}
	return listed(owned.APIGroups, atom.APIGroups[0]) &&
		slices.ContainsFunc(owned.Resources, func(pattern string) bool { return resourceCovers(pattern, atom.Resources[0]) })
}

// words is a rule as a person reads it in a refusal.
func words(rule rbacv1.PolicyRule) string {
	text := strings.Join(rule.Verbs, ",") + " "
	if len(rule.NonResourceURLs) > 0 {
		return text + strings.Join(rule.NonResourceURLs, ",")
	}
	text += strings.Join(rule.Resources, ",")
	if group := strings.Join(rule.APIGroups, ","); group != "" {
		text += "." + group
	}
	if len(rule.ResourceNames) > 0 {
		text += " named " + strings.Join(rule.ResourceNames, ",")
	}
	return text
}
