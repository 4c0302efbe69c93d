// SPDX-License-Identifier: Apache-2.0

// Package metal3 is what Metal3's admission webhooks ask of its kinds beyond their schemas, so that a client is refused here
// what it is refused there. Each rule is a row of one table with its field, its words and its source; docs/api.md shows the
// same rows. It must not know the server that asks, nor change anything: it reads two versions of an object and names what
// is wrong. Start reading at Check, then at hostRules in host.go.
package metal3

import (
	"fmt"
	"slices"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Group is the API group whose kinds have rules.
const Group = "metal3.io"

// Rule is a row of the table, in words.
type Rule struct{ Kind, Field, Says, Source string }

// rule is a row with what it does. check gets the object as it would be and as it was; was is nil at creation.
type rule[T any] struct {
	field, says, source string
	check               func(is, was *T) field.ErrorList
}

// The sources of rules: Metal3's webhooks as of v0.13, and metald itself where Metal3 would only fail later.
const (
	upstream = "Metal3"
	ours     = "metald"
)

// kind is the rules of one kind behind an untyped face.
type kind struct {
	rules []Rule
	check func(is, was map[string]any) (field.ErrorList, error)
}

func kindOf[T any](name string, rules []rule[T]) kind {
	k := kind{}
	for _, r := range rules {
		k.rules = append(k.rules, Rule{name, r.field, r.says, r.source})
	}
	all := func(is, was *T) (errs field.ErrorList) {
		for _, r := range rules {
			errs = append(errs, r.check(is, was)...)
		}
		return errs
	}
	k.check = func(is, was map[string]any) (field.ErrorList, error) {
		object, err := decode[T](is)
		if err != nil || was == nil {
			return all(object, nil), err
		}
		old, err := decode[T](was)
		if err != nil {
			return nil, err
		}
		// What was wrong before is not held against a change of something else: an object that was stored before a rule was
		// made can still be labelled, let go of and deleted.
		known := all(old, nil)
		return slices.DeleteFunc(all(object, old), func(e *field.Error) bool {
			return slices.ContainsFunc(known, func(k *field.Error) bool { return k.Error() == e.Error() })
		}), nil
	}
	return k
}

// decode reads an object as its Go type. Fields that the type does not know, of a later Metal3, are left aside.
func decode[T any](object map[string]any) (*T, error) {
	typed := new(T)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object, typed); err != nil {
		return typed, fmt.Errorf("reading it as Metal3's type: %w", err)
	}
	return typed, nil
}

// kinds are the kinds that have rules. The others (HardwareData, FirmwareSchema, HostFirmwareSettings, HostUpdatePolicy,
// PreprovisioningImage) have none beyond their schemas: whether a firmware setting fits its FirmwareSchema is told by
// the condition Valid, as in Metal3, since the schema may come after the settings.
var kinds = map[string]kind{
	"BareMetalHost":          kindOf[metal3.BareMetalHost]("BareMetalHost", hostRules),
	"BMCEventSubscription":   kindOf[metal3.BMCEventSubscription]("BMCEventSubscription", subscriptionRules),
	"DataImage":              kindOf[metal3.DataImage]("DataImage", dataImageRules),
	"HostClaim":              kindOf[metal3.HostClaim]("HostClaim", claimRules),
	"HostDeployPolicy":       kindOf[metal3.HostDeployPolicy]("HostDeployPolicy", policyRules),
	"HostFirmwareComponents": kindOf[metal3.HostFirmwareComponents]("HostFirmwareComponents", componentRules),
}

// Rules is the table, by kind and then in its order.
func Rules() (all []Rule) {
	for _, name := range []string{"BareMetalHost", "BMCEventSubscription", "DataImage", "HostClaim", "HostDeployPolicy", "HostFirmwareComponents"} {
		all = append(all, kinds[name].rules...)
	}
	return all
}

// Check names what is wrong with an object of a kind; was is nil at creation. A kind without rules is never wrong.
func Check(name string, is, was map[string]any) (field.ErrorList, error) {
	k, ok := kinds[name]
	if !ok {
		return nil, nil
	}
	return k.check(is, was)
}
