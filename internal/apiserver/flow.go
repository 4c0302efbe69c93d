// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"fmt"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"
	"k8s.io/apiserver/pkg/authentication/user"
	genericapiserver "k8s.io/apiserver/pkg/server"
	utilflowcontrol "k8s.io/apiserver/pkg/util/flowcontrol"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	flowcontrolv1client "k8s.io/client-go/kubernetes/typed/flowcontrol/v1"
	"k8s.io/client-go/rest"
)

// flowResync is how often the flow schemas are looked at again without a change.
const flowResync = 10 * time.Minute

// fair lets the library's priority and fairness share the server's seats between levels and, within a level, between users.
// It stands behind authentication; what limit refuses before never gets there.
// The informers are those it learns of flow schemas by; the server starts them.
func fair(c *genericapiserver.Config) (informers.SharedInformerFactory, error) {
	config := rest.CopyConfig(c.LoopbackClientConfig)
	config.UserAgent = fieldManager + "/flows"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("building a client for flow schemas: %w", err)
	}
	flows := informers.NewSharedInformerFactory(client, flowResync)
	c.FlowControl = utilflowcontrol.New(flows, client.FlowcontrolV1(), c.MaxRequestsInFlight+c.MaxMutatingRequestsInFlight)
	return flows, nil
}

// operatorGroups are those whose requests go before other people's.
var operatorGroups = []string{"metald:admins", "metald:operators"}

// readyFlows are the objects that a fresh inventory gets: those that the library relies on, and of those that it suggests the
// ones whose subjects can be here. Nodes, a scheduler or service accounts never call this API, and a level of theirs would
// only keep seats from others.
func readyFlows() ([]*flowcontrolv1.PriorityLevelConfiguration, []*flowcontrolv1.FlowSchema) {
	levels := append(slices.Clone(bootstrap.MandatoryPriorityLevelConfigurations),
		bootstrap.SuggestedPriorityLevelConfigurationLeaderElection,
		bootstrap.SuggestedPriorityLevelConfigurationWorkloadHigh,
		bootstrap.SuggestedPriorityLevelConfigurationGlobalDefault)
	schemas := append(slices.Clone(bootstrap.MandatoryFlowSchemas),
		bootstrap.SuggestedFlowSchemaProbes,
		// Whose lease runs out because its renewal waited behind a list loses its leadership, and starts anew with a list.
		flow("metald-leases", bootstrap.SuggestedPriorityLevelConfigurationLeaderElection, 200, []string{user.AllAuthenticated},
			[]flowcontrolv1.ResourcePolicyRule{{Verbs: []string{"get", "create", "update"}, APIGroups: []string{coordinationv1.GroupName},
				Resources: []string{"leases"}, Namespaces: []string{flowcontrolv1.NamespaceEvery}}}, nil),
		flow("metald-operators", bootstrap.SuggestedPriorityLevelConfigurationWorkloadHigh, 1000, operatorGroups,
			[]flowcontrolv1.ResourcePolicyRule{{Verbs: []string{flowcontrolv1.VerbAll}, APIGroups: []string{flowcontrolv1.APIGroupAll},
				Resources: []string{flowcontrolv1.ResourceAll}, Namespaces: []string{flowcontrolv1.NamespaceEvery}, ClusterScope: true}},
			[]flowcontrolv1.NonResourcePolicyRule{{Verbs: []string{flowcontrolv1.VerbAll}, NonResourceURLs: []string{flowcontrolv1.NonResourceAll}}}),
		bootstrap.SuggestedFlowSchemaGlobalDefault)
	return levels, schemas
}

// flow is a flow schema in which each user of some groups is fair to the others.
func flow(name string, level *flowcontrolv1.PriorityLevelConfiguration, precedence int32, groups []string,
	resources []flowcontrolv1.ResourcePolicyRule, paths []flowcontrolv1.NonResourcePolicyRule) *flowcontrolv1.FlowSchema {
	var subjects []flowcontrolv1.Subject
	for _, name := range groups {
		subjects = append(subjects, flowcontrolv1.Subject{Kind: flowcontrolv1.SubjectKindGroup, Group: &flowcontrolv1.GroupSubject{Name: name}})
	}
	return &flowcontrolv1.FlowSchema{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{flowcontrolv1.AutoUpdateAnnotationKey: "true"}},
		Spec: flowcontrolv1.FlowSchemaSpec{
			PriorityLevelConfiguration: flowcontrolv1.PriorityLevelConfigurationReference{Name: level.Name},
			MatchingPrecedence:         precedence,
			DistinguisherMethod:        &flowcontrolv1.FlowDistinguisherMethod{Type: flowcontrolv1.FlowDistinguisherMethodByUserType},
			Rules:                      []flowcontrolv1.PolicyRulesWithSubjects{{Subjects: subjects, ResourceRules: resources, NonResourceRules: paths}},
		},
	}
}

// ensureFlows makes the ready levels and schemas that are missing, and gives back its spec to one that was changed, unless its
// annotation apf.kubernetes.io/autoupdate-spec is no longer "true".
func (s *Server) ensureFlows(ctx context.Context) error {
	client, err := flowcontrolv1client.NewForConfig(s.front.LoopbackClientConfig)
	if err != nil {
		return fmt.Errorf("building a client for flow schemas: %w", err)
	}
	levels, schemas := readyFlows()
	for _, want := range levels { // first: a schema without its level is ignored
		want = want.DeepCopy()
		defaultPriorityLevel(want)
		is, err := client.PriorityLevelConfigurations().Get(ctx, want.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			_, err = client.PriorityLevelConfigurations().Create(ctx, want, metav1.CreateOptions{FieldManager: fieldManager})
		case err == nil && is.Annotations[flowcontrolv1.AutoUpdateAnnotationKey] == "true" && !equality.Semantic.DeepEqual(is.Spec, want.Spec):
			is.Spec = want.Spec
			_, err = client.PriorityLevelConfigurations().Update(ctx, is, metav1.UpdateOptions{FieldManager: fieldManager})
		}
		if err != nil {
			return fmt.Errorf("making PriorityLevelConfiguration %s: %w", want.Name, err)
		}
	}
	for _, want := range schemas {
		is, err := client.FlowSchemas().Get(ctx, want.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			_, err = client.FlowSchemas().Create(ctx, want, metav1.CreateOptions{FieldManager: fieldManager})
		case err == nil && is.Annotations[flowcontrolv1.AutoUpdateAnnotationKey] == "true" && !equality.Semantic.DeepEqual(is.Spec, want.Spec):
			is.Spec = want.Spec
			_, err = client.FlowSchemas().Update(ctx, is, metav1.UpdateOptions{FieldManager: fieldManager})
		}
		if err != nil {
			return fmt.Errorf("making FlowSchema %s: %w", want.Name, err)
		}
	}
	return nil
}
