// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	tokenapi "k8s.io/cluster-bootstrap/token/api"
	tokenutil "k8s.io/cluster-bootstrap/token/util"
)

const (
	// Group is what a grant's token is a member of, beside system:bootstrappers.
	Group = "system:bootstrappers:metald"
	// MaxGrant is the longest life of a grant: a boot takes minutes, and a token is a secret that waits to be lost.
	MaxGrant = 10 * time.Minute

	bindingName = "metald:kubelet-bootstrap"
	// grantLabel marks our tokens, nodeAnnotation names the Node that one is for (a label's value is too short for that).
	grantLabel     = "metald.io/grant"
	nodeAnnotation = "metald.io/node"
)

// Grant is one host's right to ask for one certificate. Kubeconfig holds a secret.
type Grant struct {
	TokenID    string
	Kubeconfig string
	// CA is the cluster's authority in PEM, which a kubelet also asks of those who call it.
	CA      string
	Expires time.Time
}

// Format keeps the secret out of logs and errors, under every verb.
func (g Grant) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "Grant{%s REDACTED %s}", g.TokenID, g.Expires.UTC().Format(time.RFC3339))
}

// Grant makes a bootstrap token for this Node and no other: Approve holds the token to the name. Earlier tokens for the
// Node end here, so there is never more than one. A ttl above MaxGrant is cut to it; Grant.Expires says what it became.
func (c *Cluster) Grant(ctx context.Context, nodeName string, ttl time.Duration) (Grant, error) {
	if problems := validation.IsDNS1123Subdomain(nodeName); len(problems) > 0 {
		return Grant{}, fmt.Errorf("granting a join to node %q: %s", nodeName, strings.Join(problems, ", "))
	}
	if ttl <= 0 {
		return Grant{}, fmt.Errorf("granting a join to node %s: a life of %s is none", nodeName, ttl)
	}
	if err := c.ensureBinding(ctx); err != nil {
		return Grant{}, err
	}
	if err := c.revokeAll(ctx, nodeName); err != nil {
		return Grant{}, err
	}
	token, err := tokenutil.GenerateBootstrapToken()
	if err != nil {
		return Grant{}, fmt.Errorf("making a bootstrap token: %w", err)
	}
	id, secret, _ := strings.Cut(token, ".")
	expires := c.now().Add(min(ttl, MaxGrant)).UTC().Truncate(time.Second)
	if _, err := c.client.CoreV1().Secrets(metav1.NamespaceSystem).Create(ctx, tokenSecret(nodeName, id, secret, expires), metav1.CreateOptions{}); err != nil {
		return Grant{}, fmt.Errorf("storing the bootstrap token of node %s: %w", nodeName, err)
	}
	kubeconfig, err := c.kubeconfig(token)
	if err != nil {
		return Grant{}, err
	}
	return Grant{TokenID: id, Kubeconfig: kubeconfig, CA: string(c.ca), Expires: expires}, nil
}

// Revoke removes a token; one that is gone is no error. A kubelet that has its certificate needs the token no more.
func (c *Cluster) Revoke(ctx context.Context, tokenID string) error {
	if !tokenutil.IsValidBootstrapTokenID(tokenID) {
		return fmt.Errorf("revoking bootstrap token: %q is no token id", tokenID)
	}
	err := c.client.CoreV1().Secrets(metav1.NamespaceSystem).Delete(ctx, tokenutil.BootstrapTokenSecretName(tokenID), metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("revoking bootstrap token %s: %w", tokenID, err)
	}
	return nil
}

func (c *Cluster) revokeAll(ctx context.Context, nodeName string) error {
	tokens, err := c.client.CoreV1().Secrets(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{LabelSelector: grantLabel + "=true"})
	if err != nil {
		return fmt.Errorf("listing bootstrap tokens: %w", err)
	}
	for _, t := range tokens.Items {
		id, ok := strings.CutPrefix(t.Name, tokenapi.BootstrapTokenSecretPrefix)
		if !ok || t.Type != corev1.SecretTypeBootstrapToken || t.Annotations[nodeAnnotation] != nodeName {
			continue
		}
		if err := c.Revoke(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

func tokenSecret(nodeName, id, secret string, expires time.Time) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:   metav1.NamespaceSystem,
			Name:        tokenutil.BootstrapTokenSecretName(id),
			Labels:      map[string]string{grantLabel: "true"},
			Annotations: map[string]string{nodeAnnotation: nodeName},
		},
		Type: tokenapi.SecretTypeBootstrapToken,
		// Data and not StringData: the same bytes for every server that may hold it.
		Data: map[string][]byte{
			tokenapi.BootstrapTokenIDKey:               []byte(id),
			tokenapi.BootstrapTokenSecretKey:           []byte(secret),
			tokenapi.BootstrapTokenExpirationKey:       []byte(expires.Format(time.RFC3339)),
			tokenapi.BootstrapTokenDescriptionKey:      []byte("metald: one join of node " + nodeName),
			tokenapi.BootstrapTokenUsageAuthentication: []byte("true"),
			tokenapi.BootstrapTokenExtraGroupsKey:      []byte(Group),
		},
	}
}

// ensureBinding lets the tokens' group ask for certificates and read the answer; it is not the role that has requests
// approved by the controller manager, since that would approve any node name.
func (c *Cluster) ensureBinding(ctx context.Context) error {
	want := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: bindingName},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "system:node-bootstrapper"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: Group}},
	}
	bindings := c.client.RbacV1().ClusterRoleBindings()
	have, err := bindings.Get(ctx, bindingName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		if _, err = bindings.Create(ctx, want, metav1.CreateOptions{}); apierrors.IsAlreadyExists(err) {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("making cluster role binding %s: %w", bindingName, err)
	}
	if have.Name == "" {
		return nil
	}
	if have.RoleRef != want.RoleRef {
		return fmt.Errorf("making cluster role binding %s: one exists for role %s; delete it", bindingName, have.RoleRef.Name)
	}
	if reflect.DeepEqual(have.Subjects, want.Subjects) {
		return nil
	}
	have.Subjects = want.Subjects
	if _, err := bindings.Update(ctx, have, metav1.UpdateOptions{}); err != nil && !apierrors.IsConflict(err) {
		return fmt.Errorf("mending cluster role binding %s: %w", bindingName, err)
	}
	return nil
}

// kubeconfig is what a kubelet bootstraps with.
func (c *Cluster) kubeconfig(token string) (string, error) {
	const name = "metald"
	config := clientcmdapi.NewConfig()
	maps.Copy(config.Clusters, map[string]*clientcmdapi.Cluster{name: {Server: c.server, CertificateAuthorityData: c.ca}})
	maps.Copy(config.AuthInfos, map[string]*clientcmdapi.AuthInfo{name: {Token: token}})
	maps.Copy(config.Contexts, map[string]*clientcmdapi.Context{name: {Cluster: name, AuthInfo: name}})
	config.CurrentContext = name
	out, err := clientcmd.Write(*config)
	if err != nil {
		return "", errors.New("writing the bootstrap kubeconfig: cannot encode it") // err may hold the token
	}
	return string(out), nil
}
