// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"metald.io/metald/internal/apiserver/rbac"
)

// accessKinds are the kinds that say who may do what.
func accessKinds() []nativeKind {
	version := rbacv1.SchemeGroupVersion
	return []nativeKind{
		{
			version: version, kind: "Role", plural: "roles", singular: "role",
			new:     func() runtime.Object { return &rbacv1.Role{} },
			newList: func() runtime.Object { return &rbacv1.RoleList{} },
			rules:   rules{validate: rbac.ValidateRole, upsert: true},
			columns: columns{roleHeads, func(object runtime.Object) []any { return stampCells(&object.(*rbacv1.Role).ObjectMeta) }},
		},
		{
			version: version, kind: "RoleBinding", plural: "rolebindings", singular: "rolebinding",
			new:     func() runtime.Object { return &rbacv1.RoleBinding{} },
			newList: func() runtime.Object { return &rbacv1.RoleBindingList{} },
			rules:   rules{prepare: rbac.PrepareRoleBinding, validate: rbac.ValidateRoleBinding, upsert: true},
			columns: columns{bindingHeads, func(object runtime.Object) []any {
				binding := object.(*rbacv1.RoleBinding)
				return bindingCells(&binding.ObjectMeta, binding.RoleRef, binding.Subjects)
			}},
		},
		{
			version: version, kind: "ClusterRole", plural: "clusterroles", singular: "clusterrole", global: true,
			new:     func() runtime.Object { return &rbacv1.ClusterRole{} },
			newList: func() runtime.Object { return &rbacv1.ClusterRoleList{} },
			rules:   rules{validate: rbac.ValidateClusterRole, upsert: true},
			columns: columns{roleHeads, func(object runtime.Object) []any { return stampCells(&object.(*rbacv1.ClusterRole).ObjectMeta) }},
		},
		{
			version: version, kind: "ClusterRoleBinding", plural: "clusterrolebindings", singular: "clusterrolebinding", global: true,
			new:     func() runtime.Object { return &rbacv1.ClusterRoleBinding{} },
			newList: func() runtime.Object { return &rbacv1.ClusterRoleBindingList{} },
			rules:   rules{prepare: rbac.PrepareClusterRoleBinding, validate: rbac.ValidateClusterRoleBinding, upsert: true},
			columns: columns{bindingHeads, func(object runtime.Object) []any {
				binding := object.(*rbacv1.ClusterRoleBinding)
				return bindingCells(&binding.ObjectMeta, binding.RoleRef, binding.Subjects)
			}},
		},
	}
}

var (
	roleHeads    = []metav1.TableColumnDefinition{column("Name", "string", 0), column("Created At", "date", 0)}
	bindingHeads = []metav1.TableColumnDefinition{
		column("Name", "string", 0), column("Role", "string", 0), column("Age", "string", 0),
		column("Users", "string", 1), column("Groups", "string", 1), column("ServiceAccounts", "string", 1),
	}
)

func stampCells(meta *metav1.ObjectMeta) []any {
	return []any{meta.Name, meta.CreationTimestamp.UTC().Format("2006-01-02T15:04:05Z")}
}

func bindingCells(meta *metav1.ObjectMeta, role rbacv1.RoleRef, subjects []rbacv1.Subject) []any {
	names := map[string][]string{}
	for _, subject := range subjects {
		name := subject.Name
		if subject.Kind == rbacv1.ServiceAccountKind {
			name = subject.Namespace + "/" + name
		}
		names[subject.Kind] = append(names[subject.Kind], name)
	}
	list := func(kind string) string { return strings.Join(names[kind], ", ") }
	return []any{meta.Name, role.Kind + "/" + role.Name, age(meta.CreationTimestamp.Time),
		list(rbacv1.UserKind), list(rbacv1.GroupKind), list(rbacv1.ServiceAccountKind)}
}
