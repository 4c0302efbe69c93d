// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
)

// digest stands for a sha256 in hex.
var digest = strings.Repeat("a", 64)

func TestHostsStatusIsItsOwn(t *testing.T) {
	d, namespace := sharedDoor(t)
	client := d.admin(t).Resource(hosts).Namespace(namespace)
	host := hostNamed(t, namespace, "n1")
	host.Object["status"] = map[string]any{"errorMessage": "a user's"}
	made, err := client.Create(t.Context(), host, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if status, ok := made.Object["status"]; ok {
		t.Errorf("a status came in with a create: %v", status)
	}
	if got := made.GetGeneration(); got != 1 {
		t.Errorf("generation after create: got %d, want 1", got)
	}

	status := []byte(`{"spec":{"online":false},"status":{"provisioning":{"state":"available","ID":"","image":{"url":""}},"errorCount":0,"errorMessage":"","operationalStatus":"OK","poweredOn":true}}`)
	changed, err := client.Patch(t.Context(), "n1", types.MergePatchType, status, metav1.PatchOptions{}, "status")
	if err != nil {
		t.Fatal(err)
	}
	online, _, _ := unstructured.NestedBool(changed.Object, "spec", "online")
	state, _, _ := unstructured.NestedString(changed.Object, "status", "provisioning", "state")
	if !online || state != "available" || changed.GetGeneration() != 1 {
		t.Errorf("after a patch of the status: got online %v, state %q, generation %d; want true, available, 1", online, state, changed.GetGeneration())
	}

	changed, err = client.Patch(t.Context(), "n1", types.MergePatchType,
		[]byte(`{"spec":{"online":false},"status":{"poweredOn":false}}`), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	online, _, _ = unstructured.NestedBool(changed.Object, "spec", "online")
	powered, _, _ := unstructured.NestedBool(changed.Object, "status", "poweredOn")
	if online || !powered || changed.GetGeneration() != 2 {
		t.Errorf("after a patch of the spec: got online %v, powered %v, generation %d; want false, true, 2", online, powered, changed.GetGeneration())
	}
	if _, err := client.Patch(t.Context(), "n1", types.MergePatchType, []byte(`{"status":{"poweredOn":"yes"}}`), metav1.PatchOptions{}, "status"); !apierrors.IsInvalid(err) {
		t.Errorf("a status of the wrong type: got %v, want Invalid", err)
	}
}

func TestUnknownFields(t *testing.T) {
	d, namespace := sharedDoor(t)
	client := d.admin(t).Resource(hosts).Namespace(namespace)
	for name, test := range map[string]struct {
		validation string
		want       string // in the error; "" for none
	}{
		"strict":  {metav1.FieldValidationStrict, `unknown field "spec.onlin"`},
		"warning": {metav1.FieldValidationWarn, ""},
		"ignored": {metav1.FieldValidationIgnore, ""},
	} {
		t.Run(name, func(t *testing.T) {
			host := hostNamed(t, namespace, name)
			if err := unstructured.SetNestedField(host.Object, true, "spec", "onlin"); err != nil {
				t.Fatal(err)
			}
			made, err := client.Create(t.Context(), host, metav1.CreateOptions{FieldValidation: test.validation})
			if test.want != "" {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("got %v, want an error with %s", err, test.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, found, _ := unstructured.NestedBool(made.Object, "spec", "onlin"); found {
				t.Error("the unknown field was kept, want it pruned")
			}
		})
	}
}

func TestWishesAreChecked(t *testing.T) {
	d, name := sharedDoor(t)
	client := d.admin(t)
	image := func(change func(spec map[string]any)) *unstructured.Unstructured {
		o := object(t, fmt.Sprintf(`
apiVersion: metald.io/v1alpha1
kind: Image
metadata: {name: %[2]s}
spec:
  architecture: amd64
  uki: {sha256: %[1]s, sizeBytes: 1}
  root: {sha256: %[1]s, sizeBytes: 2, format: erofs, hashOffset: 1}
  rootHash: %[1]s
`, digest, name))
		change(o.Object["spec"].(map[string]any))
		return o
	}
	for title, test := range map[string]struct {
		change func(spec map[string]any)
		want   string
	}{
		"unknown architecture": {func(s map[string]any) { s["architecture"] = "riscv64" }, "Unsupported value"},
		"short digest":         {func(s map[string]any) { s["rootHash"] = "abc" }, "should match"},
		"no UKI":               {func(s map[string]any) { delete(s, "uki") }, "Required value"},
		"size as text":         {func(s map[string]any) { s["uki"].(map[string]any)["sizeBytes"] = "1" }, "must be of type integer"},
	} {
		t.Run(title, func(t *testing.T) {
			_, err := client.Resource(images).Create(t.Context(), image(test.change), metav1.CreateOptions{})
			if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want Invalid with %q", err, test.want)
			}
		})
	}
	if _, err := client.Resource(images).Create(t.Context(), image(func(map[string]any) {}), metav1.CreateOptions{}); err != nil {
		t.Fatalf("creating a good Image: %v", err)
	}
	_, err := client.Resource(images).Patch(t.Context(), name, types.MergePatchType, []byte(`{"spec":{"os":"another"}}`), metav1.PatchOptions{})
	if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "an Image is immutable") {
		t.Errorf("changing an Image: got %v, want a refusal that says it is immutable", err)
	}
}

func TestApply(t *testing.T) {
	d, namespace := sharedDoor(t)
	client := d.admin(t)
	n := client.Resource(hosts).Namespace(namespace)
	host := hostNamed(t, namespace, "n1")
	first, err := n.Apply(t.Context(), "n1", host, metav1.ApplyOptions{FieldManager: "one"})
	if err != nil {
		t.Fatal(err)
	}
	again, err := n.Apply(t.Context(), "n1", host, metav1.ApplyOptions{FieldManager: "one"})
	if err != nil {
		t.Fatal(err)
	}
	if first.GetResourceVersion() != again.GetResourceVersion() {
		t.Errorf("an apply that changes nothing raised the version from %s to %s", first.GetResourceVersion(), again.GetResourceVersion())
	}
	other := hostNamed(t, namespace, "n1")
	other.Object["spec"] = map[string]any{"online": false}
	_, err = n.Apply(t.Context(), "n1", other, metav1.ApplyOptions{FieldManager: "two"})
	if !apierrors.IsConflict(err) || !strings.Contains(err.Error(), `conflict with "one": .spec.online`) {
		t.Errorf("another manager's apply: got %v, want a conflict that names one and .spec.online", err)
	}
	forced, err := n.Apply(t.Context(), "n1", other, metav1.ApplyOptions{FieldManager: "two", Force: true})
	if err != nil {
		t.Fatal(err)
	}
	if online, _, _ := unstructured.NestedBool(forced.Object, "spec", "online"); online {
		t.Error("a forced apply did not change spec.online")
	}
}

// TestSecretsText writes stringData in each way there is; what is stored and owned is data.
func TestSecretsText(t *testing.T) {
	d, namespace := sharedDoor(t)
	client := d.admin(t).Resource(secrets).Namespace(namespace)
	secret := object(t, `{apiVersion: v1, kind: Secret, metadata: {name: bmc, namespace: `+namespace+`}, stringData: {username: root}}`)
	if _, err := client.Create(t.Context(), secret, metav1.CreateOptions{FieldManager: "creator"}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Apply(t.Context(), "bmc", secret, metav1.ApplyOptions{FieldManager: "applier"}); err != nil {
		t.Errorf("applying what is there: got %v, want no conflict", err)
	}
	for name, patch := range map[types.PatchType]string{
		types.MergePatchType:          `{"stringData":{"password":"merge"}}`,
		types.StrategicMergePatchType: `{"stringData":{"password":"strategic"}}`,
		types.JSONPatchType:           `[{"op":"add","path":"/stringData","value":{"password":"json"}}]`,
	} {
		got, err := client.Patch(t.Context(), "bmc", name, []byte(patch), metav1.PatchOptions{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		data, _, _ := unstructured.NestedStringMap(got.Object, "data")
		if _, left := got.Object["stringData"]; left || data["password"] == "" || data["username"] != "cm9vdA==" {
			t.Errorf("%s: got %v, want both keys in data and no stringData", name, got.Object)
		}
	}
	if _, err := client.Patch(t.Context(), "bmc", types.MergePatchType, []byte(`{"type":"other"}`), metav1.PatchOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("changing a Secret's type: got %v, want Invalid", err)
	}
}

func TestTables(t *testing.T) {
	d, namespace := sharedDoor(t)
	client := d.admin(t)
	if _, err := client.Resource(hosts).Namespace(namespace).Create(t.Context(), hostNamed(t, namespace, "n1"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, made := range []struct {
		resource schema.GroupVersionResource
		text     string
	}{
		{secrets, `{apiVersion: v1, kind: Secret, metadata: {name: bmc}, stringData: {a: b, c: d}}`},
		{configMaps, `{apiVersion: v1, kind: ConfigMap, metadata: {name: site}, data: {a: b}}`},
		{leases, `{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: leader}, spec: {holderIdentity: one}}`},
		{events, `
apiVersion: v1
kind: Event
metadata: {name: n1.1}
involvedObject: {apiVersion: metal3.io/v1alpha1, kind: BareMetalHost, namespace: ` + namespace + `, name: n1}
reason: Registered
message: "the BMC answers\n"
type: Normal
count: 3
reportingComponent: metald
`},
	} {
		if _, err := client.Resource(made.resource).Namespace(namespace).Create(t.Context(), object(t, made.text), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := discovery.NewDiscoveryClientForConfig(d.client(t, "admin", "system:masters"))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/apis/metal3.io/v1alpha1/namespaces/" + namespace + "/baremetalhosts": "Name|Status+|State|Consumer|BMC+|Online|Error|Age: n1||||redfish://192.0.2.1|true||AGE",
		"/api/v1/namespaces/metald":                                        "Name|Status|Age: metald|Active|AGE",
		"/api/v1/namespaces/" + namespace + "/secrets":                     "Name|Type|Data|Age: bmc|Opaque|2|AGE",
		"/api/v1/namespaces/" + namespace + "/configmaps":                  "Name|Data|Age: site|1|AGE",
		"/apis/coordination.k8s.io/v1/namespaces/" + namespace + "/leases": "Name|Holder|Age: leader|one|AGE",
		"/api/v1/namespaces/" + namespace + "/events":                      "Last Seen|Type|Reason|Object|Source+|Message|First Seen+|Count+|Name+: <unknown>|Normal|Registered|baremetalhost/n1|metald|the BMC answers|<unknown>|3|n1.1",
	} {
		body, err := raw.RESTClient().Get().AbsPath(path).SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").DoRaw(t.Context())
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		var table metav1.Table
		if err := json.Unmarshal(body, &table); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, show(table)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
}

// show writes a table with one row as text; a + marks a column of the wide output, and an age is AGE.
func show(table metav1.Table) string {
	var heads, cells []string
	for _, column := range table.ColumnDefinitions {
		name := column.Name
		if column.Priority > 0 {
			name += "+"
		}
		heads = append(heads, name)
	}
	for _, row := range table.Rows {
		for i, cell := range row.Cells {
			text := fmt.Sprint(cell)
			if cell == nil {
				text = ""
			}
			if table.ColumnDefinitions[i].Name == "Age" && text != "" {
				text = "AGE"
			}
			cells = append(cells, text)
		}
	}
	return strings.Join(heads, "|") + ": " + strings.Join(cells, "|")
}
