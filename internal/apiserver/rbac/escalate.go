// SPDX-License-Identifier: Apache-2.0

package rbac

import (
	"context"
	"errors"
	"fmt"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
)

// shownMissing bounds the rules that a refusal lists.
const shownMissing = 10

// guarded is a registry of roles or bindings through which nobody grants what they lack: a role may be written by who has
// all of its rules, or the verb escalate on it; a binding by who has all of its role's rules, or the verb bind on that role.
// The check is made on the object as it would be stored, so create, update, patch and apply are held to it alike.
type guarded struct {
	*genericregistry.Store
	access *Access
}

// Create implements rest.Creater.
func (g guarded) Create(ctx context.Context, object runtime.Object, validate rest.ValidateObjectFunc, options *metav1.CreateOptions) (runtime.Object, error) {
	return g.Store.Create(ctx, object, g.creation(validate), options)
}

// Update implements rest.Updater.
func (g guarded) Update(ctx context.Context, name string, object rest.UpdatedObjectInfo, create rest.ValidateObjectFunc, update rest.ValidateObjectUpdateFunc, force bool, options *metav1.UpdateOptions) (runtime.Object, bool, error) {
	checked := func(ctx context.Context, object, old runtime.Object) error {
		if err := g.check(ctx, object, old); err != nil || update == nil {
			return err
		}
		return update(ctx, object, old)
	}
	return g.Store.Update(ctx, name, object, g.creation(create), checked, force, options)
}

func (g guarded) creation(validate rest.ValidateObjectFunc) rest.ValidateObjectFunc {
	return func(ctx context.Context, object runtime.Object) error {
		if err := g.check(ctx, object, nil); err != nil || validate == nil {
			return err
		}
		return validate(ctx, object)
	}
}

// check refuses to store an object that would grant more than its writer has; old is nil at creation.
func (g guarded) check(ctx context.Context, object, old runtime.Object) error {
	who, ok := request.UserFrom(ctx)
	if !ok {
		return g.refuse(object, errors.New("nobody asks for it"))
	}
	if master(who) {
		return nil
	}
	granting, verb, on, err := g.granting(ctx, object, old)
	if err != nil || len(granting) == 0 {
		return err
	}
	on.User, on.Verb, on.APIGroup, on.APIVersion, on.ResourceRequest = who, verb, rbacv1.GroupName, "v1", true
	switch decision, _, err := g.access.Authorize(ctx, on); {
	case err != nil:
		return apierrors.NewInternalError(err)
	case decision == authorizer.DecisionAllow:
		return nil
	}
	has, err := g.access.rules(ctx, who, on.Namespace)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	if missing := lacking(has, granting); len(missing) > 0 {
		return g.refuse(object, fmt.Errorf("user %q%s grants what they do not have themselves: %s", who.GetName(), groupsOf(who), enumerate(missing)))
	}
	return nil
}

// granting is the rules that storing the object would hand out, none if it hands out nothing that old did not, with the verb
// that lets its holder do so all the same, and the role that this verb is asked on.
func (g guarded) granting(ctx context.Context, object, old runtime.Object) ([]rbacv1.PolicyRule, string, authorizer.AttributesRecord, error) {
	var none authorizer.AttributesRecord
	switch o := object.(type) {
	case *rbacv1.Role:
		if was, ok := old.(*rbacv1.Role); ok && equality.Semantic.DeepEqual(was.Rules, o.Rules) {
			return nil, "", none, nil
		}
		return o.Rules, "escalate", authorizer.AttributesRecord{Resource: "roles", Namespace: o.Namespace, Name: o.Name}, nil
	case *rbacv1.ClusterRole:
		if was, ok := old.(*rbacv1.ClusterRole); ok && equality.Semantic.DeepEqual(was.Rules, o.Rules) &&
			equality.Semantic.DeepEqual(was.AggregationRule, o.AggregationRule) {
			return nil, "", none, nil
		}
		rules := o.Rules
		if o.AggregationRule != nil {
			rules = all // whatever will carry its labels one day
		}
		return rules, "escalate", authorizer.AttributesRecord{Resource: "clusterroles", Name: o.Name}, nil
	case *rbacv1.RoleBinding:
		if was, ok := old.(*rbacv1.RoleBinding); ok && equality.Semantic.DeepEqual(was.Subjects, o.Subjects) {
			return nil, "", none, nil
		}
		return g.bound(ctx, o.RoleRef, o.Namespace)
	case *rbacv1.ClusterRoleBinding:
		if was, ok := old.(*rbacv1.ClusterRoleBinding); ok && equality.Semantic.DeepEqual(was.Subjects, o.Subjects) {
			return nil, "", none, nil
		}
		return g.bound(ctx, o.RoleRef, "")
	}
	return nil, "", none, g.refuse(object, fmt.Errorf("%T is neither a role nor a binding", object))
}

// bound is the rules of the role that a binding refers to. A role that is not there could become any role.
func (g guarded) bound(ctx context.Context, role rbacv1.RoleRef, namespace string) ([]rbacv1.PolicyRule, string, authorizer.AttributesRecord, error) {
	on := authorizer.AttributesRecord{Resource: "clusterroles", Namespace: namespace, Name: role.Name}
	if role.Kind == "Role" {
		on.Resource = "roles"
	}
	now, err := g.access.current(ctx)
	if err != nil {
		return nil, "", on, apierrors.NewInternalError(err)
	}
	rules := now.granted(role, namespace)
	if !now.exists(role, namespace) {
		rules = all
	}
	return rules, "bind", on, nil
}

func (g guarded) refuse(object runtime.Object, err error) error {
	name := ""
	if accessor, failed := meta.Accessor(object); failed == nil {
		name = accessor.GetName()
	}
	return apierrors.NewForbidden(g.DefaultQualifiedResource, name, err)
}

func groupsOf(who user.Info) string {
	if len(who.GetGroups()) == 0 {
		return ""
	}
	return " (of groups " + strings.Join(who.GetGroups(), ", ") + ")"
}

// enumerate lists rules for a person.
func enumerate(rules []rbacv1.PolicyRule) string {
	var list []string
	for _, rule := range rules[:min(len(rules), shownMissing)] {
		list = append(list, words(rule))
	}
	text := strings.Join(list, "; ")
	if more := len(rules) - shownMissing; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return text
}
