// SPDX-License-Identifier: Apache-2.0

package rbac

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	rbacv1client "k8s.io/client-go/kubernetes/typed/rbac/v1"
	"k8s.io/client-go/rest"
)

// decoder reads roles and bindings, as they are stored and as they are written here.
var decoder = func() runtime.Decoder {
	scheme := runtime.NewScheme()
	utilruntime.Must(rbacv1.AddToScheme(scheme))
	return serializer.NewCodecFactory(scheme).UniversalDeserializer()
}()

// readyRolesYAML names kinds of metald's, which this package's code does not.
//
//go:embed roles.yaml
var readyRolesYAML []byte

// readyRoles reads the roles and bindings that each inventory has, in the order in which they are made.
func readyRoles() (roles []*rbacv1.ClusterRole, bindings []*rbacv1.ClusterRoleBinding, err error) {
	documents := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(readyRolesYAML)))
	for {
		text, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return roles, bindings, nil
		}
		if err != nil {
			return nil, nil, fmt.Errorf("splitting the ready roles: %w", err)
		}
		if !bytes.Contains(text, []byte("kind:")) {
			continue // the file's own comment
		}
		object, err := runtime.Decode(decoder, text)
		if err != nil {
			return nil, nil, fmt.Errorf("reading the ready roles: %w", err)
		}
		switch o := object.(type) {
		case *rbacv1.ClusterRole:
			keep(&o.ObjectMeta)
			roles = append(roles, o)
		case *rbacv1.ClusterRoleBinding:
			keep(&o.ObjectMeta)
			bindings = append(bindings, o)
		default:
			return nil, nil, fmt.Errorf("reading the ready roles: %T is not one", object)
		}
	}
}

// keep marks what is mended at each start.
func keep(meta *metav1.ObjectMeta) {
	meta.Annotations = map[string]string{rbacv1.AutoUpdateAnnotationKey: "true"}
	meta.Labels = map[string]string{"rbac.metald.io/ready": "true"}
}

// kept says whether an object may be mended.
func kept(meta *metav1.ObjectMeta) bool {
	return meta.Annotations[rbacv1.AutoUpdateAnnotationKey] == "true"
}

// EnsureRoles makes the ready roles that are missing and mends those that were narrowed, as manager. It only ever adds: what a
// person has granted beside them is theirs.
func EnsureRoles(ctx context.Context, api *rest.Config, manager string) error {
	client, err := rbacv1client.NewForConfig(api)
	if err != nil {
		return fmt.Errorf("building a client for roles: %w", err)
	}
	roles, bindings, err := readyRoles()
	if err != nil {
		return err
	}
	for _, want := range roles {
		if err := ensureRole(ctx, client, want, manager); err != nil {
			return fmt.Errorf("making ClusterRole %s: %w", want.Name, err)
		}
	}
	for _, want := range bindings {
		if err := ensureBinding(ctx, client, want, manager); err != nil {
			return fmt.Errorf("making ClusterRoleBinding %s: %w", want.Name, err)
		}
	}
	return nil
}

func ensureRole(ctx context.Context, client rbacv1client.RbacV1Interface, want *rbacv1.ClusterRole, manager string) error {
	is, err := client.ClusterRoles().Get(ctx, want.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = client.ClusterRoles().Create(ctx, want, metav1.CreateOptions{FieldManager: manager})
		return err
	}
	if err != nil || !kept(&is.ObjectMeta) {
		return err
	}
	missing := lacking(is.Rules, want.Rules)
	if len(missing) == 0 {
		return nil
	}
	is.Rules = append(is.Rules, missing...)
	_, err = client.ClusterRoles().Update(ctx, is, metav1.UpdateOptions{FieldManager: manager})
	return err
}

func ensureBinding(ctx context.Context, client rbacv1client.RbacV1Interface, want *rbacv1.ClusterRoleBinding, manager string) error {
	is, err := client.ClusterRoleBindings().Get(ctx, want.Name, metav1.GetOptions{})
	if err == nil && kept(&is.ObjectMeta) && is.RoleRef != want.RoleRef {
		// A binding keeps its role for life, so one of this name to another role is replaced.
		if err := client.ClusterRoleBindings().Delete(ctx, is.Name, *metav1.NewPreconditionDeleteOptions(string(is.UID))); err != nil {
			return err
		}
		want.Subjects = append(want.Subjects, slices.DeleteFunc(is.Subjects, func(s rbacv1.Subject) bool { return slices.Contains(want.Subjects, s) })...)
		_, err := client.ClusterRoleBindings().Create(ctx, want, metav1.CreateOptions{FieldManager: manager})
		return err
	}
	if apierrors.IsNotFound(err) {
		_, err = client.ClusterRoleBindings().Create(ctx, want, metav1.CreateOptions{FieldManager: manager})
		return err
	}
	if err != nil || !kept(&is.ObjectMeta) {
		return err
	}
	before := len(is.Subjects)
	for _, subject := range want.Subjects {
		if !slices.Contains(is.Subjects, subject) {
			is.Subjects = append(is.Subjects, subject)
		}
	}
	if len(is.Subjects) == before {
		return nil
	}
	_, err = client.ClusterRoleBindings().Update(ctx, is, metav1.UpdateOptions{FieldManager: manager})
	return err
}
