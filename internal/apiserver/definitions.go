// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/discovery"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"metald.io/metald/internal/apiserver/crds"
)

const (
	// fieldManager owns what the daemon itself writes.
	fieldManager = "metald"
	// settlePoll is how often the way from a definition to a served kind is looked at.
	settlePoll = 25 * time.Millisecond
)

// ensureNamespaces creates the kept namespaces.
func (s *Server) ensureNamespaces(ctx context.Context) error {
	client, err := corev1client.NewForConfig(s.front.LoopbackClientConfig)
	if err != nil {
		return fmt.Errorf("building a client for namespaces: %w", err)
	}
	for _, name := range keptNamespaces {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		_, err := client.Namespaces().Create(ctx, namespace, metav1.CreateOptions{FieldManager: fieldManager})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("creating namespace %s: %w", name, err)
		}
	}
	return nil
}

// ensureDefinitions brings the stored definitions up to the embedded ones and waits until each kind is served. It
// applies them, so that a daemon of another version, or a person's edit, is put right at each start, and a definition
// that is right already is not written.
func (s *Server) ensureDefinitions(ctx context.Context) error {
	files, err := crds.All()
	if err != nil {
		return err
	}
	client, err := clientset.NewForConfig(s.front.LoopbackClientConfig)
	if err != nil {
		return fmt.Errorf("building a client for definitions: %w", err)
	}
	var names []string
	kinds := map[schema.GroupVersion][]string{}
	for _, file := range files {
		definition, err := file.Parse()
		if err != nil {
			return err
		}
		force := true
		_, err = client.ApiextensionsV1().CustomResourceDefinitions().Patch(ctx, definition.Name, types.ApplyYAMLPatchType, file.YAML,
			metav1.PatchOptions{FieldManager: fieldManager, Force: &force})
		if err != nil {
			return fmt.Errorf("applying definition %s: %w", definition.Name, err)
		}
		names = append(names, definition.Name)
		for _, version := range definition.Spec.Versions {
			group := schema.GroupVersion{Group: definition.Spec.Group, Version: version.Name}
			kinds[group] = append(kinds[group], definition.Spec.Names.Plural)
		}
	}
	if err := wait.PollUntilContextCancel(ctx, settlePoll, true, func(context.Context) (bool, error) {
		return s.established(names)
	}); err != nil {
		return fmt.Errorf("waiting for the definitions to be established: %w", err)
	}
	discover, err := discovery.NewDiscoveryClientForConfig(s.front.LoopbackClientConfig)
	if err != nil {
		return fmt.Errorf("building a discovery client: %w", err)
	}
	for group, plurals := range kinds {
		if err := wait.PollUntilContextCancel(ctx, settlePoll, true, func(context.Context) (bool, error) {
			list, err := discover.ServerResourcesForGroupVersion(group.String())
			return err == nil && lists(list, plurals), nil
		}); err != nil {
			return fmt.Errorf("waiting for %s to be served: %w", group, err)
		}
	}
	return nil
}

// established says whether the server of custom resources knows all these definitions as established. A definition
// whose names are taken by another one never is, so that is an error.
func (s *Server) established(names []string) (bool, error) {
	lister := s.custom.Informers.Apiextensions().V1().CustomResourceDefinitions().Lister()
	for _, name := range names {
		definition, err := lister.Get(name)
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if names := apihelpers.FindCRDCondition(definition, apiextensionsv1.NamesAccepted); names != nil && names.Status == apiextensionsv1.ConditionFalse {
			return false, fmt.Errorf("definition %s: %s", name, names.Message)
		}
		if !apihelpers.IsCRDConditionTrue(definition, apiextensionsv1.Established) {
			return false, nil
		}
	}
	return true, nil
}

func lists(list *metav1.APIResourceList, plurals []string) bool {
	for _, plural := range plurals {
		if !slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == plural }) {
			return false
		}
	}
	return true
}
