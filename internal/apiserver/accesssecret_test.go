// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestSecretsAreWrittenNotRead lets an operator write a Secret in every way there is, and looks for its words in each answer.
func TestSecretsAreWrittenNotRead(t *testing.T) {
	d, namespace := sharedDoor(t)
	const word = "correct-horse-battery"
	encoded := base64.StdEncoding.EncodeToString([]byte(word))
	admin, operator := d.person(t, "admin", "system:masters"), (&examiner{address: "https://" + d.address}).as(t, d.client(t, "otto", "metald:operators"))
	path := "/api/v1/namespaces/" + namespace + "/secrets"
	one := path + "/bmc"
	seal := func(t *testing.T) {
		t.Helper()
		secret := object(t, `{apiVersion: v1, kind: Secret, metadata: {name: bmc, namespace: `+namespace+`, labels: {l: `+word+`}, annotations: {a: `+word+`}, finalizers: [example.org/hold]},
			stringData: {username: admin, password: `+word+`}}`)
		_ = d.admin(t).Resource(secrets).Namespace(namespace).Delete(t.Context(), "bmc", metav1.DeleteOptions{})
		release(t, d, namespace)
		if _, err := d.admin(t).Resource(secrets).Namespace(namespace).Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	const merge, json = "application/merge-patch+json", "application/json-patch+json"
	apply := `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"bmc"},"stringData":{"more":"x"}}`
	for name, test := range map[string]struct {
		call call
		want int
	}{
		"get":               {call{path: one}, 403},
		"list":              {call{path: path}, 403},
		"list of all":       {call{path: "/api/v1/secrets"}, 403},
		"watch":             {call{path: path + "?watch=true&timeoutSeconds=1"}, 403},
		"empty patch":       {call{method: "PATCH", path: one, kind: merge, body: `{}`}, 200},
		"dry run":           {call{method: "PATCH", path: one + "?dryRun=All", kind: merge, body: `{}`}, 200},
		"as YAML":           {call{method: "PATCH", path: one, kind: merge, body: `{"stringData":{"password":"new"}}`, accept: "application/yaml"}, 200},
		"as protobuf":       {call{method: "PATCH", path: one, kind: merge, body: `{}`, accept: "application/vnd.kubernetes.protobuf"}, 200},
		"as a table":        {call{method: "PATCH", path: one, kind: merge, body: `{}`, accept: "application/json;as=Table;v=v1;g=meta.k8s.io"}, 200},
		"metadata alone":    {call{method: "PATCH", path: one, kind: merge, body: `{}`, accept: "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"}, 200},
		"strategic patch":   {call{method: "PATCH", path: one, kind: "application/strategic-merge-patch+json", body: `{"metadata":{"labels":{"x":"y"}}}`}, 200},
		"apply":             {call{method: "PATCH", path: one + "?fieldManager=me&force=true", kind: "application/apply-patch+yaml", body: apply}, 200},
		"put":               {call{method: "PUT", path: one, kind: "application/json", body: apply}, 200},
		"put of nonsense":   {call{method: "PUT", path: one, kind: "application/json", body: strings.Replace(apply, `"stringData"`, `"type":"other","stringData"`, 1)}, 422},
		"nonsense":          {call{method: "PATCH", path: one, kind: merge, body: `{"metadata":{"creationTimestamp":"x"}}`}, 422},
		"JSON patch copies": {call{method: "PATCH", path: one, kind: json, body: `[{"op":"copy","from":"/data/password","path":"/metadata/labels/x"}]`}, 403},
		"JSON patch errs":   {call{method: "PATCH", path: one, kind: json, body: `[{"op":"copy","from":"/data/password","path":"/metadata/creationTimestamp"}]`}, 403},
		"JSON patch tries":  {call{method: "PATCH", path: one, kind: json + "; charset=utf-8", body: `[{"op":"test","path":"/data/password","value":"x"}]`}, 403},
		"JSON patch, odd":   {call{method: "PATCH", path: one, kind: "Application/JSON-Patch+json", body: `[]`}, 403},
		"delete":            {call{method: "DELETE", path: one}, 200},
		"delete all":        {call{method: "DELETE", path: path}, 200},
	} {
		t.Run(name, func(t *testing.T) {
			seal(t)
			got := operator.ask(test.call)
			if got.status != test.want {
				t.Errorf("got %d, want %d: %s", got.status, test.want, got.body)
			}
			if strings.Contains(got.body, word) || strings.Contains(got.body, encoded) {
				t.Errorf("the answer tells the password:\n%s", got.body)
			}
			if test.want == http.StatusOK && !strings.Contains(got.body, "bmc") {
				t.Errorf("the answer does not name what was written:\n%s", got.body)
			}
		})
	}

	// What was written is there, and who may read it is told by the same requests.
	seal(t)
	if got := operator.ask(call{method: "PATCH", path: one, kind: merge, body: `{"stringData":{"password":"changed"}}`}); got.status != http.StatusOK {
		t.Fatalf("changing the password: got %d %s", got.status, got.body)
	}
	secret, err := admin.CoreV1().Secrets(namespace).Get(t.Context(), "bmc", metav1.GetOptions{})
	if err != nil || string(secret.Data["password"]) != "changed" || string(secret.Data["username"]) != "admin" || secret.Labels["l"] != word {
		t.Errorf("after an operator changed the password: got %v, %v; want that changed and nothing else", secret, err)
	}
	master := (&examiner{address: "https://" + d.address}).as(t, d.client(t, "admin", "system:masters"))
	for _, c := range []call{
		{method: "PATCH", path: one, kind: merge, body: `{}`},
		{method: "PATCH", path: one, kind: json, body: `[]`},
		{method: "DELETE", path: path},
	} {
		if got := master.ask(c); got.status != http.StatusOK || !strings.Contains(got.body, word) {
			t.Errorf("%s %s by who may read: got %d %s, want the label", c.method, c.kind, got.status, got.body)
		}
	}
	release(t, d, namespace)
}

// release takes the finalizer off, if the Secret is there.
func release(t *testing.T, d *door, namespace string) {
	t.Helper()
	_, _ = d.person(t, "admin", "system:masters").CoreV1().Secrets(namespace).Patch(t.Context(), "bmc", "application/merge-patch+json",
		[]byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
}
