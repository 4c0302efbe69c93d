// SPDX-License-Identifier: Apache-2.0

package collect

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/etcd/client/v3/kubernetes"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/storage/value"
)

// owner is one reference of a dependent, without what does not matter for its life.
type owner struct {
	group, kind, name string
	uid               types.UID
	blocks            bool
}

func (o owner) String() string {
	return fmt.Sprintf("%s %s (uid %s)", schema.GroupKind{Group: o.group, Kind: o.kind}, o.name, o.uid)
}

// item is what is kept of a stored object: who it is, whose it is, and whether it is on its way out. Nothing of its spec or
// status, so that a large inventory costs little.
type item struct {
	key             string
	resource        schema.GroupResource
	version, kind   string
	namespace, name string
	uid             types.UID
	revision        int64 // of its last change; the resourceVersion that clients see
	owners          []owner
	finalizers      []string
	deleting        bool
}

func (i *item) foreground() bool {
	return i.deleting && slices.Contains(i.finalizers, metav1.FinalizerDeleteDependents)
}

func (i *item) orphan() bool {
	return i.deleting && slices.Contains(i.finalizers, metav1.FinalizerOrphanDependents)
}

// stored is the part of an object's JSON that an item is made of.
type stored struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		UID               types.UID               `json:"uid"`
		DeletionTimestamp *string                 `json:"deletionTimestamp"`
		Finalizers        []string                `json:"finalizers"`
		OwnerReferences   []metav1.OwnerReference `json:"ownerReferences"`
	} `json:"metadata"`
}

// reader reads items from the store itself, so that kinds are followed as they come and go, with one watch for all.
type reader struct {
	client *kubernetes.Client
	seal   func(schema.GroupResource) value.Transformer
	at     keys
}

// keys is where objects are stored: prefix/group/resource[/namespace]/name, with core for the group without a name.
type keys struct{ prefix, core string }

// locate splits a key. ok is false for what is no object.
func (k keys) locate(key string) (resource schema.GroupResource, namespace, name string, ok bool) {
	parts := strings.Split(strings.TrimPrefix(key, k.prefix+"/"), "/")
	if len(parts) != 3 && len(parts) != 4 {
		return resource, "", "", false
	}
	resource = schema.GroupResource{Group: parts[0], Resource: parts[1]}
	if resource.Group == k.core {
		resource.Group = ""
	}
	if len(parts) == 4 {
		namespace = parts[2]
	}
	return resource, namespace, parts[len(parts)-1], true
}

// key is where an object is stored.
func (k keys) key(resource schema.GroupResource, namespace, name string) string {
	key := k.prefix + "/" + cmp.Or(resource.Group, k.core) + "/" + resource.Resource + "/"
	if namespace != "" {
		key += namespace + "/"
	}
	return key + name
}

// item makes an item of a stored value; nil where the key is none that is followed.
func (r reader) item(ctx context.Context, key, data []byte, revision int64) (*item, error) {
	resource, namespace, name, ok := r.at.locate(string(key))
	if !ok {
		return nil, nil
	}
	plain, _, err := r.seal(resource).TransformFromStorage(ctx, data, value.DefaultContext(key))
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", key, err)
	}
	var s stored
	if err := json.Unmarshal(plain, &s); err != nil {
		return nil, fmt.Errorf("reading the metadata of %s: %w", key, err)
	}
	version, err := schema.ParseGroupVersion(s.APIVersion)
	if err != nil {
		return nil, fmt.Errorf("reading the version of %s: %w", key, err)
	}
	i := &item{
		key: string(key), resource: resource, version: version.Version, kind: s.Kind, namespace: namespace, name: name,
		uid: s.Metadata.UID, revision: revision, finalizers: s.Metadata.Finalizers, deleting: s.Metadata.DeletionTimestamp != nil,
	}
	if resource == corev1.Resource("events") { // they own nothing and nobody owns them; but one may wait for its finalizers
		if !i.deleting {
			return nil, nil
		}
		return i, nil
	}
	for _, ref := range s.Metadata.OwnerReferences {
		group, err := schema.ParseGroupVersion(ref.APIVersion)
		if err != nil {
			return nil, fmt.Errorf("reading the owners of %s: %w", key, err)
		}
		i.owners = append(i.owners, owner{group.Group, ref.Kind, ref.Name, ref.UID, ref.BlockOwnerDeletion != nil && *ref.BlockOwnerDeletion})
	}
	return i, nil
}

// live reads one item as it is now; nil where there is none.
func (r reader) live(ctx context.Context, key string) (*item, error) {
	found, err := r.client.KV.Get(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", key, err)
	}
	if len(found.Kvs) == 0 {
		return nil, nil
	}
	return r.item(ctx, found.Kvs[0].Key, found.Kvs[0].Value, found.Kvs[0].ModRevision)
}
