// SPDX-License-Identifier: Apache-2.0

package rbac

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// followPause is how long the follower waits before it watches anew.
const followPause = time.Second

// Access decides who may do what by the roles and bindings in the inventory. It decides on one reading of all of
// them at one revision, and reads them anew after any of them was written: a write through this door says so before it is
// answered, so that whoever was told of a grant, or of its end, finds it in force with the next request. Writes that come
// another way, through a second daemon on the same etcd, are heard of by a watch a moment later.
type Access struct {
	client *kubernetes.Client
	prefix string // of the keys of all roles and bindings
	logger *slog.Logger

	changes atomic.Uint64 // counts writes that were heard of
	known   atomic.Pointer[grants]
	mutex   sync.Mutex // held while reading
}

var (
	_ authorizer.Authorizer   = (*Access)(nil)
	_ authorizer.RuleResolver = (*Access)(nil)
)

// New makes what decides by the roles and bindings whose keys begin with prefix, a slash and the name of their group.
func New(client *kubernetes.Client, prefix string, logger *slog.Logger) *Access {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Access{client: client, prefix: prefix + "/" + rbacv1.GroupName + "/", logger: logger}
}

// all is what a member of system:masters may do, whatever the roles say: the way back in after a mistake with them.
var all = []rbacv1.PolicyRule{
	{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}},
	{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}},
}

func master(who user.Info) bool { return slices.Contains(who.GetGroups(), user.SystemPrivilegedGroup) }

// Authorize implements authorizer.Authorizer. A refusal gives no reason: it would speak of roles that the asker may not read.
func (a *Access) Authorize(ctx context.Context, request authorizer.Attributes) (authorizer.Decision, string, error) {
	who := request.GetUser()
	if who == nil {
		return authorizer.DecisionNoOpinion, "", nil
	}
	if master(who) {
		return authorizer.DecisionAllow, "", nil
	}
	now, err := a.current(ctx)
	if err != nil {
		return authorizer.DecisionNoOpinion, "", err
	}
	decision, reason := authorizer.DecisionNoOpinion, ""
	now.visit(who, request.GetNamespace(), func(by string, rule rbacv1.PolicyRule) bool {
		if !allows(rule, request) {
			return true
		}
		decision, reason = authorizer.DecisionAllow, "granted by "+by
		return false
	})
	return decision, reason, nil
}

// ConditionsAwareAuthorize implements authorizer.Authorizer.
func (a *Access) ConditionsAwareAuthorize(ctx context.Context, request authorizer.Attributes) authorizer.ConditionsAwareDecision {
	return authorizer.ConditionsAwareDecisionFromParts(a.Authorize(ctx, request))
}

// EvaluateConditions implements authorizer.Authorizer by a refusal: no decision of this one has conditions.
func (a *Access) EvaluateConditions(context.Context, authorizer.ConditionsAwareDecision, authorizer.ConditionsData) (authorizer.Decision, string, error) {
	return authorizer.DecisionDeny, "", authorizer.ErrorConditionEvaluationNotSupported
}

// rules are what somebody may do in a namespace, and everywhere if it is empty.
func (a *Access) rules(ctx context.Context, who user.Info, namespace string) ([]rbacv1.PolicyRule, error) {
	if master(who) {
		return all, nil
	}
	now, err := a.current(ctx)
	if err != nil {
		return nil, err
	}
	var rules []rbacv1.PolicyRule
	now.visit(who, namespace, func(_ string, rule rbacv1.PolicyRule) bool {
		rules = append(rules, rule)
		return true
	})
	return rules, nil
}

// RulesFor implements authorizer.RuleResolver.
func (a *Access) RulesFor(ctx context.Context, who user.Info, namespace string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	rules, err := a.rules(ctx, who, namespace)
	if err != nil {
		return nil, nil, true, err
	}
	var resources []authorizer.ResourceRuleInfo
	var paths []authorizer.NonResourceRuleInfo
	for _, rule := range rules {
		if len(rule.Resources) > 0 {
			resources = append(resources, &authorizer.DefaultResourceRuleInfo{
				Verbs: rule.Verbs, APIGroups: rule.APIGroups, Resources: rule.Resources, ResourceNames: rule.ResourceNames})
		}
		if len(rule.NonResourceURLs) > 0 {
			paths = append(paths, &authorizer.DefaultNonResourceRuleInfo{Verbs: rule.Verbs, NonResourceURLs: rule.NonResourceURLs})
		}
	}
	return resources, paths, false, nil
}

// current is what was granted when it is called, or later.
func (a *Access) current(ctx context.Context) (*grants, error) {
	fresh := func() *grants {
		if known := a.known.Load(); known != nil && known.at == a.changes.Load() {
			return known
		}
		return nil
	}
	if known := fresh(); known != nil {
		return known, nil
	}
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if known := fresh(); known != nil {
		return known, nil
	}
	at := a.changes.Load() // before reading: what is written meanwhile is read again
	read, err := readGrants(ctx, a.client, a.prefix, a.logger)
	if err != nil {
		return nil, fmt.Errorf("reading who may do what: %w", err)
	}
	read.at = at
	a.known.Store(read)
	return read, nil
}

// Follow hears of writes that do not come through this door, until ctx ends.
func (a *Access) Follow(ctx context.Context) {
	for ctx.Err() == nil {
		watching, stop := context.WithCancel(ctx)
		for response := range a.client.Watch(watching, a.prefix, clientv3.WithPrefix()) {
			a.changes.Add(1)
			if response.Err() != nil {
				break
			}
		}
		stop()
		a.changes.Add(1) // whatever happened between two watches
		select {
		case <-ctx.Done():
		case <-time.After(followPause):
		}
	}
}

// Guard makes a registry of roles or bindings say when it was written to, and lets nobody grant what they lack.
func (a *Access) Guard(store *genericregistry.Store) rest.Storage {
	store.AfterCreate = func(runtime.Object, *metav1.CreateOptions) { a.changes.Add(1) }
	store.AfterUpdate = func(runtime.Object, *metav1.UpdateOptions) { a.changes.Add(1) }
	store.AfterDelete = func(runtime.Object, *metav1.DeleteOptions) { a.changes.Add(1) }
	return guarded{Store: store, access: a}
}
