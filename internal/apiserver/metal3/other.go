// SPDX-License-Identifier: Apache-2.0

package metal3

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

var subscriptionRules = []rule[metal3.BMCEventSubscription]{
	{"spec.hostName", "is given", upstream, func(is, _ *metal3.BMCEventSubscription) field.ErrorList {
		if is.Spec.HostName == "" {
			return field.ErrorList{field.Required(specPath.Child("hostName"), "")}
		}
		return nil
	}},
	{"spec.destination", "is a URL with a path, be it a slash", upstream, checkDestination},
	{"spec.httpHeadersRef", "is a Secret of the same namespace, by name", upstream, func(is, _ *metal3.BMCEventSubscription) field.ErrorList {
		if r := is.Spec.HTTPHeadersRef; r != nil && r.Namespace != is.Namespace {
			return field.ErrorList{field.Invalid(specPath.Child("httpHeadersRef", "namespace"), r.Namespace, "must be the namespace of the subscription")}
		}
		return nil
	}},
	{"spec", "does not change: make a subscription anew", upstream, func(is, was *metal3.BMCEventSubscription) field.ErrorList {
		if was == nil || sameSubscription(is.Spec, was.Spec) {
			return nil
		}
		return field.ErrorList{field.Forbidden(specPath, "cannot be changed: delete the subscription and create it anew")}
	}},
}

func sameSubscription(a, b metal3.BMCEventSubscriptionSpec) bool {
	if (a.HTTPHeadersRef == nil) != (b.HTTPHeadersRef == nil) || a.HTTPHeadersRef != nil && *a.HTTPHeadersRef != *b.HTTPHeadersRef {
		return false
	}
	return a.HostName == b.HostName && a.Destination == b.Destination && a.Context == b.Context
}

func checkDestination(is, _ *metal3.BMCEventSubscription) field.ErrorList {
	path, text := specPath.Child("destination"), is.Spec.Destination
	if text == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	u, err := url.ParseRequestURI(text)
	if err != nil {
		return field.ErrorList{field.Invalid(path, text, "is not a URL")}
	}
	if u.Path == "" {
		return field.ErrorList{field.Invalid(path, text, "needs a path, be it a trailing slash")}
	}
	return nil
}

var dataImageRules = []rule[metal3.DataImage]{
	{"spec.url", "is an http, https or oci URL", upstream, func(is, _ *metal3.DataImage) field.ErrorList {
		return checkURL(specPath.Child("url"), is.Spec.URL)
	}},
}

var componentRules = []rule[metal3.HostFirmwareComponents]{
	{"spec.updates[].url", "is an http, https or oci URL", upstream, func(is, _ *metal3.HostFirmwareComponents) (errs field.ErrorList) {
		for n, update := range is.Spec.Updates {
			errs = append(errs, checkURL(specPath.Child("updates").Index(n).Child("url"), update.URL)...)
		}
		return errs
	}},
}

func checkURL(path *field.Path, text string) field.ErrorList {
	u, err := url.ParseRequestURI(text)
	if err != nil {
		return field.ErrorList{field.Invalid(path, text, "is not a URL")}
	}
	if schemes := []string{"http", "https", "oci"}; !slices.Contains(schemes, u.Scheme) {
		return field.ErrorList{field.Invalid(path, text, fmt.Sprintf("has the scheme %q, expected http, https or oci", u.Scheme))}
	}
	return nil
}

func checkImage(image *metal3.Image, path *field.Path) (errs field.ErrorList) {
	if image == nil {
		return nil
	}
	if _, err := url.ParseRequestURI(image.URL); err != nil {
		errs = append(errs, field.Invalid(path.Child("url"), image.URL, "is not a URL"))
	}
	if _, _, err := image.GetChecksum(); err != nil {
		errs = append(errs, field.Invalid(path.Child("checksum"), image.Checksum, err.Error()))
	}
	return errs
}

func checkSecrets(namespace string, refs map[string]*corev1.SecretReference) (errs field.ErrorList) {
	for _, name := range []string{"userData", "networkData", "metaData"} {
		if r := refs[name]; r != nil && r.Namespace != "" && r.Namespace != namespace {
			errs = append(errs, field.Forbidden(specPath.Child(name, "namespace"), "cross-namespace Secret references are not allowed"))
		}
	}
	return errs
}

var policyRules = []rule[metal3.HostDeployPolicy]{
	{"spec.hostClaimNamespaces.nameMatches", "is a regular expression", ours, func(is, _ *metal3.HostDeployPolicy) field.ErrorList {
		if is.Spec.HostClaimNamespaces == nil {
			return nil
		}
		text := is.Spec.HostClaimNamespaces.NameMatches
		if _, err := regexp.Compile(text); err != nil {
			return field.ErrorList{field.Invalid(specPath.Child("hostClaimNamespaces", "nameMatches"), text, err.Error())}
		}
		return nil
	}},
}

var claimRules = []rule[metal3.HostClaim]{
	{"spec.{userData,networkData,metaData}", "are Secrets of the same namespace", upstream, func(is, _ *metal3.HostClaim) field.ErrorList {
		return checkSecrets(is.Namespace, map[string]*corev1.SecretReference{
			"userData": is.Spec.UserData, "networkData": is.Spec.NetworkData, "metaData": is.Spec.MetaData,
		})
	}},
	{"spec.hostSelector.matchLabels", "are labels", upstream, func(is, _ *metal3.HostClaim) field.ErrorList {
		return metav1validation.ValidateLabels(is.Spec.HostSelector.MatchLabels, specPath.Child("hostSelector", "matchLabels"))
	}},
	{"spec.hostSelector.matchExpressions", "are a label, a known operator, and as many values as it takes", upstream, checkExpressions},
	{"spec.image", "has a URL, and a checksum of a known type unless it is a live ISO or an OCI image",
		upstream, func(is, _ *metal3.HostClaim) field.ErrorList {
			return checkImage(is.Spec.Image, specPath.Child("image"))
		}},
	{"metadata.annotations", "that order a reboot can be read", upstream, func(is, _ *metal3.HostClaim) (errs field.ErrorList) {
		for _, key := range sortedKeys(is.Annotations) {
			if isReboot(key) {
				errs = append(errs, checkReboot(metaPath.Child("annotations").Key(key), is.Annotations[key])...)
			}
		}
		return errs
	}},
}

func checkExpressions(is, _ *metal3.HostClaim) (errs field.ErrorList) {
	for n, e := range is.Spec.HostSelector.MatchExpressions {
		path := specPath.Child("hostSelector", "matchExpressions").Index(n)
		errs = append(errs, metav1validation.ValidateLabelName(e.Key, path.Child("key"))...)
		wrong := ""
		switch e.Operator {
		case selection.Equals, selection.DoubleEquals, selection.NotEquals:
			if len(e.Values) != 1 {
				wrong = "takes exactly one value"
			}
		case selection.In, selection.NotIn:
			if len(e.Values) == 0 {
				wrong = "takes at least one value"
			}
		case selection.Exists, selection.DoesNotExist:
			if len(e.Values) != 0 {
				wrong = "takes no values"
			}
		default:
			errs = append(errs, field.Invalid(path.Child("operator"), e.Operator, "is not an operator of selectors"))
		}
		if wrong != "" {
			errs = append(errs, field.Invalid(path.Child("values"), e.Values, fmt.Sprintf("operator %s %s", e.Operator, wrong)))
		}
		for v, value := range e.Values {
			for _, msg := range validation.IsValidLabelValue(value) {
				errs = append(errs, field.Invalid(path.Child("values").Index(v), value, msg))
			}
		}
	}
	return errs
}
