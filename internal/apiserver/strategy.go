// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage/names"
)

// rules are what one compiled-in kind asks of its objects. A nil rule asks nothing.
type rules struct {
	// prepare sets what a writer leaves out or may not choose; old is nil at creation.
	prepare func(object, old runtime.Object)
	// validate checks an object that is about to be stored; old is nil at creation.
	validate func(object, old runtime.Object) field.ErrorList
	// upsert lets a PUT create the object.
	upsert bool
}

// strategy carries out rules for the stock registry.
type strategy struct {
	runtime.ObjectTyper
	names.NameGenerator
	namespaced bool
	rules      rules
}

var (
	_ rest.RESTCreateStrategy = strategy{}
	_ rest.RESTUpdateStrategy = strategy{}
	_ rest.RESTDeleteStrategy = strategy{}
)

func newStrategy(namespaced bool, rules rules) strategy {
	return strategy{nativeScheme, names.SimpleNameGenerator, namespaced, rules}
}

// NamespaceScoped implements rest.RESTCreateStrategy.
func (s strategy) NamespaceScoped() bool { return s.namespaced }

// PrepareForCreate implements rest.RESTCreateStrategy.
func (s strategy) PrepareForCreate(_ context.Context, object runtime.Object) {
	if s.rules.prepare != nil {
		s.rules.prepare(object, nil)
	}
}

// PrepareForUpdate implements rest.RESTUpdateStrategy.
func (s strategy) PrepareForUpdate(_ context.Context, object, old runtime.Object) {
	if s.rules.prepare != nil {
		s.rules.prepare(object, old)
	}
}

// Validate implements rest.RESTCreateStrategy.
func (s strategy) Validate(_ context.Context, object runtime.Object) field.ErrorList {
	if s.rules.validate == nil {
		return nil
	}
	return s.rules.validate(object, nil)
}

// ValidateUpdate implements rest.RESTUpdateStrategy.
func (s strategy) ValidateUpdate(_ context.Context, object, old runtime.Object) field.ErrorList {
	if s.rules.validate == nil {
		return nil
	}
	return s.rules.validate(object, old)
}

// AllowCreateOnUpdate implements rest.RESTUpdateStrategy.
func (s strategy) AllowCreateOnUpdate(context.Context) bool { return s.rules.upsert }

// AllowUnconditionalUpdate implements rest.RESTUpdateStrategy.
func (s strategy) AllowUnconditionalUpdate(context.Context) bool { return true }

// Canonicalize implements rest.RESTCreateStrategy.
func (strategy) Canonicalize(runtime.Object) {}

// WarningsOnCreate implements rest.RESTCreateStrategy.
func (strategy) WarningsOnCreate(context.Context, runtime.Object) []string { return nil }

// WarningsOnUpdate implements rest.RESTUpdateStrategy.
func (strategy) WarningsOnUpdate(context.Context, runtime.Object, runtime.Object) []string {
	return nil
}
