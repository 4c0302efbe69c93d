// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"slices"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func TestWhoAmI(t *testing.T) {
	d, _ := sharedDoor(t)
	got, err := d.person(t, "olga", "metald:viewers").AuthenticationV1().SelfSubjectReviews().
		Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	who := got.Status.UserInfo
	slices.Sort(who.Groups)
	if who.Username != "olga" || strings.Join(who.Groups, " ") != "metald:viewers system:authenticated" {
		t.Errorf("got %s of %v, want olga of metald:viewers and system:authenticated", who.Username, who.Groups)
	}
}

func TestReviewsOfOthers(t *testing.T) {
	d, namespace := sharedDoor(t)
	admin := d.person(t, "admin", "system:masters")
	tenant := namespace + "-tenant"
	bind(t, admin, namespace, "metald:tenant", tenant)
	ask := func(user, in string) authorizationv1.SubjectAccessReviewSpec {
		return authorizationv1.SubjectAccessReviewSpec{User: user,
			ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: in, Verb: "list", Resource: "secrets"}}
	}
	for in, want := range map[string]bool{namespace: true, "default": false, "": false} {
		got, err := admin.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), &authorizationv1.SubjectAccessReview{Spec: ask(tenant, in)}, metav1.CreateOptions{})
		if err != nil || got.Status.Allowed != want {
			t.Errorf("tenant in %q: got %t, %v; want %t", in, got.Status.Allowed, err, want)
		}
	}
	local := &authorizationv1.LocalSubjectAccessReview{ObjectMeta: metav1.ObjectMeta{Namespace: namespace}, Spec: ask(tenant, namespace)}
	if got, err := admin.AuthorizationV1().LocalSubjectAccessReviews(namespace).Create(t.Context(), local, metav1.CreateOptions{}); err != nil || !got.Status.Allowed {
		t.Errorf("asked in its namespace: got %v, %v; want yes", got, err)
	}
	local.Spec = ask(tenant, "default")
	if _, err := admin.AuthorizationV1().LocalSubjectAccessReviews(namespace).Create(t.Context(), local, metav1.CreateOptions{}); !apierrors.IsBadRequest(err) {
		t.Errorf("asked about another namespace: got %v, want a bad request", err)
	}
	_, err := d.person(t, tenant).AuthorizationV1().SubjectAccessReviews().Create(t.Context(), &authorizationv1.SubjectAccessReview{Spec: ask("admin", namespace)}, metav1.CreateOptions{})
	if !apierrors.IsForbidden(err) {
		t.Errorf("a tenant asks about another: got %v, want Forbidden", err)
	}
}

func TestRulesReview(t *testing.T) {
	d, namespace := sharedDoor(t)
	admin, tenant := d.person(t, "admin", "system:masters"), namespace+"-tenant"
	bind(t, admin, namespace, "metald:tenant", tenant)
	list := func(in string) (verbs []string) {
		got, err := d.person(t, tenant).AuthorizationV1().SelfSubjectRulesReviews().Create(t.Context(),
			&authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: in}}, metav1.CreateOptions{})
		if err != nil || got.Status.Incomplete || len(got.Status.NonResourceRules) == 0 {
			t.Fatalf("rules in %s: got %v, %v; want a full list with paths", in, got, err)
		}
		for _, rule := range got.Status.ResourceRules {
			if slices.Contains(rule.Resources, "secrets") {
				verbs = append(verbs, rule.Verbs...)
			}
		}
		return verbs
	}
	if got := list(namespace); !slices.Contains(got, "list") {
		t.Errorf("Secrets in one's own namespace: got %v, want list among them", got)
	}
	if got := list("default"); len(got) > 0 {
		t.Errorf("Secrets elsewhere: got %v, want none", got)
	}
}

