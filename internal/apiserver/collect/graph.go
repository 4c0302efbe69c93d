// SPDX-License-Identifier: Apache-2.0

package collect

import (
	"reflect"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// graph is who is there and who belongs to whom. What it is told makes it name the keys that should be looked at again.
type graph struct {
	mutex      sync.Mutex
	byKey      map[string]*item
	byUID      map[types.UID]*item
	dependents map[types.UID]map[string]*item // by the owner's UID, then by key
	words      map[string]string              // one copy of each word that most items share
}

func newGraph() *graph {
	return &graph{byKey: map[string]*item{}, byUID: map[types.UID]*item{}, dependents: map[types.UID]map[string]*item{}, words: map[string]string{}}
}

func (g *graph) word(s string) string {
	if known, ok := g.words[s]; ok {
		return known
	}
	g.words[s] = s
	return s
}

// put notes an object as it is now and returns the keys to look at. What is older than what is known is not news.
func (g *graph) put(i *item) (look []string) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	was := g.byKey[i.key]
	if was != nil && was.revision >= i.revision {
		return nil
	}
	if was != nil && was.uid != i.uid { // deleted and made anew between two looks
		look = g.drop(was)
		was = nil
	}
	i.version, i.kind, i.namespace = g.word(i.version), g.word(i.kind), g.word(i.namespace)
	i.resource = schema.GroupResource{Group: g.word(i.resource.Group), Resource: g.word(i.resource.Resource)}
	if was != nil {
		g.unlink(was)
	}
	g.byKey[i.key], g.byUID[i.uid] = i, i
	for _, o := range i.owners {
		if g.dependents[o.uid] == nil {
			g.dependents[o.uid] = map[string]*item{}
		}
		g.dependents[o.uid][i.key] = i
	}
	switch {
	case i.foreground() || i.orphan():
		look = append(look, i.key)
		for key := range g.dependents[i.uid] {
			look = append(look, key)
		}
	case was == nil && len(i.owners) > 0:
		look = append(look, i.key)
	case was != nil && !reflect.DeepEqual(was.owners, i.owners):
		look = append(look, i.key)
		look = append(look, g.waiting(was)...) // an owner may wait for this one no more
	}
	return look
}

// remove forgets the object of a key, unless something newer is known there.
func (g *graph) remove(key string, revision int64) (look []string) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	was := g.byKey[key]
	if was == nil || was.revision > revision {
		return nil
	}
	return g.drop(was)
}

func (g *graph) drop(was *item) (look []string) {
	g.unlink(was)
	delete(g.byKey, was.key)
	if g.byUID[was.uid] == was {
		delete(g.byUID, was.uid)
	}
	for key := range g.dependents[was.uid] {
		look = append(look, key)
	}
	return append(look, g.waiting(was)...)
}

// waiting is the owners of an item that wait for their dependents to go.
func (g *graph) waiting(i *item) (keys []string) {
	for _, o := range i.owners {
		if of := g.byUID[o.uid]; of != nil && of.foreground() {
			keys = append(keys, of.key)
		}
	}
	return keys
}

func (g *graph) unlink(was *item) {
	for _, o := range was.owners {
		delete(g.dependents[o.uid], was.key)
		if len(g.dependents[o.uid]) == 0 {
			delete(g.dependents, o.uid)
		}
	}
}

// keep forgets all keys that a complete list did not have; since is the revision that the list began at.
func (g *graph) keep(listed map[string]bool, since int64) (look []string) {
	g.mutex.Lock()
	var gone []string
	for key, i := range g.byKey {
		if !listed[key] && i.revision <= since {
			gone = append(gone, key)
		}
	}
	g.mutex.Unlock()
	for _, key := range gone {
		look = append(look, g.remove(key, since)...)
	}
	return look
}

// Items are not changed once they are in the graph, so they may be read without it.

func (g *graph) at(key string) *item {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	return g.byKey[key]
}

func (g *graph) of(uid types.UID) *item {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	return g.byUID[uid]
}

func (g *graph) dependentsOf(uid types.UID) []*item {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	found := make([]*item, 0, len(g.dependents[uid]))
	for _, i := range g.dependents[uid] {
		found = append(found, i)
	}
	return found
}

// within is all that is in a namespace.
func (g *graph) within(namespace string) (found []*item) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	for _, i := range g.byKey {
		if i.namespace == namespace {
			found = append(found, i)
		}
	}
	return found
}
