// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"strings"
	"testing"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// typed is a client of compiled-in kinds for an administrator.
func (d *door) typed(t *testing.T) *kubernetes.Clientset {
	t.Helper()
	client, err := kubernetes.NewForConfig(d.client(t, "admin", "system:masters"))
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// TestFlowsAreKnown looks at the ready schemas: each has a level, the library has taken them up and says so in their status,
// and one that a person has changed is changed.
func TestFlowsAreKnown(t *testing.T) {
	d, name := sharedDoor(t)
	flows := d.typed(t).FlowcontrolV1()
	for schema, level := range map[string]string{
		"exempt": "exempt", "probes": "exempt", "metald-leases": "leader-election", "metald-operators": "workload-high",
		"global-default": "global-default", "catch-all": "catch-all",
	} {
		eventually(t, "the library says of "+schema+" that it has its level", func() bool {
			is, err := flows.FlowSchemas().Get(t.Context(), schema, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return is.Spec.PriorityLevelConfiguration.Name == level && len(is.Status.Conditions) == 1 &&
				is.Status.Conditions[0].Type == flowcontrolv1.FlowSchemaConditionDangling && is.Status.Conditions[0].Status == flowcontrolv1.ConditionFalse
		})
	}
	table, err := d.typed(t).FlowcontrolV1().RESTClient().Get().Resource("flowschemas").SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").DoRaw(t.Context())
	if err != nil || !strings.Contains(string(table), `"metald-operators","workload-high",1000,"ByUser"`) {
		t.Errorf("as kubectl shows them: got %v, %s", err, table)
	}

	level := &flowcontrolv1.PriorityLevelConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: flowcontrolv1.PriorityLevelConfigurationSpec{Type: flowcontrolv1.PriorityLevelEnablementLimited, Limited: &flowcontrolv1.LimitedPriorityLevelConfiguration{
			LimitResponse: flowcontrolv1.LimitResponse{Type: flowcontrolv1.LimitResponseTypeQueue, Queuing: &flowcontrolv1.QueuingConfiguration{}}}},
	}
	made, err := flows.PriorityLevelConfigurations().Create(t.Context(), level, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	limited := made.Spec.Limited
	if *limited.NominalConcurrencyShares != 30 || *limited.LendablePercent != 0 || *limited.LimitResponse.Queuing != (flowcontrolv1.QueuingConfiguration{Queues: 64, HandSize: 8, QueueLengthLimit: 50}) {
		t.Errorf("what was left out: got %v shares, %v %% to lend, %+v", *limited.NominalConcurrencyShares, *limited.LendablePercent, limited.LimitResponse.Queuing)
	}
	changed, err := flows.PriorityLevelConfigurations().Patch(t.Context(), name, types.MergePatchType,
		[]byte(`{"spec":{"limited":{"nominalConcurrencyShares":1}},"status":{"conditions":[{"type":"a user's"}]}}`), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if changed.Generation != 2 || len(changed.Status.Conditions) != 0 {
		t.Errorf("after a change: got generation %d and status %v, want 2 and none", changed.Generation, changed.Status)
	}
	if err := flows.PriorityLevelConfigurations().Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// TestFlowRules asks for what the library would ignore or be confused by.
func TestFlowRules(t *testing.T) {
	d, _ := sharedDoor(t)
	client := d.admin(t)
	schemas := flowcontrolv1.SchemeGroupVersion.WithResource("flowschemas")
	levels := flowcontrolv1.SchemeGroupVersion.WithResource("prioritylevelconfigurations")
	rule := `{subjects: [{kind: Group, group: {name: g}}], resourceRules: [{verbs: ["*"], apiGroups: ["*"], resources: ["*"], namespaces: ["*"]}]}`
	for title, test := range map[string]struct{ spec, want string }{
		"no level":            {`{matchingPrecedence: 5, rules: [` + rule + `]}`, "spec.priorityLevelConfiguration.name: Required"},
		"the first to match":  {`{matchingPrecedence: 1, priorityLevelConfiguration: {name: l}, rules: [` + rule + `]}`, "that of the flow schema exempt"},
		"past the last":       {`{matchingPrecedence: 10001, priorityLevelConfiguration: {name: l}, rules: [` + rule + `]}`, "must be from 1 to 10000"},
		"an unknown method":   {`{priorityLevelConfiguration: {name: l}, distinguisherMethod: {type: ByMood}, rules: [` + rule + `]}`, "Unsupported value"},
		"nobody":              {`{priorityLevelConfiguration: {name: l}, rules: [{nonResourceRules: [{verbs: [get], nonResourceURLs: ["*"]}]}]}`, "about nobody"},
		"nothing":             {`{priorityLevelConfiguration: {name: l}, rules: [{subjects: [{kind: User, user: {name: u}}]}]}`, "about resources or about paths"},
		"a kind of its own":   {`{priorityLevelConfiguration: {name: l}, rules: [{subjects: [{kind: Dog}], nonResourceRules: [{verbs: [get], nonResourceURLs: ["*"]}]}]}`, "Unsupported value"},
		"another than it is":  {`{priorityLevelConfiguration: {name: l}, rules: [{subjects: [{kind: User, group: {name: g}}], nonResourceRules: [{verbs: [get], nonResourceURLs: ["*"]}]}]}`, "must name what its kind says"},
		"a star among others": {`{priorityLevelConfiguration: {name: l}, rules: [{subjects: [{kind: User, user: {name: u}}], nonResourceRules: [{verbs: [get, "*"], nonResourceURLs: ["*"]}]}]}`, "stands alone"},
		"half a path":         {`{priorityLevelConfiguration: {name: l}, rules: [{subjects: [{kind: User, user: {name: u}}], nonResourceRules: [{verbs: [get], nonResourceURLs: [/a*]}]}]}`, "ends in /*"},
	} {
		_, err := client.Resource(schemas).Create(t.Context(), object(t, `{apiVersion: flowcontrol.apiserver.k8s.io/v1, kind: FlowSchema, metadata: {name: bad}, spec: `+test.spec+`}`), metav1.CreateOptions{})
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("a schema with %s: got %v, want it invalid for %q", title, err, test.want)
		}
	}
	for title, test := range map[string]struct{ name, spec, want string }{
		"no type":              {"bad", `{}`, "spec.type: Unsupported value"},
		"no limit":             {"bad", `{type: Limited}`, "spec.limited: Required"},
		"no end":               {"bad", `{type: Exempt}`, "is that of the priority level exempt"},
		"queues but rejection": {"bad", `{type: Limited, limited: {limitResponse: {type: Reject, queuing: {}}}}`, "does not wait"},
		"no queues":            {"bad", `{type: Limited, limited: {limitResponse: {type: Queue}}}`, "queuing: Required"},
		"a hand too large":     {"bad", `{type: Limited, limited: {limitResponse: {type: Queue, queuing: {queues: 2, handSize: 3}}}}`, "must not be greater than queues"},
		"a hash too small":     {"bad", `{type: Limited, limited: {limitResponse: {type: Queue, queuing: {queues: 512, handSize: 12}}}}`, "bits of a hash"},
		"more to lend than all": {"bad", `{type: Limited, limited: {lendablePercent: 101, limitResponse: {type: Reject}}}`,
			"must be from 0 to 100"},
		"another catch-all": {"catch-all", `{type: Limited, limited: {nominalConcurrencyShares: 99, limitResponse: {type: Reject}}}`, "relies on it"},
	} {
		level := object(t, `{apiVersion: flowcontrol.apiserver.k8s.io/v1, kind: PriorityLevelConfiguration, metadata: {name: `+test.name+`}, spec: `+test.spec+`}`)
		_, err := client.Resource(levels).Create(t.Context(), level, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			is, err2 := client.Resource(levels).Get(t.Context(), test.name, metav1.GetOptions{})
			if err2 != nil {
				t.Fatal(err2)
			}
			level.SetResourceVersion(is.GetResourceVersion())
			_, err = client.Resource(levels).Update(t.Context(), level, metav1.UpdateOptions{})
		}
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("a level with %s: got %v, want it invalid for %q", title, err, test.want)
		}
	}
}
