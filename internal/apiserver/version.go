// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"strings"

	apimachineryversion "k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/util/compatibility"
	basecompatibility "k8s.io/component-base/compatibility"
)

// apiVersion is the Kubernetes release whose API conventions this door follows, in the form that clients parse. The
// linker may set k8s.io/component-base/version.gitVersion instead.
const apiVersion = "v1.37.2+metald"

// statedVersion is the library's version, told in words that clients can parse also where the linker has set none.
type statedVersion struct {
	basecompatibility.MutableEffectiveVersion
}

func effectiveVersion() statedVersion {
	return statedVersion{compatibility.DefaultBuildEffectiveVersion()}
}

// Info implements basecompatibility.EffectiveVersion.
func (v statedVersion) Info() *apimachineryversion.Info {
	info := *v.MutableEffectiveVersion.Info()
	if info.GitVersion == "" || strings.HasPrefix(info.GitVersion, "v0.0.0") {
		info.GitVersion, info.GitCommit, info.GitTreeState = apiVersion, "", ""
	}
	return &info
}
