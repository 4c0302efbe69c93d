// SPDX-License-Identifier: Apache-2.0

package clients

import (
	"strings"
	"testing"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/polling"
	"github.com/fluxcd/pkg/ssa"
	"github.com/fluxcd/pkg/ssa/utils"
	"github.com/google/go-cmp/cmp"
	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// sources is what a repository of a site would hold, in no good order: Flux sorts them itself.
const sources = `apiVersion: metal3.io/v1alpha1
kind: BareMetalHost
metadata: {namespace: site, name: n1, labels: {rack: a}}
spec: {online: true, bootMACAddress: "52:54:00:00:70:01", bmc: {address: "redfish://127.0.0.1:1/redfish/v1/Systems/1", credentialsName: not-there}}
---
apiVersion: v1
kind: Secret
metadata: {namespace: site, name: n1-bmc}
stringData: {username: admin, password: hunter2}
---
apiVersion: metald.io/v1alpha1
kind: NodePool
metadata: {namespace: site, name: workers}
spec: {replicas: 0, image: node, cluster: prod}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {namespace: site, name: tim}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "metald:tenant"}
subjects: [{kind: User, name: tim}]
---
apiVersion: example.com/v1
kind: Lamp
metadata: {namespace: site, name: l1}
spec: {on: true}
---
apiVersion: v1
kind: ConfigMap
metadata: {namespace: site, name: notes}
data: {owner: site}
---
apiVersion: v1
kind: Namespace
metadata: {name: site}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: lamps.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: lamps, singular: lamp, kind: Lamp}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {on: {type: boolean}, watts: {type: integer, default: 60}}}}}
`

// The library that Flux's kustomize-controller applies with: a definition and its object in one go, nothing to do the second
// time though the daemon has written status and defaults meanwhile, drift put right, and what left the repository pruned.
func TestFluxApplies(t *testing.T) {
	m := startMetald(t)
	c, err := client.New(m.client(t, m.login(t, "flux", "metald:admins")), client.Options{Scheme: scheme(t)})
	if err != nil {
		t.Fatal(err)
	}
	manager := ssa.NewResourceManager(c, polling.NewStatusPoller(c, c.RESTMapper(), polling.Options{}),
		ssa.Owner{Field: "kustomize-controller", Group: "kustomize.toolkit.fluxcd.io"})
	read := func() []*unstructured.Unstructured {
		t.Helper()
		objects, err := utils.ReadObjects(strings.NewReader(sources))
		if err != nil {
			t.Fatal(err)
		}
		manager.SetOwnerLabels(objects, "site", "flux-system")
		return objects
	}
	apply := func() map[string]ssa.Action {
		t.Helper()
		changes, err := manager.ApplyAllStaged(t.Context(), read(), ssa.DefaultApplyOptions())
		if err != nil {
			t.Fatalf("applying: %v", err)
		}
		return changes.ToMap()
	}
	all := func(action ssa.Action) map[string]ssa.Action {
		return map[string]ssa.Action{"BareMetalHost/site/n1": action, "Secret/site/n1-bmc": action, "NodePool/site/workers": action,
			"RoleBinding/site/tim": action, "Lamp/site/l1": action, "ConfigMap/site/notes": action, "Namespace/site": action,
			"CustomResourceDefinition/lamps.example.com": action}
	}
	if diff := cmp.Diff(all(ssa.CreatedAction), apply()); diff != "" {
		t.Errorf("the first time (-want +got):\n%s", diff)
	}
	host := &metal3.BareMetalHost{ObjectMeta: metav1.ObjectMeta{Namespace: "site", Name: "n1"}}
	eventually(t, "the daemon has written the host's status", func() bool {
		return c.Get(t.Context(), client.ObjectKeyFromObject(host), host) == nil && host.Status.ErrorMessage != ""
	})
	if diff := cmp.Diff(all(ssa.UnchangedAction), apply()); diff != "" {
		t.Errorf("the second time (-want +got):\n%s", diff)
	}

	// Somebody switches the host off by hand.
	if err := c.Patch(t.Context(), host, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"online":false}}`)), client.FieldOwner("somebody")); err != nil {
		t.Fatal(err)
	}
	wish := read()[0]
	if got := wish.GetKind(); got != "BareMetalHost" {
		t.Fatalf("the first source is a %s", got)
	}
	entry, _, _, err := manager.Diff(t.Context(), wish, ssa.DefaultDiffOptions())
	if err != nil || entry.Action != ssa.ConfiguredAction {
		t.Errorf("comparing a host that was changed by hand: got %v, err %v", entry, err)
	}
	want := all(ssa.UnchangedAction)
	want["BareMetalHost/site/n1"] = ssa.ConfiguredAction
	if diff := cmp.Diff(want, apply()); diff != "" {
		t.Errorf("after a change by hand (-want +got):\n%s", diff)
	}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(host), host); err != nil || !host.Spec.Online {
		t.Errorf("the host is not switched on again: online %v, err %v", host.Spec.Online, err)
	}

	// Flux waits for what it applied. What has no conditions is well at once; the host says itself that it is stuck.
	var well, stuck []*unstructured.Unstructured
	for _, object := range read() {
		if object.GetKind() == "BareMetalHost" {
			stuck = append(stuck, object)
		} else if object.GetKind() != "NodePool" {
			well = append(well, object)
		}
	}
	options := ssa.WaitOptions{Interval: 100 * time.Millisecond, Timeout: 20 * time.Second, FailFast: true}
	if err := manager.Wait(well, options); err != nil {
		t.Errorf("waiting for what is well: %v", err)
	}
	if err := manager.Wait(stuck, options); err == nil || !strings.Contains(err.Error(), "Failed") {
		t.Errorf("waiting for a host that is stuck: got %v, want a failure", err)
	}

	// The host and its Secret leave the repository, and a thing of somebody else's stays.
	foreign := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"namespace": "site", "name": "theirs"}}}
	if err := c.Create(t.Context(), foreign.DeepCopy()); err != nil {
		t.Fatal(err)
	}
	gone := append(stuck, read()[1], foreign)
	deleted, err := manager.DeleteAll(t.Context(), gone, ssa.DeleteOptions{
		PropagationPolicy: metav1.DeletePropagationBackground, Inclusions: manager.GetOwnerLabels("site", "flux-system")})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]ssa.Action{"BareMetalHost/site/n1": ssa.DeletedAction, read()[1].GetKind() + "/site/" + read()[1].GetName(): ssa.DeletedAction,
		"ConfigMap/site/theirs": ssa.SkippedAction}, deleted.ToMap()); diff != "" {
		t.Errorf("pruned (-want +got):\n%s", diff)
	}
	if err := manager.WaitForTermination(gone[:2], options); err != nil {
		t.Errorf("waiting for the end of what was pruned: %v", err)
	}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(host), host); !apierrors.IsNotFound(err) {
		t.Errorf("the pruned host: got %v, want it gone", err)
	}
}
