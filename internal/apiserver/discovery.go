// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/emicklei/go-restful/v3"
	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apiserver"
	apiextensionsopenapi "k8s.io/apiextensions-apiserver/pkg/generated/openapi"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/version"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/tools/cache"
	"k8s.io/kube-openapi/pkg/builder3"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/common/restfuladapter"
)

// publishCustomGroups keeps the front's list of API groups, which older clients read, in step with the definitions.
// Newer clients read the aggregated document, which both servers share.
func (s *Server) publishCustomGroups() error {
	gv := apiextensionsv1.SchemeGroupVersion
	s.front.DiscoveryGroupManager.AddGroup(apiGroup(gv.Group, []string{gv.Version}))

	definitions := s.custom.Informers.Apiextensions().V1().CustomResourceDefinitions()
	var mutex sync.Mutex
	shown := sets.New[string]()
	publish := func() {
		mutex.Lock()
		defer mutex.Unlock()
		all, err := definitions.Lister().List(labels.Everything())
		if err != nil {
			s.logger.Error("listing definitions for discovery", "err", err)
			return
		}
		versions := servedVersions(all)
		for group, served := range versions {
			s.front.DiscoveryGroupManager.AddGroup(apiGroup(group, served))
		}
		now := sets.KeySet(versions)
		for group := range shown.Difference(now) {
			s.front.DiscoveryGroupManager.RemoveGroup(group)
		}
		shown = now
	}
	_, err := definitions.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { publish() },
		UpdateFunc: func(any, any) { publish() },
		DeleteFunc: func(any) { publish() },
	})
	if err != nil {
		return fmt.Errorf("following the definitions for discovery: %w", err)
	}
	return nil
}

// servedVersions is the versions of each group that some established definition serves, the preferred one first.
func servedVersions(definitions []*apiextensionsv1.CustomResourceDefinition) map[string][]string {
	groups := map[string]sets.Set[string]{}
	for _, definition := range definitions {
		if !apihelpers.IsCRDConditionTrue(definition, apiextensionsv1.Established) {
			continue
		}
		for _, v := range definition.Spec.Versions {
			if !v.Served {
				continue
			}
			if groups[definition.Spec.Group] == nil {
				groups[definition.Spec.Group] = sets.New[string]()
			}
			groups[definition.Spec.Group].Insert(v.Name)
		}
	}
	sorted := map[string][]string{}
	for group, versions := range groups {
		sorted[group] = slices.SortedFunc(maps.Keys(versions), func(a, b string) int { return version.CompareKubeAwareVersionStrings(b, a) })
	}
	return sorted
}

func apiGroup(name string, versions []string) metav1.APIGroup {
	group := metav1.APIGroup{Name: name}
	for _, v := range versions {
		group.Versions = append(group.Versions, metav1.GroupVersionForDiscovery{GroupVersion: name + "/" + v, Version: v})
	}
	group.PreferredVersion = group.Versions[0]
	return group
}

// publishOpenAPI lets the server of custom resources publish its kinds in the front's OpenAPI documents: it has none of
// its own that a client could reach. It does so between PrepareRun, which makes the front's documents, and the start of
// the hooks that fill them.
func (s *Server) publishOpenAPI() error {
	front, custom := s.front, s.custom.GenericAPIServer
	custom.OpenAPIV3VersionedService = front.OpenAPIV3VersionedService
	custom.OpenAPIVersionedService = front.OpenAPIVersionedService
	custom.StaticOpenAPISpec = front.StaticOpenAPISpec

	// The kind CustomResourceDefinition itself is compiled into the server behind, so its document is made here.
	path := "apis/" + apiextensionsv1.SchemeGroupVersion.String()
	for _, service := range custom.Handler.GoRestfulContainer.RegisteredWebServices() {
		if service.RootPath() != "/"+path {
			continue
		}
		document, err := builder3.BuildOpenAPISpecFromRoutes(restfuladapter.AdaptWebServices([]*restful.WebService{service}), customOpenAPI())
		if err != nil {
			return fmt.Errorf("describing %s: %w", path, err)
		}
		front.OpenAPIV3VersionedService.UpdateGroupVersion(path, document)
	}
	return nil
}

// customOpenAPI describes the kinds that are compiled into the server of custom resources.
func customOpenAPI() *common.OpenAPIV3Config {
	config := genericapiserver.DefaultOpenAPIV3Config(apiextensionsopenapi.GetOpenAPIDefinitions,
		openapinamer.NewDefinitionNamer(apiextensions.Scheme))
	config.Info.Title, config.Info.Version = "metald", apiVersion
	return config
}