func TestRolesValidated(t *testing.T) {
	d, namespace := sharedDoor(t)
	admin := d.admin(t)
	for name, test := range map[string]struct{ object, want string }{
		"a path in a Role":      {`{kind: Role, metadata: {name: a}, rules: [{nonResourceURLs: [/metrics], verbs: [get]}]}`, "rules[0].nonResourceURLs"},
		"no verbs":              {`{kind: Role, metadata: {name: a}, rules: [{apiGroups: [""], resources: [secrets], verbs: []}]}`, "rules[0].verbs"},
		"no groups":             {`{kind: Role, metadata: {name: a}, rules: [{resources: [secrets], verbs: [get]}]}`, "rules[0].apiGroups"},
		"no resources":          {`{kind: Role, metadata: {name: a}, rules: [{apiGroups: [""], verbs: [get]}]}`, "rules[0].resources"},
		"a name with a slash":   {`{kind: Role, metadata: {name: a/b}}`, "metadata.name"},
		"a role of no kind":     {`{kind: RoleBinding, metadata: {name: a}, roleRef: {kind: Host, name: x}}`, "roleRef.kind"},
		"a role without a name": {`{kind: RoleBinding, metadata: {name: a}, roleRef: {kind: Role}}`, "roleRef.name"},
		"a subject of no kind":  {`{kind: RoleBinding, metadata: {name: a}, roleRef: {kind: Role, name: x}, subjects: [{kind: Host, name: who}]}`, "subjects[0].kind"},
		"a user in a namespace": {`{kind: RoleBinding, metadata: {name: a}, roleRef: {kind: Role, name: x}, subjects: [{kind: User, name: who, namespace: z}]}`, "subjects[0].namespace"},
		"nobody":                {`{kind: RoleBinding, metadata: {name: a}, roleRef: {kind: Role, name: x}, subjects: [{kind: User}]}`, "subjects[0].name"},
	} {
		t.Run(name, func(t *testing.T) {
			o := object(t, test.object)
			o.SetAPIVersion("rbac.authorization.k8s.io/v1")
			resource := rbacv1.SchemeGroupVersion.WithResource(strings.ToLower(o.GetKind()) + "s")
			_, err := admin.Resource(resource).Namespace(namespace).Create(t.Context(), o, metav1.CreateOptions{})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error about %s", err, test.want)
			}
		})
	}
	client := d.person(t, "admin", "system:masters").RbacV1()
	made, err := client.RoleBindings(namespace).Create(t.Context(), binding("metald:viewer", "vera"), metav1.CreateOptions{})
	if err != nil || made.RoleRef.APIGroup != rbacv1.GroupName || made.Subjects[0].APIGroup != rbacv1.GroupName {
		t.Errorf("groups left out: got %v, %v; want them filled in", made, err)
	}
	_, err = client.RoleBindings(namespace).Patch(t.Context(), "vera", types.MergePatchType, []byte(`{"roleRef":{"name":"metald:admin"}}`), metav1.PatchOptions{})
	if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "delete the binding") {
		t.Errorf("another role for a binding: got %v, want Invalid", err)
	}
}

// TestRolesMadeOfOthers takes a role that is made of whatever carries a label, and gives the label away afterwards.
func TestRolesMadeOfOthers(t *testing.T) {
	d, namespace := sharedDoor(t)
	admin, user := d.person(t, "admin", "system:masters"), namespace+"-user"
	label := map[string]string{"sum": namespace}
	sum := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: namespace + "-sum"},
		AggregationRule: &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: label}}}}
	part := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: namespace + "-part", Labels: label},
		Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"get"}}}}
	if _, err := admin.RbacV1().ClusterRoles().Create(t.Context(), sum, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	bind(t, admin, namespace, sum.Name, user)
	client := d.person(t, user)
	if may(t, client, "get configmaps "+namespace) {
		t.Error("made of nothing: got yes, want no")
	}
	if _, err := admin.RbacV1().ClusterRoles().Create(t.Context(), part, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if !may(t, client, "get configmaps "+namespace) {
		t.Error("made of a part: got no, want yes")
	}
}
