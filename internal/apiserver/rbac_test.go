// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"fmt"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// person is a typed client of somebody with a certificate.
func (d *door) person(t *testing.T, name string, groups ...string) *kubernetes.Clientset {
	t.Helper()
	client, err := kubernetes.NewForConfig(d.client(t, name, groups...))
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// bind lets a user have a ClusterRole in a namespace.
func bind(t *testing.T, client kubernetes.Interface, namespace, role, user string) {
	t.Helper()
	_, err := client.RbacV1().RoleBindings(namespace).Create(t.Context(), binding(role, user), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

func binding(role, user string) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: user},
		RoleRef:    rbacv1.RoleRef{Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{{Kind: "User", Name: user}},
	}
}

// may asks the door whether somebody may do "verb resource.group [namespace]", or "verb /path".
func may(t *testing.T, client kubernetes.Interface, action string) bool {
	t.Helper()
	words := strings.Fields(action)
	asked := &authorizationv1.SelfSubjectAccessReview{}
	if strings.HasPrefix(words[1], "/") {
		asked.Spec.NonResourceAttributes = &authorizationv1.NonResourceAttributes{Verb: words[0], Path: words[1]}
	} else {
		resource, group, _ := strings.Cut(words[1], ".")
		resource, sub, _ := strings.Cut(resource, "/")
		asked.Spec.ResourceAttributes = &authorizationv1.ResourceAttributes{Verb: words[0], Resource: resource, Subresource: sub, Group: group}
		if len(words) > 2 {
			asked.Spec.ResourceAttributes.Namespace = words[2]
		}
	}
	answer, err := client.AuthorizationV1().SelfSubjectAccessReviews().Create(t.Context(), asked, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return answer.Status.Allowed
}

func TestReadyRoles(t *testing.T) {
	d, namespace := sharedDoor(t)
	admin := d.person(t, "admin", "system:masters")
	bind(t, admin, namespace, "metald:tenant", namespace+"-tenant")
	people := map[string]kubernetes.Interface{
		"nobody":   d.person(t, "nobody"),
		"viewer":   d.person(t, "vera", "metald:viewers"),
		"operator": d.person(t, "otto", "metald:operators"),
		"admin":    d.person(t, "ada", "metald:admins"),
		"auditor":  d.person(t, "aude", "metald:auditors"),
		"tenant":   d.person(t, namespace+"-tenant"),
		"member":   d.person(t, namespace+"-tenant", "metald:tenants"),
		"master":   admin,
	}
	for action, want := range map[string]string{
		"get /version":                 "nobody viewer operator auditor admin tenant member master",
		"get /readyz":                  "nobody viewer operator auditor admin tenant member master",
		"get /apis/metal3.io/v1alpha1": "nobody viewer operator auditor admin tenant member master",
		"get /metrics":                 "viewer operator admin master",
		"get /debug/pprof":             "admin master",
		"create selfsubjectaccessreviews.authorization.k8s.io": "nobody viewer operator auditor admin tenant member master",
		"create selfsubjectreviews.authentication.k8s.io":      "nobody viewer operator auditor admin tenant member master",
		"create subjectaccessreviews.authorization.k8s.io":     "admin master",
		"impersonate users":                                        "admin master",
		"list baremetalhosts.metal3.io":                            "viewer operator auditor admin master",
		"get baremetalhosts.metal3.io NS":                          "viewer operator auditor admin tenant member master",
		"patch baremetalhosts.metal3.io NS":                        "operator admin master",
		"update baremetalhosts/status.metal3.io NS":                "admin master",
		"update hostprogresses.metald.io NS":                       "admin master",
		"get hostprogresses.metald.io default":                     "viewer operator auditor admin master",
		"get hostprogresses.metald.io NS":                          "viewer operator auditor admin tenant member master",
		"create hostclaims.metal3.io NS":                           "operator admin tenant member master",
		"create hostclaims.metal3.io default":                      "operator admin master",
		"create nodepools.metald.io NS":                            "operator admin tenant member master",
		"get secrets NS":                                           "admin tenant member master",
		"get secrets default":                                      "admin master",
		"list secrets":                                             "admin master",
		"list namespaces":                                          "viewer operator auditor admin master",
		"get namespaces NS":                                        "viewer operator auditor admin tenant member master",
		"get namespaces default":                                   "viewer operator auditor admin master",
		"create images.metald.io":                                  "operator admin master",
		"create rolebindings.rbac.authorization.k8s.io NS":         "admin master",
		"bind clusterroles.rbac.authorization.k8s.io":              "admin master",
		"escalate clusterroles.rbac.authorization.k8s.io":          "admin master",
		"create customresourcedefinitions.apiextensions.k8s.io":    "admin master",
		"list customresourcedefinitions.apiextensions.k8s.io":      "viewer operator auditor admin master",
		"delete clusterrolebindings.rbac.authorization.k8s.io":     "admin master",
		"deletecollection baremetalhosts.metal3.io NS":             "operator admin master",
		"frobnicate kinds.that.do.not.exist":                       "admin master",
		"create localsubjectaccessreviews.authorization.k8s.io NS": "admin master",
		"create selfsubjectrulesreviews.authorization.k8s.io":      "nobody viewer operator auditor admin tenant member master",
		"watch events NS":                                          "viewer operator auditor admin tenant member master",
		"watch events":                                             "viewer operator auditor admin master",
		"list clusterroles.rbac.authorization.k8s.io":              "operator auditor admin master",
		"get leases.coordination.k8s.io NS":                        "viewer operator admin tenant member master",
		"watch secrets NS":                                         "admin tenant member master",
		"create secrets NS":                                        "operator admin tenant member master",
		"patch secrets default":                                    "operator admin master",
		"deletecollection secrets NS":                              "operator admin tenant member master",
		"get /audit/v1/export":                                     "auditor admin master",
		"get /audit/v1/records":                                    "auditor admin master",
		"get /metald/v1/backup":                                    "admin master",
		"get configmaps NS":                                        "viewer operator admin tenant member master",
		"list images.metald.io":                                    "viewer operator auditor member admin master",
		"watch images.metald.io":                                   "viewer operator auditor member admin master",
		"delete images.metald.io":                                  "operator admin master",
		"list sightings.metald.io":                                 "viewer operator auditor admin master",
	} {
		action = strings.ReplaceAll(action, "NS", namespace)
		for role, client := range people {
			wanted := false
			for _, one := range strings.Fields(want) {
				wanted = wanted || one == role
			}
			if got := may(t, client, action); got != wanted {
				t.Errorf("%s may %s: got %t, want %t", role, action, got, wanted)
			}
		}
	}
}

// TestGrantsHoldAtOnce gives and takes a right many times; each time the very next request must know.
func TestGrantsHoldAtOnce(t *testing.T) {
	d, namespace := sharedDoor(t)
	admin, user := d.person(t, "admin", "system:masters"), namespace+"-user"
	client := d.person(t, user)
	list := func() string {
		_, err := client.CoreV1().Secrets(namespace).List(t.Context(), metav1.ListOptions{})
		return string(apierrors.ReasonForError(err))
	}
	for i := range 20 {
		if got := list(); got != "Forbidden" {
			t.Fatalf("round %d, before the grant: got %q, want Forbidden", i, got)
		}
		bind(t, admin, namespace, "metald:tenant", user)
		if got := list(); got != "" {
			t.Fatalf("round %d, after the grant: got %q, want no error", i, got)
		}
		var err error
		if i%2 == 0 {
			err = admin.RbacV1().RoleBindings(namespace).Delete(t.Context(), user, metav1.DeleteOptions{})
		} else {
			patch := []byte(`{"subjects":[]}`)
			_, err = admin.RbacV1().RoleBindings(namespace).Patch(t.Context(), user, types.MergePatchType, patch, metav1.PatchOptions{})
			if got := list(); got != "Forbidden" {
				t.Fatalf("round %d, after the patch: got %q, want Forbidden", i, got)
			}
			if err == nil {
				err = admin.RbacV1().RoleBindings(namespace).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{})
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestGrantsFromElsewhere writes a binding past the door, as a second daemon on the same store would.
func TestGrantsFromElsewhere(t *testing.T) {
	d, namespace := sharedDoor(t)
	user := namespace + "-user"
	client := d.person(t, user)
	if may(t, client, "get secrets "+namespace) {
		t.Fatal("before the grant: got yes, want no")
	}
	key := "/registry/rbac.authorization.k8s.io/rolebindings/" + namespace + "/" + user
	_, err := d.store.Etcd().Put(t.Context(), key, fmt.Sprintf(`{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"RoleBinding",
		"metadata":{"name":%q,"namespace":%q},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"metald:tenant"},
		"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":%q}]}`, user, namespace, user))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the grant is in force", func() bool { return may(t, client, "get secrets "+namespace) })
}

func TestEscalation(t *testing.T) {
	d, namespace := sharedDoor(t)
	admin := d.person(t, "admin", "system:masters")
	lead, binder, author := namespace+"-lead", namespace+"-binder", namespace+"-author"
	apply := func(yaml string) {
		t.Helper()
		o := object(t, yaml)
		resource := rbacv1.SchemeGroupVersion.WithResource(strings.ToLower(o.GetKind()) + "s")
		_, err := d.admin(t).Resource(resource).Namespace(o.GetNamespace()).Create(t.Context(), o, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	grant := func(who, rules string) {
		t.Helper()
		apply(`{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: ` + who + `, namespace: ` + namespace + `}, rules: ` + rules + `}`)
		apply(`{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: ` + who + `, namespace: ` + namespace + `},
			roleRef: {kind: Role, name: ` + who + `}, subjects: [{kind: User, name: ` + who + `}]}`)
	}
	writes := `{apiGroups: [rbac.authorization.k8s.io], resources: [roles, rolebindings], verbs: ["create", "update", "patch", "get", "delete"]}`
	grant(lead, `[`+writes+`, {apiGroups: [""], resources: [configmaps], verbs: [get, list]}]`)
	grant(binder, `[`+writes+`, {apiGroups: [rbac.authorization.k8s.io], resources: [clusterroles], resourceNames: ["metald:tenant"], verbs: [bind]}]`)
	grant(author, `[`+writes+`, {apiGroups: [rbac.authorization.k8s.io], resources: [roles], verbs: [escalate]}]`)

	role := func(name, resource string, verbs ...string) *rbacv1.Role {
		return &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: name},
			Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{resource}, Verbs: verbs}}}
	}
	for name, test := range map[string]struct {
		who  string
		do   func(kubernetes.Interface) error
		want string // part of the refusal; "" lets it pass
	}{
		"a role of what one has": {lead, func(c kubernetes.Interface) error {
			_, err := c.RbacV1().Roles(namespace).Create(t.Context(), role("reader", "configmaps", "get"), metav1.CreateOptions{})
			return err
		}, ""},
		"a role of more": {lead, func(c kubernetes.Interface) error {
			_, err := c.RbacV1().Roles(namespace).Create(t.Context(), role("thief", "secrets", "get"), metav1.CreateOptions{})
			return err
		}, "grants what they do not have themselves: get secrets"},
		"a role of more, as a dry run": {lead, func(c kubernetes.Interface) error {
			_, err := c.RbacV1().Roles(namespace).Create(t.Context(), role("thief", "secrets", "get"), metav1.CreateOptions{DryRun: []string{"All"}})
			return err
		}, "grants what they do not have"},
		"one's own role by a patch": {lead, func(c kubernetes.Interface) error {
			patch := []byte(`[{"op": "add", "path": "/rules/-", "value": {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}}]`)
			_, err := c.RbacV1().Roles(namespace).Patch(t.Context(), lead, types.JSONPatchType, patch, metav1.PatchOptions{})
			return err
		}, "grants what they do not have themselves: * *.*"},
		"a role by an apply": {lead, func(c kubernetes.Interface) error {
			apply := []byte(`{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "new"}, "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]}`)
			_, err := c.RbacV1().Roles(namespace).Patch(t.Context(), "new", types.ApplyPatchType, apply, metav1.PatchOptions{FieldManager: "test"})
			return err
		}, "grants what they do not have"},
		"a role by a PUT that creates": {lead, func(c kubernetes.Interface) error {
			_, err := c.RbacV1().Roles(namespace).Update(t.Context(), role("put", "secrets", "get"), metav1.UpdateOptions{})
			return err
		}, "grants what they do not have"},
		"a label on a role of more": {lead, func(c kubernetes.Interface) error {
			_, err := c.RbacV1().Roles(namespace).Patch(t.Context(), binder, types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{})
			return err
		}, ""},
		"a binding to more": {lead, func(c kubernetes.Interface) error {
			_, err := c.RbacV1().RoleBindings(namespace).Create(t.Context(), binding("cluster-admin", lead+"2"), metav1.CreateOptions{})
			return err
		}, "grants what they do not have"},
		"a binding to a role that is not there": {lead, func(c kubernetes.Interface) error {
			_, err := c.RbacV1().RoleBindings(namespace).Create(t.Context(), binding("not-yet", lead+"3"), metav1.CreateOptions{})
			return err
		}, "grants what they do not have"},
		"oneself on another's binding": {lead, func(c kubernetes.Interface) error {
			patch := []byte(`{"subjects":[{"kind":"User","name":"` + lead + `","apiGroup":"rbac.authorization.k8s.io"}]}`)
			_, err := c.RbacV1().RoleBindings(namespace).Patch(t.Context(), author, types.MergePatchType, patch, metav1.PatchOptions{})
			return err
		}, "grants what they do not have"},
		"a binding to the role one may bind": {binder, func(c kubernetes.Interface) error {
			_, err := c.RbacV1().RoleBindings(namespace).Create(t.Context(), binding("metald:tenant", binder+"2"), metav1.CreateOptions{})
			return err
		}, ""},
		"a binding to another role": {binder, func(c kubernetes.Interface) error {
			_, err := c.RbacV1().RoleBindings(namespace).Create(t.Context(), binding("metald:operator", binder+"3"), metav1.CreateOptions{})
			return err
		}, "grants what they do not have"},
		"a role of more, with escalate": {author, func(c kubernetes.Interface) error {
			_, err := c.RbacV1().Roles(namespace).Create(t.Context(), role("wide", "secrets", "*"), metav1.CreateOptions{})
			return err
		}, ""},
		"a binding to more, with escalate": {author, func(c kubernetes.Interface) error {
			_, err := c.RbacV1().RoleBindings(namespace).Create(t.Context(), binding("cluster-admin", author+"2"), metav1.CreateOptions{})
			return err
		}, "grants what they do not have"},
		"in another namespace": {author, func(c kubernetes.Interface) error {
			_, err := c.RbacV1().Roles("default").Create(t.Context(), role("wide", "secrets", "get"), metav1.CreateOptions{})
			return err
		}, `cannot create resource "roles"`},
	} {
		t.Run(name, func(t *testing.T) {
			switch err := test.do(d.person(t, test.who)); {
			case test.want == "" && err != nil:
				t.Errorf("got %v, want no error", err)
			case test.want != "" && (!apierrors.IsForbidden(err) || !strings.Contains(err.Error(), test.want)):
				t.Errorf("got %v, want Forbidden with %q", err, test.want)
			}
		})
	}
	if roles, err := admin.RbacV1().Roles(namespace).List(t.Context(), metav1.ListOptions{}); err != nil || len(roles.Items) != 5 {
		t.Errorf("roles after it all: got %d, %v; want the 3 that were there and 2", len(roles.Items), err)
	}
}
