// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"bytes"
	"encoding/base64"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What comes in through the door lies encrypted in the inventory, and the direct way reads it.
func TestSecretsAreSealed(t *testing.T) {
	d, ns := sharedDoor(t)
	const password = "canary-6b1f3a"
	client := d.admin(t).Resource(secrets).Namespace(ns)
	_, err := client.Create(t.Context(), object(t, "{apiVersion: v1, kind: Secret, metadata: {name: bmc}, stringData: {password: "+password+"}}"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	rows, err := d.store.Etcd().Get(t.Context(), "/registry/core/secrets/"+ns+"/", clientv3.WithPrefix())
	if err != nil || len(rows.Kvs) != 1 {
		t.Fatalf("got %v, %v; want one row", rows, err)
	}
	for _, form := range []string{password, base64.StdEncoding.EncodeToString([]byte(password))} {
		if bytes.Contains(rows.Kvs[0].Value, []byte(form)) {
			t.Errorf("it is stored as %q", rows.Kvs[0].Value)
		}
	}
	direct, err := d.store.Secrets().Get(t.Context(), ns, "bmc")
	if err != nil || string(direct.Data["password"]) != password {
		t.Errorf("the direct way reads %q, %v", direct.Data["password"], err)
	}
	// And the other way round, also as a change that the door's watch cache sees.
	direct.Data["password"] = []byte(password + "-2")
	if _, err := d.store.Secrets().Update(t.Context(), ns, "bmc", func(s *corev1.Secret) error { s.Data = direct.Data; return nil }); err != nil {
		t.Fatal(err)
	}
	got, err := client.Get(t.Context(), "bmc", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	data, _ := got.Object["data"].(map[string]any)
	if want := base64.StdEncoding.EncodeToString([]byte(password + "-2")); data["password"] != want {
		t.Errorf("the door reads %v, want %s", data["password"], want)
	}
}
