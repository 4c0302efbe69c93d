// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/storage/value"
	"k8s.io/client-go/discovery"
)

// served is one resource of the door, as discovery shows it.
type served struct {
	schema.GroupVersionKind
	plural     string
	namespaced bool
	verbs      []string
	subs       []string
}

// path is where the resource lies in a namespace; without one, where it lies for the whole cluster.
func (s served) path(namespace string) string {
	path := "/apis/" + s.Group + "/" + s.Version
	if s.Group == "" {
		path = "/api/" + s.Version
	}
	if namespace != "" && s.namespaced {
		path += "/namespaces/" + namespace
	}
	return path + "/" + s.plural
}

// key is where the store keeps an object of this resource.
func (s served) key(namespace, name string) string {
	group := s.Group
	if group == "" {
		group = "core"
	}
	if !s.namespaced {
		return "/registry/" + group + "/" + s.plural + "/" + name
	}
	return "/registry/" + group + "/" + s.plural + "/" + namespace + "/" + name
}

// stored says whether objects of this resource are kept, and not only asked.
func (s served) stored() bool { return slices.Contains(s.verbs, "list") }

// everything is all that the door serves.
func everything(t *testing.T, client discovery.DiscoveryInterface) []served {
	t.Helper()
	_, lists, err := client.ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]*served{}
	for _, list := range lists {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		for _, resource := range list.APIResources {
			if !strings.Contains(resource.Name, "/") {
				found[list.GroupVersion+"/"+resource.Name] = &served{version.WithKind(resource.Kind), resource.Name, resource.Namespaced, resource.Verbs, nil}
			}
		}
	}
	for _, list := range lists {
		for _, resource := range list.APIResources {
			if parent, sub, ok := strings.Cut(resource.Name, "/"); ok {
				of := found[list.GroupVersion+"/"+parent]
				of.subs = append(of.subs, sub)
			}
		}
	}
	var all []served
	for _, name := range slices.Sorted(maps.Keys(found)) {
		all = append(all, *found[name])
	}
	return all
}

// schemas are the schemas of one OpenAPI v3 document.
type schemas map[string]map[string]any

// schemasOf reads the document of a group and version.
func schemasOf(t *testing.T, client discovery.DiscoveryInterface, version schema.GroupVersion) schemas {
	t.Helper()
	path := "/openapi/v3/apis/" + version.String()
	if version.Group == "" {
		path = "/openapi/v3/api/" + version.Version
	}
	var document struct {
		Components struct{ Schemas schemas }
	}
	eventually(t, path+" is served", func() bool {
		text, err := client.RESTClient().Get().AbsPath(path).DoRaw(t.Context())
		return err == nil && json.Unmarshal(text, &document) == nil
	})
	return document.Components.Schemas
}

// object makes an object of a kind in which each text of each field is the given word. It need not be valid: it is stored
// past the door, as what another version of metald has left there might be.
func (s schemas) object(t *testing.T, kind schema.GroupVersionKind, word string) map[string]any {
	t.Helper()
	for _, one := range s {
		kinds, _ := one["x-kubernetes-group-version-kind"].([]any)
		for _, k := range kinds {
			k := k.(map[string]any)
			if k["group"] != kind.Group || k["version"] != kind.Version || k["kind"] != kind.Kind {
				continue
			}
			made, _ := s.value(one, word, 0).(map[string]any)
			for _, field := range []string{"metadata", "apiVersion", "kind"} {
				delete(made, field)
			}
			made["apiVersion"], made["kind"] = kind.GroupVersion().String(), kind.Kind
			return made
		}
	}
	t.Fatalf("no schema of %s", kind)
	return nil
}

