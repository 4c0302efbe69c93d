// SPDX-License-Identifier: Apache-2.0

package rbac

import (
	"context"
	"log/slog"
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
)

// grants is all roles and bindings at one revision.
type grants struct {
	at           uint64 // what Access.changes was before they were read
	roles        map[string]map[string][]rbacv1.PolicyRule
	clusterRoles map[string][]rbacv1.PolicyRule
	// bindings are by namespace; those of the whole cluster are under "".
	bindings map[string][]binding
}

// binding is a RoleBinding or, without a namespace, a ClusterRoleBinding.
type binding struct {
	name, namespace string
	role            rbacv1.RoleRef
	subjects        []rbacv1.Subject
}

// readGrants reads the inventory itself, not the watch caches before it: the answer is no older than the question, and the
// four kinds fit together. An object that cannot be read grants nothing.
func readGrants(ctx context.Context, client *kubernetes.Client, prefix string, logger *slog.Logger) (*grants, error) {
	found, err := client.KV.Get(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		return nil, err
	}
	g := &grants{roles: map[string]map[string][]rbacv1.PolicyRule{}, clusterRoles: map[string][]rbacv1.PolicyRule{}, bindings: map[string][]binding{}}
	var whole []*rbacv1.ClusterRole
	for _, pair := range found.Kvs {
		object, err := runtime.Decode(decoder, pair.Value)
		if err != nil {
			logger.Error("reading a role or binding, which grants nothing until it is mended", "key", string(pair.Key), "err", err)
			continue
		}
		switch o := object.(type) {
		case *rbacv1.Role:
			if g.roles[o.Namespace] == nil {
				g.roles[o.Namespace] = map[string][]rbacv1.PolicyRule{}
			}
			g.roles[o.Namespace][o.Name] = o.Rules
		case *rbacv1.ClusterRole:
			whole = append(whole, o)
		case *rbacv1.RoleBinding:
			g.bindings[o.Namespace] = append(g.bindings[o.Namespace], binding{o.Name, o.Namespace, o.RoleRef, o.Subjects})
		case *rbacv1.ClusterRoleBinding:
			g.bindings[""] = append(g.bindings[""], binding{o.Name, "", o.RoleRef, o.Subjects})
		}
	}
	for _, role := range whole {
		g.clusterRoles[role.Name] = effective(role, whole)
	}
	return g, nil
}

// effective is what a ClusterRole grants. One that is made of others grants what those of the given labels grant themselves;
// a cluster's controller would write that into its rules, here it is worked out.
func effective(role *rbacv1.ClusterRole, whole []*rbacv1.ClusterRole) []rbacv1.PolicyRule {
	if role.AggregationRule == nil {
		return role.Rules
	}
	var rules []rbacv1.PolicyRule
	for i := range role.AggregationRule.ClusterRoleSelectors {
		selector, err := metav1.LabelSelectorAsSelector(&role.AggregationRule.ClusterRoleSelectors[i])
		if err != nil {
			continue // was refused when it was written
		}
		for _, part := range whole {
			if part.AggregationRule == nil && selector.Matches(labels.Set(part.Labels)) {
				rules = append(rules, part.Rules...)
			}
		}
	}
	return rules
}

// visit calls f with each rule that holds for somebody in a namespace, and with what grants it, until f has enough.
func (g *grants) visit(who user.Info, namespace string, f func(by string, rule rbacv1.PolicyRule) bool) {
	scopes := []string{""}
	if namespace != "" {
		scopes = append(scopes, namespace)
	}
	for _, scope := range scopes {
		for _, b := range g.bindings[scope] {
			if !b.names(who) {
				continue
			}
			by := "ClusterRoleBinding " + b.name
			if b.namespace != "" {
				by = "RoleBinding " + b.namespace + "/" + b.name
			}
			for _, rule := range g.granted(b.role, b.namespace) {
				if !f(by, rule) {
					return
				}
			}
		}
	}
}

// granted is the rules of a role that a binding in a namespace refers to; none if there is no such role.
func (g *grants) granted(role rbacv1.RoleRef, namespace string) []rbacv1.PolicyRule {
	switch role.Kind {
	case "ClusterRole":
		return g.clusterRoles[role.Name]
	case "Role":
		return g.roles[namespace][role.Name]
	}
	return nil
}

// exists says whether there is such a role.
func (g *grants) exists(role rbacv1.RoleRef, namespace string) bool {
	_, global := g.clusterRoles[role.Name]
	_, local := g.roles[namespace][role.Name]
	return (role.Kind == "ClusterRole" && global) || (role.Kind == "Role" && local)
}

// names says whether somebody is one of the binding's subjects.
func (b binding) names(who user.Info) bool {
	return slices.ContainsFunc(b.subjects, func(subject rbacv1.Subject) bool {
		switch subject.Kind {
		case rbacv1.UserKind:
			return who.GetName() == subject.Name
		case rbacv1.GroupKind:
			return slices.Contains(who.GetGroups(), subject.Name)
		case rbacv1.ServiceAccountKind:
			namespace := subject.Namespace
			if namespace == "" {
				namespace = b.namespace
			}
			return namespace != "" && who.GetName() == serviceaccount.MakeUsername(namespace, subject.Name)
		}
		return false
	})
}