// value fills in a schema.
func (s schemas) value(one map[string]any, word string, depth int) any {
	if ref, ok := one["$ref"].(string); ok {
		return s.value(s[ref[strings.LastIndex(ref, "/")+1:]], word, depth)
	}
	if parts, ok := one["allOf"].([]any); ok && len(parts) > 0 && one["type"] == nil {
		return s.value(parts[0].(map[string]any), word, depth)
	}
	if one["x-kubernetes-int-or-string"] == true {
		return word
	}
	switch one["type"] {
	case "string":
		switch one["format"] {
		case "date-time":
			return "2026-01-02T03:04:05.000000Z"
		case "byte":
			return base64.StdEncoding.EncodeToString([]byte(word))
		}
		return word
	case "integer", "number":
		return 1
	case "boolean":
		return true
	case "array":
		items, _ := one["items"].(map[string]any)
		if depth > 12 {
			return []any{}
		}
		return []any{s.value(items, word, depth+1)}
	}
	made := map[string]any{}
	properties, _ := one["properties"].(map[string]any)
	for name, property := range properties {
		if depth <= 12 {
			made[name] = s.value(property.(map[string]any), word, depth+1)
		}
	}
	if rest, ok := one["additionalProperties"].(map[string]any); ok {
		made[word] = s.value(rest, word, depth+1)
	} else if len(properties) == 0 {
		made[word] = word
	}
	return made
}

// The words that are searched for. Each is all small letters, so that it may stand wherever a text may.
func nameCanary(s served) string    { return "canaryn" + s.plural }
func contentCanary(s served) string { return "canaryc" + s.plural }
func uidCanary(s served) string     { return "canaryu" + s.plural }

// seed puts an object of each stored resource into a namespace, or beside the namespaces, with a word of its own for its
// name, its uid and everything else, and returns the keys. Definitions of kinds are left out: which kinds there are, is what
// discovery tells everybody.
func seed(t *testing.T, d *door, all []served, documents map[schema.GroupVersion]schemas, namespace string) (keys []string) {
	t.Helper()
	for _, s := range all {
		if !s.stored() || s.Kind == "CustomResourceDefinition" {
			continue
		}
		name, content := nameCanary(s), contentCanary(s)
		made := documents[s.GroupVersion()].object(t, s.GroupVersionKind, content)
		meta := map[string]any{
			"name": name, "uid": uidCanary(s), "creationTimestamp": "2026-01-02T03:04:05Z", "generation": 1,
			"labels": map[string]any{"canary": content}, "annotations": map[string]any{content: content},
			"managedFields": []any{map[string]any{"manager": content, "operation": "Update", "apiVersion": s.GroupVersion().String(),
				"time": "2026-01-02T03:04:05Z", "fieldsType": "FieldsV1", "fieldsV1": map[string]any{"f:" + content: map[string]any{}}}},
		}
		if s.namespaced {
			meta["namespace"] = namespace
		}
		made["metadata"] = meta
		text, err := json.Marshal(made)
		if err != nil {
			t.Fatal(err)
		}
		key := s.key(namespace, name)
		sealed, err := d.store.Transformer(schema.GroupResource{Group: s.Group, Resource: s.plural}).
			TransformToStorage(t.Context(), text, value.DefaultContext(key))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.store.Etcd().Put(t.Context(), key, string(sealed)); err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	return keys
}

// readKeys is the value and version of each key.
func readKeys(t *testing.T, d *door, keys []string) map[string]string {
	t.Helper()
	values := map[string]string{}
	for _, key := range keys {
		found, err := d.store.Etcd().Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		values[key] = "gone"
		if len(found.Kvs) == 1 {
			values[key] = fmt.Sprint(found.Kvs[0].ModRevision, string(found.Kvs[0].Value))
		}
	}
	return values
}

// makeNamespace makes a namespace.
func makeNamespace(t *testing.T, d *door, name string) {
	t.Helper()
	_, err := d.admin(t).Resource(namespaces).Create(t.Context(),
		object(t, "{apiVersion: v1, kind: Namespace, metadata: {name: "+name+"}}"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}
